"""Imports as jobs: a file is uploaded, looked at, tried out, brought in by the workers, and undone if need be.

What is asked for here is a change of the import's status; the work itself is ``services.imports.work``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from nexus_marketing.core.audience import Column, ImportOptions, ImportStatus, Rules, is_our_own, match_header
from nexus_marketing.core.audience.headers import target_of
from nexus_marketing.core.errors import Conflict, Gone, Problem, ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadImport, LeadImportProfile
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.csv_files import CsvFile, inspect_csv
from nexus_marketing.services.imports.rows import read_header
from nexus_marketing.services.json_files import JsonFile, inspect_json, is_json_lines, read_json_records
from nexus_marketing.services.leads.fields import field_rules

#: How long an uploaded file waits for what is to become of it.
UPLOAD_KEPT: Final = timedelta(days=7)
QUEUE: Final = "imports"
_LOOKED_AT: Final = 100
_STARTABLE: Final = (ImportStatus.READY, ImportStatus.CANCELLED, ImportStatus.FAILED)
_UNDOABLE: Final = (ImportStatus.COMPLETED, ImportStatus.CANCELLED, ImportStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at an uploaded file tells: ``header`` names its columns, ``problems`` what options must mend."""

    file: CsvFile | JsonFile
    header: Sequence[str]
    columns: Sequence[Column]
    problems: Sequence[Problem]

    @property
    def document(self) -> dict[str, Any]:
        """As it is kept and shown."""
        return {
            "encoding": self.file.encoding,
            "confidence": self.file.confidence,
            "delimiter": self.file.delimiter,
            "columns": [{"column": column.header, "target": column.target} for column in self.columns],
            "problems": [_problem(each) for each in self.problems],
        }


def look_at(path: Path, options: ImportOptions) -> Look:
    """Find out what a file is, and what its columns would fill.

    Raises:
        ValidationError: it is neither CSV nor JSON lines.
    """
    if is_json_lines(path):
        file = inspect_json(path)
        return Look(file, (), _keys_of(file, options), ())
    table = inspect_csv(path, encoding=options.encoding, delimiter=options.delimiter)
    header = read_header(table)
    try:
        return Look(table, header, match_header(header, options), ())
    except ValidationError as error:
        guessed = [
            Column(index, text.strip(), options.mapping.get(text.strip()) or target_of(text))
            for index, text in enumerate(header)
        ]
        return Look(table, header, guessed, error.problems)


def upload(ctx: Context, look: Look, *, name: str, blob_key: str) -> LeadImport:
    """Note a file that lies in the blob store already."""
    row = LeadImport(
        source=name.strip()[:200] or "leads",
        digest=look.file.digest,
        status=ImportStatus.READY,
        started_at=ctx.now,
        form="csv" if isinstance(look.file, CsvFile) else "jsonl",
        blob_key=blob_key,
        size_bytes=look.file.size_bytes,
        options=ImportOptions().document(),
        inspection=look.document,
        actor=ctx.actor.label,
        upload_until=ctx.now + UPLOAD_KEPT,
    )
    ctx.session.add(row)
    ctx.session.flush()
    record(ctx, "import.uploaded", "lead_import", row.id, {"size_bytes": (None, row.size_bytes)})
    return row


def request_check(ctx: Context, import_id: int, options: ImportOptions) -> LeadImport:
    """Have the workers read every row and tell what would happen.

    Raises:
        Conflict: rows have been written already, or it is at work.
        ValidationError: the file does not fit the options.
    """
    row = _startable(ctx, import_id)
    if row.row_count:
        raise Conflict("Rows of this import are written already: start it to go on with the rest.", id=import_id)
    _take_options(ctx, row, options)
    row.status, row.report, row.error, row.byte_offset = ImportStatus.CHECKING, None, None, 0
    record(ctx, "import.check_requested", "lead_import", row.id)
    ctx.ring(QUEUE)
    return row


def request_start(ctx: Context, import_id: int, options: ImportOptions | None) -> LeadImport:
    """Have the workers bring the file in; again after a stop, from where it stopped.

    Args:
        options: ``None`` takes those that it has.

    Raises:
        Conflict: it is at work or done, or the options are not those with which it began.
        PermissionDenied: the file says something about consent, and the actor may not.
        ValidationError: the file does not fit the options.
    """
    row = _startable(ctx, import_id)
    options = ImportOptions.read(row.options) if options is None else options
    if row.row_count and options.document() != row.options:
        raise Conflict("Rows of this import are written already: it goes on with the options it has.", id=import_id)
    columns = _take_options(ctx, row, options)
    if any(column.target == "consent" for column in columns):
        ctx.actor.require(Permission.CONSENTS_WRITE)
    row.may_consent = Permission.CONSENTS_WRITE in ctx.actor.permissions
    row.status, row.error, row.finished_at, row.actor = ImportStatus.RUNNING, None, None, ctx.actor.label
    record(ctx, "import.started", "lead_import", row.id, {"source": (None, row.source)})
    ctx.ring(QUEUE)
    return row


def cancel(ctx: Context, import_id: int) -> LeadImport:
    """Stop an import at the end of the piece that is being written; what is written stays, and can be undone.

    Raises:
        Conflict: it has ended already.
    """
    row = find(ctx.session, LeadImport, import_id, lock=True)
    if row.status not in (ImportStatus.READY, ImportStatus.CHECKING, ImportStatus.RUNNING):
        raise Conflict(f"The import is {row.status}: there is nothing to stop.", id=import_id, status=row.status)
    before = row.status
    row.status = ImportStatus.READY if before == ImportStatus.CHECKING else ImportStatus.CANCELLED
    row.lease_token, row.leased_until = None, None
    if row.status == ImportStatus.CANCELLED:
        row.finished_at = ctx.now
        row.traces_until = ctx.now + timedelta(days=ctx.runtime.settings.import_undo_days)
    record(ctx, "import.cancelled", "lead_import", row.id, {"status": (before, str(row.status))})
    return row


def request_undo(ctx: Context, import_id: int) -> LeadImport:
    """Have the workers put back what an import changed and take away what it made.

    Raises:
        Conflict: it is at work, or undone already.
        Gone: it is too long ago: what leads were before is forgotten.
    """
    row = find(ctx.session, LeadImport, import_id, lock=True)
    if row.status not in _UNDOABLE or not row.row_count:
        raise Conflict(f"The import is {row.status}: there is nothing to undo.", id=import_id, status=row.status)
    if row.traces_until is None or row.traces_until <= ctx.now:
        raise Gone("It is too long ago to undo this import: what its leads were before is forgotten.", id=import_id)
    row.status, row.error, row.byte_offset = ImportStatus.UNDOING, None, 0
    record(ctx, "import.undo_requested", "lead_import", row.id)
    ctx.ring(QUEUE)
    return row


def options_of(ctx: Context, data: Mapping[str, Any]) -> ImportOptions | None:
    """What a request says of options: those of a profile, with its own on top; ``None`` where it says nothing.

    Args:
        data: ``options``, ``profile_id``, or both.

    Raises:
        NotFound: there is no such profile.
        ValidationError: every fault, with its path.
    """
    said = data.get("options")
    known: Mapping[str, Any] = {}
    if data.get("profile_id") is not None:
        known = find(ctx.session, LeadImportProfile, int(data["profile_id"])).options
    elif said is None:
        return None
    try:
        return ImportOptions.read({**known, **(said or {})})
    except ValidationError as error:
        raise error.under("options") from None


def _startable(ctx: Context, import_id: int) -> LeadImport:
    row = find(ctx.session, LeadImport, import_id, lock=True)
    if row.status not in _STARTABLE:
        raise Conflict(f"The import is {row.status}: wait for its end.", id=import_id, status=row.status)
    if row.blob_key is None:
        raise Gone("The file of this import is gone: upload it again.", id=import_id)
    row.upload_until = ctx.now + UPLOAD_KEPT
    return row


def _take_options(ctx: Context, row: LeadImport, options: ImportOptions) -> Sequence[Column]:
    """Hold the file against options, and keep them; its columns under them."""
    columns = _columns_under(ctx, row, options)
    types = {name: rule.type for name, rule in field_rules(ctx).items()}
    Rules([column.target for column in columns], options, types)
    row.options = options.document()
    return columns


def _columns_under(ctx: Context, row: LeadImport, options: ImportOptions) -> Sequence[Column]:
    known = row.inspection
    said = [(options.encoding, known["encoding"]), (options.delimiter, known["delimiter"])]
    if row.form == "jsonl":
        return [Column(index, each["column"], each["target"]) for index, each in enumerate(known["columns"])]
    if any(wanted not in (None, found) for wanted, found in said):
        assert row.blob_key is not None
        with ctx.runtime.blobs.local(row.blob_key) as path:
            if path is None:
                raise Gone("The file of this import is gone: upload it again.", id=row.id)
            look = look_at(path, options)
        row.inspection = look.document
        header = look.header
    else:
        header = [each["column"] for each in known["columns"]]
    columns = match_header(header, options)
    targets = {column.header: column.target for column in columns}
    row.inspection = row.inspection | {
        "columns": [{"column": text, "target": targets.get(text.strip(), "ignore")} for text in header],
        "problems": [],
    }
    return columns


def _keys_of(file: JsonFile, options: ImportOptions) -> list[Column]:
    """The keys of the first objects, and the fields they fill."""
    keys: dict[str, None] = {}
    for record_, _ in zip(read_json_records(file), range(_LOOKED_AT), strict=False):
        if isinstance(record_.document, dict):
            keys |= dict.fromkeys(record_.document)
    mapping = options.mapping_for(is_ours=is_our_own(keys))
    return [Column(index, key, mapping.get(key) or target_of(key)) for index, key in enumerate(keys)]


def _problem(problem: Problem) -> dict[str, Any]:
    return {"path": problem.path, "code": problem.code, "message": problem.message}
