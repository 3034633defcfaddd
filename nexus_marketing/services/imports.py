"""Bringing files of leads in (BEHAVIOUR.md 5.5): strict per row, resumable, and never weakening a wish.

A file is written in pieces, each with its checkpoint in one transaction. An import that was killed
goes on where it stopped when the same file is imported again. A dry run reads every row and
answers what would happen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.audience import match_header
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.events import LeadsImported
from nexus_marketing.core.permissions import Permission
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import LeadImport, LeadImportError
from nexus_marketing.db.queries.imports import (
    TEXT_COLUMNS,
    Existing,
    LeadStatements,
    move_checkpoint,
)
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record, record_bulk
from nexus_marketing.services.csv_files import CsvFile, inspect_csv
from nexus_marketing.services.fields import declared_fields
from nexus_marketing.services.import_rows import Piece, RowError, RowSource, read_header
from nexus_marketing.services.import_writing import PieceOutcome, judge_piece, write_piece
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Records per transaction: on SQLite nobody else writes meanwhile (50 ms, DATABASE.md).
PIECE_ROWS: Final = {"postgresql": 2_000, "sqlite": 1_000}
#: How many rejected rows a report shows; all of them are kept with the import.
SHOWN_ERRORS: Final = 50
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    rows: int
    bytes_done: int
    bytes_total: int


@dataclass(slots=True)
class ImportReport:
    """What became of a file. ``rows`` = created + updated + unchanged + duplicate + rejected.

    ``mapping`` names the field of each column; ``suppressed`` (dry runs only) counts rows whose
    address gets no marketing whatever the file says; ``consents_refused`` counts acts of consent
    that a later withdrawal overrules. ``resumed_at`` is the row at which an interrupted import
    went on, 0 for a fresh one.
    """

    import_id: int | None
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


def import_leads(
    runtime: Runtime,
    tenant_id: int,
    path: Path | str,
    *,
    actor: Actor,
    dry_run: bool = False,
    existing: str = Existing.OVERWRITE,
    encoding: str | None = None,
    delimiter: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Bring a CSV file of leads in, matched by external id and e-mail address.

    Args:
        existing: ``overwrite`` (cells win, empty cells say nothing), ``fill`` (only gaps are
            filled) or ``keep`` (leads that are known stay as they are).
        encoding: and ``delimiter``: where the caller knows better than the bytes tell.
        on_progress: called after each piece.

    Raises:
        ValidationError: the file as a whole cannot be imported: what, where and the remedy.
        Conflict: the same file is being imported by somebody else.
        PermissionDenied: the actor may not write leads.
    """
    actor.require(Permission.LEADS_WRITE)
    file = inspect_csv(Path(path), encoding=encoding, delimiter=delimiter)
    source = _source(runtime, tenant_id, file)
    job = _Job(runtime, tenant_id, actor, source, Existing(existing), dry_run, on_progress)
    return job.run()


def _source(runtime: Runtime, tenant_id: int, file: CsvFile) -> RowSource:
    header = read_header(file)
    columns = match_header(header)
    with runtime.work(tenant_id, mode="read") as ctx:
        return RowSource(file, header, columns, declared_fields(ctx), canonical_datetime(ctx.now))


@dataclass(frozen=True, slots=True)
class _Job:
    runtime: Runtime
    tenant_id: int
    actor: Actor
    source: RowSource
    existing: Existing
    dry_run: bool
    on_progress: Callable[[Progress], None] | None

    def run(self) -> ImportReport:
        report = self._report()
        if not self.dry_run:
            self._open(report)
        size = PIECE_ROWS[self.runtime.engines.dialect]
        for piece in _ahead(self.source.pieces(size)):
            if piece.row_count <= report.resumed_at:
                continue  # committed before the interruption; read again only to know its keys
            outcome = self._judge(piece) if self.dry_run else self._write_stubbornly(report, piece)
            _count(report, piece, outcome)
            self._tell(piece)
        if not self.dry_run:
            self._close(report)
        return report

    def _report(self) -> ImportReport:
        file = self.source.file
        mapping = {column.header: column.target for column in self.source.columns}
        return ImportReport(None, file.encoding, file.confidence, file.delimiter, mapping, self.dry_run)

    def _digest(self) -> bytes:
        file = self.source.file
        how = f"{file.encoding}|{file.delimiter}|{self.existing}|{PIECE_ROWS[self.runtime.engines.dialect]}"
        return sha256(file.digest + how.encode()).digest()

    def _open(self, report: ImportReport) -> None:
        """Find the interrupted import of this file, or begin one."""
        digest = self._digest()
        with self._work() as ctx:
            started = ctx.session.scalars(
                select(LeadImport)
                .where(LeadImport.digest == digest, LeadImport.status == "running")
                .order_by(LeadImport.id.desc())
                .limit(1)
            ).first()
            if started is None:
                name = self.source.file.path.name
                started = LeadImport(source=name, digest=digest, status="running", started_at=ctx.now)
                ctx.session.add(started)
                ctx.session.flush()
                record(ctx, "import.started", "lead_import", started.id, {"source": (None, name)})
            else:
                _take_over(report, started)
            report.import_id = started.id

    def _write_stubbornly(self, report: ImportReport, piece: Piece) -> PieceOutcome:
        """Write again what another transaction got in the way of: a lead made meanwhile, a lost connection."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._write(report, piece)
            except IntegrityError as error:
                log.info("import_piece_again", import_id=report.import_id, error=type(error.orig).__name__)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
                log.info("import_piece_again", import_id=report.import_id, error=type(error.orig).__name__)
        return self._write(report, piece)

    def _write(self, report: ImportReport, piece: Piece) -> PieceOutcome:
        assert report.import_id is not None
        with self._work() as ctx:
            outcome = write_piece(ctx, piece, self._statements(ctx), self.source.file.digest.hex())
            before = report.rows
            values = {
                "row_count": piece.row_count,
                "byte_offset": piece.end_offset,
                "created": outcome.created,
                "updated": outcome.updated,
                "unchanged": outcome.unchanged,
                "duplicate": piece.duplicate,
                "rejected": len(outcome.errors),
            }
            if not move_checkpoint(ctx.session, report.import_id, before, values):
                raise Conflict("This file is being imported by another process: wait for it.", id=report.import_id)
            _keep_errors(ctx, report.import_id, outcome.errors)
            count = outcome.created + outcome.updated
            record_bulk(ctx, "leads.imported", "lead_import", report.import_id, count, outcome.manifest)
            ctx.emit(LeadsImported(self.tenant_id, ctx.now, report.import_id, outcome.created, outcome.updated))
        return outcome

    def _judge(self, piece: Piece) -> PieceOutcome:
        with self.runtime.work(self.tenant_id, self.actor, mode="read") as ctx:
            return judge_piece(ctx, piece, self._statements(ctx))

    def _statements(self, ctx: Context) -> LeadStatements:
        targets = {column.target.partition(".")[0] for column in self.source.columns}
        if "name" in targets:
            targets |= {"first_name", "last_name"}
        if targets & {"first_name", "last_name"}:
            targets.add("name")
        columns = [name for name in (*TEXT_COLUMNS, "tags", "metadata", "score") if name in targets]
        return LeadStatements.of(ctx.session, columns, self.existing)

    def _close(self, report: ImportReport) -> None:
        assert report.import_id is not None
        with self._work() as ctx:
            row = find(ctx.session, LeadImport, report.import_id, lock=True)
            row.status, row.finished_at = "completed", ctx.now
            counts = {name: (None, getattr(row, name)) for name in ("created", "updated", "unchanged", "rejected")}
            record(ctx, "import.completed", "lead_import", row.id, counts)

    def _work(self) -> AbstractContextManager[Context]:
        return self.runtime.work(self.tenant_id, self.actor)

    def _tell(self, piece: Piece) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(piece.row_count, piece.end_offset, self.source.file.size_bytes))


def _ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, the next one being read while the caller writes: reading waits for no database."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import-reader") as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece


def _take_over(report: ImportReport, started: LeadImport) -> None:
    report.resumed_at = report.rows = started.row_count
    for name in ("created", "updated", "unchanged", "duplicate", "rejected"):
        setattr(report, name, getattr(started, name))


def _count(report: ImportReport, piece: Piece, outcome: PieceOutcome) -> None:
    report.rows = piece.row_count
    report.created += outcome.created
    report.updated += outcome.updated
    report.unchanged += outcome.unchanged
    report.duplicate += piece.duplicate
    report.rejected += len(outcome.errors)
    report.suppressed += outcome.suppressed
    report.consents += outcome.consents
    report.consents_refused += outcome.consents_refused
    report.errors += outcome.errors[: SHOWN_ERRORS - len(report.errors)]


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
