"""The end of sends: completed when every row is final, cancelled rows settled, retries gathered."""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.db.isolation import isolated
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.completion import (
    cancel_chunk,
    cancel_due,
    cancelled_sends,
    complete_sends,
    finish_cancelled,
    lock_running,
    reopen_orphans,
    sends_without_work,
)
from nexus_marketing.db.queries.retries import open_retry_chunk, sends_with_due_rows
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Of a turn: a cancelled send of a million recipients must not keep the others' messages waiting.
_TURN_SECONDS: Final = 1.0


def complete_finished(runtime: Runtime) -> int:
    """Complete running sends that have nothing left, those of a tenant in one transaction; answers how many.

    A planned row that no chunk and no retry covers would be lost: it is put back into the retry
    lane, counted and logged as an error, and the send stays open.
    """
    ended: dict[int, list[int]] = {}
    for row in _listed(runtime, sends_without_work):
        ended.setdefault(row.tenant_id, []).append(row.id)
    return sum(
        _alone(runtime, tenant_id, partial(_complete, runtime, send_ids=send_ids))
        for tenant_id, send_ids in ended.items()
    )


def open_retries(runtime: Runtime) -> int:
    """Gather recipients whose retry is due into chunks; answers how many recipients."""
    size = runtime.settings.chunk_size
    return sum(
        _alone(runtime, row.tenant_id, partial(_gather, send_id=row.send_id, size=size))
        for row in _listed(runtime, sends_with_due_rows)
    )


def settle_cancelled(runtime: Runtime) -> int:
    """Settle what cancelled sends leave, one chunk per transaction, for about a second; answers how many chunks."""
    chunks, until = 0, monotonic() + _TURN_SECONDS
    for row in _listed(runtime, cancelled_sends):
        while _alone(runtime, row.tenant_id, partial(_cancel, send_id=row.id)):
            chunks += 1
            if monotonic() > until:
                return chunks
        _alone(runtime, row.tenant_id, partial(_end_cancelled, send_id=row.id))
    return chunks


def _complete(runtime: Runtime, session: Session, *, send_ids: Sequence[int]) -> int:
    running = lock_running(session, send_ids)
    orphans = reopen_orphans(session, running) if running else {}
    for send_id, rows in orphans.items():
        runtime.telemetry.count("delivery.invariant_broken", rows, invariant="open_row_without_wakeup")
        log.error("open_rows_without_wakeup", send_id=send_id, rows=rows)
    whole = [send_id for send_id in running if send_id not in orphans]
    return complete_sends(session, whole) if whole else 0


def _gather(session: Session, *, send_id: int, size: int) -> int:
    if find(session, Send, send_id, lock=True).status != SendStatus.RUNNING:
        return 0  # paused or cancelled since it was found
    return open_retry_chunk(session, send_id, size)


def _cancel(session: Session, *, send_id: int) -> int:
    return int(cancel_chunk(session, send_id))


def _end_cancelled(session: Session, *, send_id: int) -> int:
    cancel_due(session, send_id)
    return int(finish_cancelled(session, send_id))


def _alone(runtime: Runtime, tenant_id: int, step: Callable[[Session], int]) -> int:
    """In a transaction of its own; where it fails the others have their turn."""
    return isolated(partial(_in_tenant, runtime, tenant_id, step), tenant_id=tenant_id)


def _listed(runtime: Runtime, query: Callable[[Session], list[Row[Any]]]) -> list[Row[Any]]:
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        return query(session)


def _in_tenant(runtime: Runtime, tenant_id: int, work: Callable[[Session], int]) -> int:
    with open_session(runtime.engines.worker, tenant_id=tenant_id, mode="durable") as session, session.begin():
        return work(session)
