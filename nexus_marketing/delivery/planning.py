"""Planning freezes the audience: every member becomes a ledger row, in resumable pieces.

A piece is one statement and one transaction: it takes the next members by lead id, numbers them
densely and moves the send's cursor, all under the send's row lock. A crash between pieces loses
nothing, a second planner waits and then finds the cursor moved.
"""

from dataclasses import dataclass
from itertools import count

from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.planning import (
    PlannedPiece,
    PlanningSend,
    insert_chunks,
    insert_piece,
    lock_planning_send,
    move_cursor,
    set_send_status,
)
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Runtime

#: Members per transaction. SQLite's single writer may be held for 2,000 rows at most (DATABASE.md).
PIECE_ROWS = {"postgresql": 50_000, "sqlite": 2_000}


@dataclass(frozen=True, slots=True)
class SendRef:
    """Which send."""

    tenant_id: int
    send_id: int


def plan_send(runtime: Runtime, ref: SendRef, *, pieces: int | None = None) -> int:
    """Plan what is left of a send's audience, or so many pieces of it; the last one sets it running.

    Returns:
        How many recipients were planned by this call, excluded ones included.
    """
    total = 0
    for _ in count() if pieces is None else range(pieces):
        piece = _plan_piece(runtime, ref)
        if piece is None:
            return total
        total += piece.rows
        runtime.telemetry.point("delivery.plan.piece")
        if piece.finished:
            return total
    return total


def _plan_piece(runtime: Runtime, ref: SendRef) -> PlannedPiece | None:
    engine = runtime.engines.worker
    with open_session(engine, tenant_id=ref.tenant_id) as session, session.begin():
        send = lock_planning_send(session, ref.send_id)
        if send is None or send.status != SendStatus.PLANNING:
            return None
        if send.started_at is None and runtime.clock.now() > send.send_not_after:
            set_send_status(session, ref.send_id, SendStatus.MISSED, "planned_too_late")
            return None
        if send.launch_id is not None and not _follows(session, send):
            return None
        piece = insert_piece(session, send, _address_kind(runtime, send.channel), _piece_rows(runtime))
        insert_chunks(session, send, piece.rows, runtime.settings.chunk_size)
        move_cursor(session, ref.send_id, piece)
        if piece.finished:
            set_send_status(session, ref.send_id, SendStatus.RUNNING, None)
        return piece


def _follows(session: Session, send: PlanningSend) -> bool:
    """Whether the audience of the launch's first channel is frozen; the others get the same.

    Where it cannot be frozen the others stop with it, and go on with it when somebody resumes the campaign.
    """
    first = find(session, Send, send.launch_id or send.id)
    if first.planned_at is not None:
        return True
    if first.status != SendStatus.PLANNING:
        set_send_status(session, send.id, SendStatus(first.status), first.status_reason)
    return False


def _address_kind(runtime: Runtime, channel: str) -> AddressKind:
    """What reaches people there; a channel that is missing is found out when it is to send."""
    found = runtime.channels.get(channel)
    return AddressKind.NONE if found is None else found.capabilities.address_kind


def _piece_rows(runtime: Runtime) -> int:
    """A whole number of chunks, so that every chunk but the last is full."""
    chunk = runtime.settings.chunk_size
    return max(1, PIECE_ROWS[runtime.engines.dialect] // chunk) * chunk
