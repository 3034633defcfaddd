"""The workers' half of imports: dry runs, files brought in and undone, a piece at a time.

Whoever holds an import has its token; the lease is renewed with every piece, so that another worker goes on
where one died. A worker takes turns with all that it holds, so that no tenant's million rows keep another's
hundred waiting.
"""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.audience import AT_WORK, ImportOptions, ImportStatus
from nexus_marketing.core.errors import Conflict, NexusError, NotFound
from nexus_marketing.db.models import LeadImport, LeadImportChange, LeadImportError, LeadImportPiece
from nexus_marketing.db.queries.imports import imports_held, note_progress, release
from nexus_marketing.db.queries.lead_work import LeadWork, lead_work
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.imports.holding import Hold, complete, new_token
from nexus_marketing.services.imports.intake import Intake
from nexus_marketing.services.imports.reports import ImportReport
from nexus_marketing.services.imports.undo import undo_piece
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Imports that one worker thread has open, and those of one tenant that all workers have.
HELD_AT_ONCE: Final = 4
PER_TENANT: Final = 3
_FORGOTTEN_AT_ONCE: Final = 20

_Key = tuple[int, int]
Steps = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class _Held:
    hold: Hold
    steps: Steps


@dataclass(slots=True)
class ImportWork:
    """The imports in the hands of one worker thread."""

    runtime: Runtime
    _held: dict[_Key, _Held] = field(default_factory=dict, init=False)

    def turn(self) -> int:
        """One piece of every import that is held, after taking on what waits; answers how many pieces."""
        self._take_on()
        return sum([self._advance(key) for key in list(self._held)])

    def close(self) -> None:
        """Give everything back, so that others go on at once."""
        for key in list(self._held):
            self._let_go(key, give_back=True)

    def _take_on(self) -> None:
        room = HELD_AT_ONCE - len(self._held)
        if room <= 0:
            return
        with open_session(self.runtime.engines.worker, tenant_id=None, mode="read") as session:
            waiting = lead_work(session, self.runtime.clock.now(), [LeadWork.IMPORT])
        for row in waiting:
            if room <= 0:
                break
            held = None if (row.tenant_id, row.id) in self._held else self._claim(row.tenant_id, row.id)
            if held is not None:
                self._held[row.tenant_id, row.id] = held
                room -= 1

    def _claim(self, tenant_id: int, import_id: int) -> _Held | None:
        with self.runtime.work(tenant_id, SYSTEM) as ctx:
            if imports_held(ctx.session, ctx.now) >= PER_TENANT:
                return None
            row = find(ctx.session, LeadImport, import_id, lock=True)
            if row.status not in AT_WORK or (row.leased_until is not None and row.leased_until >= ctx.now):
                return None
            hold = Hold(import_id, new_token())
            row.lease_token, row.leased_until = hold.token, ctx.now + ctx.runtime.settings.lease
            job = _Job(self.runtime, tenant_id, hold, row.blob_key, row.row_count, row.may_consent, Actor(row.actor))
            options, status = ImportOptions.read(row.options), row.status
        steps = {
            ImportStatus.CHECKING: lambda: job.check(options),
            ImportStatus.RUNNING: lambda: job.bring_in(options),
            ImportStatus.UNDOING: job.undo,
        }
        return _Held(hold, steps[ImportStatus(status)]())

    def _advance(self, key: _Key) -> int:
        held = self._held[key]
        try:
            next(held.steps)
        except StopIteration:
            del self._held[key]
        except Conflict:  # stopped by its owner, or taken over
            self._let_go(key)
        except DBAPIError as error:
            self._let_go(key)
            if not is_transient(error):
                self._fail(key, held.hold, error)
        except Exception as error:  # noqa: BLE001 - isolation boundary: one import must not end the worker
            self._let_go(key)
            self._fail(key, held.hold, error)
        return 1

    def _let_go(self, key: _Key, *, give_back: bool = False) -> None:
        held = self._held.pop(key)
        held.steps.close()
        if give_back:
            with self.runtime.work(key[0], SYSTEM) as ctx:
                release(ctx.session, held.hold.import_id, held.hold.token)

    def _fail(self, key: _Key, hold: Hold, error: Exception) -> None:
        """Say why an import cannot go on; what is written stays, and can be undone or gone on with."""
        told = error.message if isinstance(error, NexusError) else f"It broke ({type(error).__name__}): see the log."
        log.error("import_failed", import_id=hold.import_id, error=type(error).__name__, exc_info=error)
        with contextlib.suppress(NotFound), self.runtime.work(key[0], SYSTEM) as ctx:
            row = find(ctx.session, LeadImport, hold.import_id, lock=True)
            if row.lease_token != hold.token:
                return
            row.status, row.error, row.finished_at = ImportStatus.FAILED, told[:1_000], ctx.now
            row.lease_token, row.leased_until = None, None
            row.traces_until = ctx.now + timedelta(days=self.runtime.settings.import_undo_days)
            record(ctx, "import.failed", "lead_import", row.id, {"error": (None, type(error).__name__)})


@dataclass(frozen=True, slots=True)
class _Job:
    """One import: each kind of work yields after every piece, and ends when it is done."""

    runtime: Runtime
    tenant_id: int
    hold: Hold
    blob_key: str | None
    row_count: int
    may_consent: bool
    actor: Actor

    def check(self, options: ImportOptions) -> Steps:
        """Read every row, write none, keep what was found."""
        with self._intake(options) as intake:
            report = ImportReport.of(intake.source, self.hold.import_id, dry_run=True)
            for coming in intake.pieces():
                report.add(coming.piece, *intake.judge(coming))
                self._note(ImportStatus.CHECKING, coming.piece.end_offset)
                yield
        with self.runtime.work(self.tenant_id, self.actor) as ctx:
            row = find(ctx.session, LeadImport, self.hold.import_id, lock=True)
            self._still_mine(row, ImportStatus.CHECKING)
            row.status, row.report, row.byte_offset = ImportStatus.READY, report_document(report), 0
            row.lease_token, row.leased_until = None, None
            record(ctx, "import.checked", "lead_import", row.id, {"rows": (None, report.rows)})

    def bring_in(self, options: ImportOptions) -> Steps:
        """Write what is left of the file, and let the file go."""
        with self._intake(options) as intake:
            before = self.row_count
            for coming in intake.pieces(before):
                intake.write(self.hold, before, coming)
                before = coming.piece.row_count
                yield
            with intake.work() as ctx:
                complete(ctx, self.hold).upload_until = ctx.now
        forget_upload(self.runtime, self.tenant_id, self.hold.import_id)

    def undo(self) -> Steps:
        """Undo piece by piece until none is left."""
        while True:
            with self.runtime.work(self.tenant_id, self.actor) as ctx:
                row = find(ctx.session, LeadImport, self.hold.import_id, lock=True)
                self._still_mine(row, ImportStatus.UNDOING)
                is_done = not undo_piece(ctx, row)
                row.leased_until = ctx.now + ctx.runtime.settings.lease
                if is_done:
                    row.status, row.finished_at, row.traces_until = ImportStatus.UNDONE, ctx.now, ctx.now
                    row.lease_token, row.leased_until, row.upload_until = None, None, ctx.now
                    counts = {name: (None, getattr(row, name)) for name in ("restored", "removed", "kept")}
                    record(ctx, "import.undone", "lead_import", row.id, counts)
            if is_done:
                return
            yield

    @contextlib.contextmanager
    def _intake(self, options: ImportOptions) -> Iterator[Intake]:
        with self.runtime.blobs.local(self.blob_key or "") as path:
            if path is None:
                raise NotFound("The uploaded file is not where it was put: upload it again.", id=self.hold.import_id)
            yield Intake.open(self.runtime, self.tenant_id, self.actor, path, options, may_consent=self.may_consent)

    def _note(self, status: ImportStatus, byte_offset: int) -> None:
        with self.runtime.work(self.tenant_id, self.actor) as ctx:
            values: dict[str, Any] = {
                "byte_offset": byte_offset,
                "leased_until": ctx.now + ctx.runtime.settings.lease,
                "status": str(status),
                "token": self.hold.token,
            }
            if not note_progress(ctx.session, self.hold.import_id, values):
                raise Conflict("Another process goes on with this import, or it was stopped.", id=self.hold.import_id)

    def _still_mine(self, row: LeadImport, status: ImportStatus) -> None:
        if row.status != status or row.lease_token != self.hold.token:
            raise Conflict("Another process goes on with this import, or it was stopped.", id=row.id)


def report_document(report: ImportReport) -> dict[str, Any]:
    """A dry run as it is kept: counts, the codes of its errors, and samples; no value of any row."""
    document = asdict(report)
    errors = [{"row": each.row_no, "column": each.column, "code": each.code} for each in report.errors]
    samples = [
        {
            "row": each.row_no,
            "outcome": each.outcome,
            "lead_id": None if each.lead_id is None else str(each.lead_id),
            "fields": list(each.fields),
        }
        for each in report.samples
    ]
    told = ("rows", "created", "updated", "unchanged", "duplicate", "rejected", "suppressed")
    counts = {name: document[name] for name in (*told, "consents", "consents_refused")}
    return {**counts, "errors": errors, "samples": samples}


def forget_imports(runtime: Runtime) -> int:
    """Let files go that nobody started, and what imports changed once it is too late to undo them."""
    now = runtime.clock.now()
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        due = lead_work(session, now, [LeadWork.UPLOAD, LeadWork.TRACES])
    for row in due[:_FORGOTTEN_AT_ONCE]:
        forget = forget_upload if row.kind == LeadWork.UPLOAD else _forget_traces
        forget(runtime, row.tenant_id, row.id)
    return len(due)


def forget_upload(runtime: Runtime, tenant_id: int, import_id: int) -> None:
    """Remove the file of an import. Its bytes go first: a process that dies in between leaves a note of nothing."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        row = find(ctx.session, LeadImport, import_id, lock=True)
        if row.status in AT_WORK:
            return
        if row.status == ImportStatus.READY:
            row.status, row.finished_at = ImportStatus.CANCELLED, ctx.now
        if row.blob_key is not None:
            runtime.blobs.delete(row.blob_key)
        row.blob_key, row.upload_until = None, None


def _forget_traces(runtime: Runtime, tenant_id: int, import_id: int) -> None:
    with runtime.work(tenant_id, SYSTEM) as ctx:
        row = find(ctx.session, LeadImport, import_id, lock=True)
        if row.status in AT_WORK:
            return
        for model in (LeadImportChange, LeadImportPiece, LeadImportError):
            ctx.session.execute(delete(model).where(model.import_id == import_id))
        row.traces_until = None
