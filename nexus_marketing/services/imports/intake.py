"""Bringing files of leads in (BEHAVIOUR.md 5.5): strict per row, resumable, and never weakening a wish.

A file is written in pieces, each with its checkpoint in one transaction. An import that was killed
goes on where it stopped: by a worker where the file was uploaded, else when the same file is imported
again. A dry run reads every row and answers what would happen.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

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
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record, record_bulk
from nexus_marketing.services.imports.holding import Hold, complete, new_import, new_token
from nexus_marketing.services.imports.matching import Matcher
from nexus_marketing.services.imports.reports import COUNTS, ImportReport, Progress, counts_of
from nexus_marketing.services.imports.rows import Piece, RowError, RowSource
from nexus_marketing.services.imports.writing import Coming, PieceOutcome, judge_piece, keep_traces, write_piece
from nexus_marketing.services.leads.fields import field_rules
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)
#: Records per transaction: on SQLite nobody else writes meanwhile (50 ms, DATABASE.md).
PIECE_ROWS: Final = {"postgresql": 2_000, "sqlite": 1_000}
_ATTEMPTS: Final = 3


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


def _tell(intake: Intake, piece: Piece, on_progress: Callable[[Progress], None] | None) -> None:
    if on_progress is not None:
        on_progress(Progress(piece.row_count, piece.end_offset, intake.source.file.size_bytes))
