"""SQL of one window of a hand-over: what is known settled, what may leave written down (BEHAVIOUR.md 5.2).

On PostgreSQL all of it is one statement: a window holds a hundred messages at full speed and a dozen on a busy
machine, and then round trips cost more than the messages.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.db.queries.deliveries import ChunkClaim, Settlement, settle, settling
from nexus_marketing.db.queries.privacy import suppressed_hashes, suppressing
from nexus_marketing.db.tenancy import open_session, run, run_alone

#: Lowest and highest ``seq`` that may be on the wire; twice ``None`` where nothing is.
Range = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Window:
    """What is committed before the next messages leave.

    ``intended`` may be on the wire from the commit on, provided the send is running; otherwise only ``on_wire``,
    what left before. ``hashes`` are the addresses to look up among the suppressions.
    """

    intended: Range
    on_wire: Range
    known: Sequence[Settlement]
    hashes: Sequence[bytes]
    channel: str
    message_class: MessageClass
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """Whether the intended messages may leave, and which addresses among them may not."""

    running: bool
    suppressed: Collection[bytes]


_INTENT = """
UPDATE marketing_delivery_chunks
SET intent_lo = CASE WHEN {running} THEN CAST(:lo AS bigint) ELSE CAST(:wire_lo AS bigint) END,
    intent_hi = CASE WHEN {running} THEN CAST(:hi AS bigint) ELSE CAST(:wire_hi AS bigint) END,
    lease_until = nexus_after(:lease_seconds)
WHERE tenant_id = :tenant_id AND send_id = :send_id AND chunk_no = :chunk_no AND fence = :fence AND closed_at IS NULL
RETURNING {running} AS running
""".format(
    running="(SELECT s.status = 'running' FROM marketing_sends s WHERE s.tenant_id = :tenant_id AND s.id = :send_id)"
)
_WINDOW_PG = """
WITH held AS ({intent}), settled AS ({settle} AND EXISTS (SELECT 1 FROM held))
SELECT running, ARRAY({suppressed}) AS suppressed FROM held
"""
_SETTLE_NOTHING = "SELECT WHERE false"


def commit_window(engine: Engine, claim: ChunkClaim, window: Window) -> WindowAnswer | None:
    """Settle, write down the intent, renew the lease, look for new suppressions: one durable transaction.

    Returns:
        ``None`` when the lease is lost: nothing was changed, nothing may be sent or settled.
    """
    if engine.dialect.name == "postgresql":
        return _in_one_statement(engine, claim, window)
    with open_session(engine, tenant_id=claim.tenant_id, mode="durable") as session, session.begin():
        return _step_by_step(session, claim, window)


def _in_one_statement(engine: Engine, claim: ChunkClaim, window: Window) -> WindowAnswer | None:
    settle_sql, settle_values = settling(window.known) if window.known else (_SETTLE_NOTHING, {})
    suppress_sql, suppress_values = suppressing(window.hashes, window.channel, window.message_class)
    statement = _WINDOW_PG.format(intent=_INTENT, settle=settle_sql, suppressed=suppress_sql)
    values = {**_intent_values(claim, window), **settle_values, **suppress_values}
    rows = run_alone(engine, statement, values, tenant_id=claim.tenant_id, mode="durable")
    return WindowAnswer(rows[0].running, frozenset(map(bytes, rows[0].suppressed))) if rows else None


def _step_by_step(session: Session, claim: ChunkClaim, window: Window) -> WindowAnswer | None:
    held = run(session, _INTENT, _intent_values(claim, window), writes=True).first()
    if held is None:
        return None
    settle(session, claim.send_id, window.known)
    suppressed = suppressed_hashes(session, window.hashes, window.channel, window.message_class)
    return WindowAnswer(bool(held.running), suppressed)


def _intent_values(claim: ChunkClaim, window: Window) -> dict[str, object]:
    (lo, hi), (wire_lo, wire_hi) = window.intended, window.on_wire
    wires = {"wire_lo": wire_lo, "wire_hi": wire_hi}
    return {**claim.key, "lo": lo, "hi": hi, **wires, "lease_seconds": window.lease_seconds}
