"""Bringing files of leads in (BEHAVIOUR.md 5.5): strict per row, resumable, and never weakening a wish.

A file is written in pieces, each with its checkpoint in one transaction. An import that was killed
goes on where it stopped: by a worker where the file was uploaded, else when the same file is imported
again. A dry run reads every row and answers what would happen.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.audience import ImportOptions, ImportStatus, Rules
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.events import LeadsImported
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import LeadImport, LeadImportError
from nexus_marketing.db.queries.imports import COLUMNS, move_checkpoint
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record, record_bulk
from nexus_marketing.services.imports.matching import Matcher
from nexus_marketing.services.imports.rows import Piece, RowError, RowSource
from nexus_marketing.services.imports.writing import Coming, PieceOutcome, judge_piece, keep_traces, write_piece
from nexus_marketing.services.leads.fields import field_rules
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Records per transaction: on SQLite nobody else writes meanwhile (50 ms, DATABASE.md).
PIECE_ROWS: Final = {"postgresql": 2_000, "sqlite": 1_000}
#: How many rejected rows a report shows; all of them are kept with the import.
SHOWN_ERRORS: Final = 50
#: How many rows of each outcome a dry run shows.
SAMPLES: Final = 10
COUNTS: Final = (
    "created",
    "updated",
    "unchanged",
    "duplicate",
    "rejected",
    "suppressed",
    "consents",
    "consents_refused",
)
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    rows: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What would become of one row, without what it says: ``lead_id`` of a lead that is known, and its fields."""

    row_no: int
    outcome: str
    lead_id: int | None
    fields: Sequence[str]


@dataclass(slots=True)
class ImportReport:
    """What became of a file. ``rows`` = created + updated + unchanged + duplicate + rejected.

    ``mapping`` names the field of each column; ``suppressed`` (dry runs only) counts rows whose
    address gets no marketing whatever the file says; ``consents_refused`` counts acts of consent
    that a later withdrawal overrules. ``resumed_at`` is the row at which an interrupted import
    went on, 0 for a fresh one.
    """

    import_id: int | None
    form: str
    encoding: str
    encoding_confidence: float
    delimiter: str
    mapping: Mapping[str, str]
    dry_run: bool = False
    resumed_at: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    rejected: int = 0
    suppressed: int = 0
    consents: int = 0
    consents_refused: int = 0
    errors: list[RowError] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def of(cls, source: RowSource, import_id: int | None = None, *, dry_run: bool = False) -> "ImportReport":
        """About a file of which nothing has been read yet."""
        file = source.file
        return cls(import_id, source.form, file.encoding, file.confidence, file.delimiter, source.mapping, dry_run)

    def add(self, piece: Piece, outcome: PieceOutcome, errors: Sequence[RowError]) -> None:
        """Count a piece."""
        self.rows = piece.row_count
        for name, count in counts_of(piece, outcome, errors).items():
            setattr(self, name, getattr(self, name) + count)
        self.errors += errors[: SHOWN_ERRORS - len(self.errors)]
        if self.dry_run:
            self._sample(outcome)

    def _sample(self, outcome: PieceOutcome) -> None:
        room = {name: SAMPLES - sum(each.outcome == name for each in self.samples) for name in _OUTCOMES}
        if not any(room.values()):
            return
        for decision in outcome.decisions:
            if room[decision.outcome]:
                room[decision.outcome] -= 1
                names = decision.fields or (tuple(sorted(decision.person.values)) if decision.person.id is None else ())
                self.samples.append(Sample(decision.row_no, decision.outcome, decision.person.id, names))


_OUTCOMES: Final = ("created", "updated", "unchanged")


@dataclass(frozen=True, slots=True)
class Hold:
    """An import in somebody's hands: whoever has another token has taken it over."""

    import_id: int
    token: str


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads a file's pieces and judges or writes them."""

    runtime: Runtime
    tenant_id: int
    actor: Actor
    source: RowSource
    matcher: Matcher

    @classmethod
    def open(
        cls, runtime: Runtime, tenant_id: int, actor: Actor, path: Path, options: ImportOptions, *, may_consent: bool
    ) -> "Intake":
        """Find out what a file is and how its rows meet the tenant's leads.

        Raises:
            ValidationError: it cannot be imported as a whole.
        """
        with runtime.work(tenant_id, mode="read") as ctx:
            rules, now_text = field_rules(ctx), canonical_datetime(ctx.now)
        source = RowSource.open(path, options, rules, now_text, may_consent=may_consent)
        targets = source.targets
        types = {name: rule.type for name, rule in rules.items()}
        required = [rule for rule in rules.values() if rule.required]
        decided = Rules(targets if targets is not None else list(COLUMNS), options, types)
        return cls(runtime, tenant_id, actor, source, Matcher(decided, required, _columns(targets)))

    def pieces(self, after: int = 0) -> Iterator[Coming]:
        """What comes after a row, the next piece being read and looked up while the database writes one."""
        size = PIECE_ROWS[self.runtime.engines.dialect]
        # What lies before is read again, only to know its keys.
        return _ahead(self._coming(piece) for piece in self.source.pieces(size) if piece.row_count > after)

    def judge(self, coming: Coming) -> tuple[PieceOutcome, list[RowError]]:
        """What writing a piece would do, and which rows it would reject."""
        with self.runtime.work(self.tenant_id, self.actor, mode="read") as ctx:
            outcome = judge_piece(ctx, coming, self.matcher)
        return outcome, self._errors(coming.piece, outcome)

    def _coming(self, piece: Piece) -> Coming:
        with self.runtime.work(self.tenant_id, self.actor, mode="read") as ctx:
            return Coming(piece, self.matcher.look_up(ctx, piece.rows))

    def write(self, hold: Hold, before: int, coming: Coming) -> tuple[PieceOutcome, list[RowError]]:
        """Write a piece with its checkpoint; again where another transaction got in the way.

        Raises:
            Conflict: somebody else holds the import, or it was stopped: nothing was written.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._write(hold, before, coming)
            except IntegrityError as error:  # a lead that was made meanwhile
                log.info("import_piece_again", import_id=hold.import_id, error=type(error.orig).__name__)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
                log.info("import_piece_again", import_id=hold.import_id, error=type(error.orig).__name__)
            coming = self._coming(coming.piece)
        return self._write(hold, before, coming)

    def _write(self, hold: Hold, before: int, coming: Coming) -> tuple[PieceOutcome, list[RowError]]:
        piece, digest = coming.piece, self.source.file.digest.hex()
        with self.work() as ctx:
            outcome = write_piece(ctx, hold.import_id, coming, self.matcher, digest)
            errors = self._errors(piece, outcome)
            values = {
                "row_count": piece.row_count,
                "byte_offset": piece.end_offset,
                "status": str(ImportStatus.RUNNING),
                "token": hold.token,
                "leased_until": ctx.now + ctx.runtime.settings.lease,
                **counts_of(piece, outcome, errors),
            }
            if not move_checkpoint(ctx.session, hold.import_id, before, values):
                raise Conflict("Another process goes on with this import, or it was stopped.", id=hold.import_id)
            keep_traces(ctx, hold.import_id, piece.row_count, outcome)
            _keep_errors(ctx, hold.import_id, errors)
            count = outcome.created + outcome.updated
            record_bulk(ctx, "leads.imported", "lead_import", hold.import_id, count, outcome.manifest)
            options = self.source.options
            ctx.emit(
                LeadsImported(
                    self.tenant_id,
                    ctx.now,
                    hold.import_id,
                    outcome.created,
                    outcome.updated,
                    options.trigger_journeys,
                )
            )
        return outcome, errors

    def work(self) -> AbstractContextManager[Context]:
        """A transaction in the name of whoever imports."""
        return self.runtime.work(self.tenant_id, self.actor)

    def _errors(self, piece: Piece, outcome: PieceOutcome) -> list[RowError]:
        found = [*piece.errors, *(self.source.error(row_no, error) for row_no, error in outcome.errors)]
        return sorted(found, key=lambda error: error.row_no)


def import_leads(
    runtime: Runtime,
    tenant_id: int,
    path: Path | str,
    *,
    actor: Actor,
    dry_run: bool = False,
    options: ImportOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Bring a file of leads (CSV or JSON lines) in, here and now.

    Rows are matched by external id, then e-mail address, then phone number.

    Args:
        options: what happens to leads that are known, which column is which field, and so on.
        on_progress: called after each piece.

    Raises:
        ValidationError: the file as a whole cannot be imported: what, where and the remedy.
        Conflict: the same file is being imported by somebody else.
        PermissionDenied: the actor may not write leads, or not the consent that the file has.
    """
    actor.require(Permission.LEADS_WRITE)
    options = options or ImportOptions()
    may_consent = Permission.CONSENTS_WRITE in actor.permissions
    intake = Intake.open(runtime, tenant_id, actor, Path(path), options, may_consent=may_consent)
    refuse_consent(intake.source, actor)
    if dry_run:
        return _check(intake, on_progress)
    return _run(intake, on_progress)


def refuse_consent(source: RowSource, actor: Actor) -> None:
    """Refuse a table with a column of consent from whoever may not write consent.

    Raises:
        PermissionDenied: so it is.
    """
    if "consent" in (source.targets or ()):
        actor.require(Permission.CONSENTS_WRITE)


def counts_of(piece: Piece, outcome: PieceOutcome, errors: Sequence[RowError]) -> dict[str, int]:
    """The counts of a piece, by the names of ``COUNTS``."""
    found = {name: getattr(outcome, name, 0) for name in COUNTS}
    return found | {"duplicate": piece.duplicate, "rejected": len(errors)}


def new_token() -> str:
    """What tells one holder of an import from the next."""
    return secrets.token_hex(16)


def complete(ctx: Context, hold: Hold) -> LeadImport:
    """End an import whose last piece is written.

    Raises:
        Conflict: somebody else holds it, or it was stopped.
    """
    row = find(ctx.session, LeadImport, hold.import_id, lock=True)
    if row.status != ImportStatus.RUNNING or row.lease_token != hold.token:
        raise Conflict("Another process goes on with this import, or it was stopped.", id=hold.import_id)
    row.status, row.finished_at, row.lease_token, row.leased_until = ImportStatus.COMPLETED, ctx.now, None, None
    row.traces_until = ctx.now + timedelta(days=ctx.runtime.settings.import_undo_days)
    record(ctx, "import.completed", "lead_import", row.id, {name: (None, getattr(row, name)) for name in COUNTS[:5]})
    return row


def _check(intake: Intake, on_progress: Callable[[Progress], None] | None) -> ImportReport:
    report = ImportReport.of(intake.source, dry_run=True)
    for coming in intake.pieces():
        report.add(coming.piece, *intake.judge(coming))
        _tell(intake, coming.piece, on_progress)
    return report


def _run(intake: Intake, on_progress: Callable[[Progress], None] | None) -> ImportReport:
    report, hold = _open(intake)
    for coming in intake.pieces(report.resumed_at):
        report.add(coming.piece, *intake.write(hold, report.rows, coming))
        _tell(intake, coming.piece, on_progress)
    with intake.work() as ctx:
        complete(ctx, hold)
    return report


def _open(intake: Intake) -> tuple[ImportReport, Hold]:
    """Find the interrupted import of this file, or begin one."""
    source, token = intake.source, new_token()
    report = ImportReport.of(source)
    digest = _digest(intake)
    with intake.work() as ctx:
        started = ctx.session.scalars(
            select(LeadImport)
            .where(
                LeadImport.digest == digest,
                LeadImport.status == ImportStatus.RUNNING,
                LeadImport.blob_key.is_(None),
            )
            .order_by(LeadImport.id.desc())
            .limit(1)
            .with_for_update()
        ).first()
        if started is None:
            name = source.file.path.name
            started = new_import(ctx, source, name, digest=digest, status=ImportStatus.RUNNING)
            record(ctx, "import.started", "lead_import", started.id, {"source": (None, name)})
        else:
            report.resumed_at = report.rows = started.row_count
            for name in COUNTS:
                setattr(report, name, getattr(started, name))
        started.lease_token, started.leased_until = token, ctx.now + ctx.runtime.settings.lease
        ctx.session.flush()
        report.import_id = started.id
    return report, Hold(report.import_id, token)


def new_import(ctx: Context, source: RowSource, name: str, *, digest: bytes, status: ImportStatus) -> LeadImport:
    """Note a file that is to come in."""
    row = LeadImport(
        source=name,
        digest=digest,
        status=status,
        started_at=ctx.now,
        form=source.form,
        size_bytes=source.file.size_bytes,
        options=source.options.document(),
        inspection=inspection_of(source),
        actor=ctx.actor.label,
        may_consent=source.may_consent,
    )
    ctx.session.add(row)
    ctx.session.flush()
    return row


def inspection_of(source: RowSource) -> dict[str, Any]:
    """What the bytes told, and the field of each column."""
    file = source.file
    return {
        "encoding": file.encoding,
        "confidence": file.confidence,
        "delimiter": file.delimiter,
        "columns": [{"column": column.header, "target": column.target} for column in source.columns],
    }


def _digest(intake: Intake) -> bytes:
    """Of the file and of everything that decides what its pieces are and do."""
    source = intake.source
    how = [source.options.document(), source.file.encoding, source.file.delimiter]
    size = PIECE_ROWS[intake.runtime.engines.dialect]
    return sha256(source.file.digest + orjson.dumps([*how, size], option=orjson.OPT_SORT_KEYS)).digest()


def _columns(targets: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of leads that a file with these fields may change; the whole of a name and its parts go together."""
    if targets is None:
        return tuple(COLUMNS)
    filled = {target.partition(".")[0] for target in targets}
    if filled & {"name", "first_name", "last_name"}:
        filled |= {"name", "first_name", "last_name"}
    return tuple(name for name in COLUMNS if name in filled)


def _tell(intake: Intake, piece: Piece, on_progress: Callable[[Progress], None] | None) -> None:
    if on_progress is not None:
        on_progress(Progress(piece.row_count, piece.end_offset, intake.source.file.size_bytes))


def _ahead(pieces: Iterator[Coming]) -> Iterator[Coming]:
    """The same pieces, the next one being made ready while the caller waits for the database.

    Only then: two threads that both compute wait for each other at every turn, and 100,000 rows took
    4.3 s that take 3.5 s this way.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import-reader") as reader:
        coming = next(pieces, None)
        while coming is not None:
            following: list[Future[Coming | None]] = []

            def read_on(following: list[Future[Coming | None]] = following) -> None:
                if not following:
                    following.append(reader.submit(next, pieces, None))

            yield replace(coming, read_on=read_on)
            read_on()
            coming = following[0].result()


def _keep_errors(ctx: Context, import_id: int, errors: Sequence[RowError]) -> None:
    rows = [
        {
            "tenant_id": ctx.tenant_id,
            "import_id": import_id,
            "row_no": error.row_no,
            "column": error.column,
            "code": error.code,
            "message": error.message,
        }
        for error in errors
    ]
    if rows:
        ctx.session.execute(insert(LeadImportError), rows)
