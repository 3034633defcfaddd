"""SQL of planning: one set-based statement per piece of the audience."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.db.models import Send
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all, tenant_of


@dataclass(frozen=True, slots=True)
class PlannedPiece:
    """What one statement planned: how many rows, and the last lead it took."""

    rows: int
    last_lead_id: int
    finished: bool = False


@dataclass(frozen=True, slots=True)
class PlanningSend:
    """What planning needs to know of a send, read under its row lock."""

    id: int
    status: str
    segment_id: int | None
    channel: str
    launch_id: int | None
    plan_cursor: int
    planned: int
    started_at: datetime | None
    send_not_after: datetime


def sends_to_plan(session: Session) -> list[Row[Any]]:
    """Sends of all tenants that wait for their audience, oldest first."""
    return list(
        run_for_all(
            session,
            "SELECT tenant_id, id, segment_id, plan_cursor, launch_id FROM marketing_sends"
            " WHERE status = 'planning' ORDER BY id LIMIT 100",
            writes=False,
        )
    )


def lock_planning_send(session: Session, send_id: int) -> PlanningSend | None:
    """The send under its row lock; ``None`` when another planner has it."""
    send = session.get(Send, (tenant_of(session), send_id), with_for_update={"skip_locked": True})
    if send is None:
        return None
    return PlanningSend(
        send.id,
        send.status,
        send.segment_id,
        send.channel,
        send.launch_id,
        send.plan_cursor,
        send.planned,
        send.started_at,
        send.send_not_after,
    )


# Members come in lead order, so that row_number() over the piece continues the dense numbering;
# the unique recipient index makes a repeated piece impossible rather than merely unlikely.
_PIECE = """
INSERT INTO marketing_deliveries (tenant_id, send_id, seq, lead_id, channel, state, reason, settled_at)
SELECT :tenant_id, :send_id, :base + row_number() OVER (ORDER BY m.lead_id), m.lead_id, :channel,
       CASE WHEN {excluded} IS NULL THEN 'planned' ELSE 'skipped' END, {excluded},
       CASE WHEN {excluded} IS NOT NULL THEN nexus_now() END
FROM {members} m {lead}
WHERE m.tenant_id = :tenant_id AND m.{of} = :source AND m.lead_id > :cursor AND m.lead_id <= :last
ORDER BY m.lead_id
"""
# Each member's lead is looked up. A join leaves the planner free: with a LIMIT every piece of a million leads read all of them,
# and of tables that were filled a moment ago it believes that they are empty and compares every member with every lead (20 s for
# 20,000). OFFSET 0 keeps PostgreSQL to the lookup.
_LEAD_PG = """CROSS JOIN LATERAL (
  SELECT e.email, e.phone, e.gone_at FROM marketing_leads e WHERE e.tenant_id = :tenant_id AND e.id = m.lead_id OFFSET 0) AS l"""
_LEAD_SQLITE = "CROSS JOIN marketing_leads l ON l.tenant_id = :tenant_id AND l.id = m.lead_id"
_LAST = """
SELECT max(lead_id) FROM (
    SELECT lead_id FROM {members}
    WHERE tenant_id = :tenant_id AND {of} = :source AND lead_id > :cursor
    ORDER BY lead_id LIMIT :size) piece
"""
# Whoever was erased or merged has no address any more; where none is needed it has to be asked.
_GONE = "CASE WHEN l.gone_at IS NOT NULL THEN 'lead_erased' END"
# Nobody's mailbox is somebody else's, but telephones are shared: whoever has the lower id gets the message.
EXCLUDED = {
    AddressKind.EMAIL: "CASE WHEN l.email IS NULL THEN 'no_address' END",
    AddressKind.PHONE: """CASE WHEN l.phone IS NULL THEN 'no_address' WHEN EXISTS (
         SELECT 1 FROM marketing_leads o CROSS JOIN {members} n
         WHERE o.tenant_id = :tenant_id AND o.phone = l.phone AND o.id < m.lead_id
           AND n.tenant_id = :tenant_id AND n.{of} = :source AND n.lead_id = o.id) THEN 'duplicate_address' END""",
    AddressKind.URL: _GONE,
    AddressKind.NONE: _GONE,
    # All of them are one: the first who is there stands for them. It is asked for once, not for each.
    AddressKind.AUDIENCE: """CASE WHEN l.gone_at IS NOT NULL THEN 'lead_erased' WHEN m.lead_id > (
         SELECT n.lead_id FROM {members} n CROSS JOIN marketing_leads o
         WHERE n.tenant_id = :tenant_id AND n.{of} = :source
           AND o.tenant_id = :tenant_id AND o.id = n.lead_id AND o.gone_at IS NULL
         ORDER BY n.lead_id LIMIT 1) THEN 'duplicate_address' END""",
}
# Members come and go between two pieces: what an earlier one planned counts too.
_PLANNED = """CASE WHEN EXISTS (
  SELECT 1 FROM marketing_deliveries p WHERE p.tenant_id = :tenant_id AND p.send_id = :send_id AND p.state <> 'skipped')
  THEN 'duplicate_address' ELSE {excluded} END"""


def insert_piece(session: Session, send: PlanningSend, kind: AddressKind, size: int) -> PlannedPiece:
    """Plan the next ``size`` of the audience; those who cannot be reached by an address of this kind are settled at once.

    The audience are the members of the segment; for a further channel of a launch, the recipients of its first one.
    """
    if send.launch_id is None:
        source = {"members": "marketing_segment_members", "of": "segment_id"}
    else:
        source = {"members": "marketing_deliveries", "of": "send_id"}
    members = {"source": send.launch_id or send.segment_id, "cursor": send.plan_cursor}
    last = run(session, _LAST.format(**source), {**members, "size": size}, writes=False).scalar()
    if last is None:
        return PlannedPiece(0, send.plan_cursor, finished=True)
    piece = {"send_id": send.id, "base": send.planned, "channel": send.channel, "last": last}
    lead = _LEAD_PG if is_postgresql(session) else _LEAD_SQLITE
    excluded = EXCLUDED[kind].format(**source)
    if kind is AddressKind.AUDIENCE:
        excluded = _PLANNED.format(excluded=excluded)
    statement = _PIECE.format(excluded=excluded, lead=lead, **source)
    inserted = run(session, statement, {**members, **piece}, writes=True)
    return PlannedPiece(inserted.rowcount, last)  # type: ignore[attr-defined]


def insert_chunks(session: Session, send: PlanningSend, rows: int, chunk_size: int) -> None:
    """One chunk row per ``chunk_size`` recipients of the piece just planned."""
    first, last = send.planned + 1, send.planned + rows
    counted = "SELECT coalesce(max(chunk_no), 0) FROM marketing_delivery_chunks"
    where = " WHERE tenant_id = :tenant_id AND send_id = :send_id"
    before = int(run(session, counted + where, {"send_id": send.id}, writes=False).scalar_one())
    chunks = [
        {"send_id": send.id, "chunk_no": number, "seq_lo": low, "seq_hi": min(low + chunk_size - 1, last)}
        for number, low in enumerate(range(first, last + 1, chunk_size), start=before + 1)
    ]
    if chunks:
        run(
            session,
            "INSERT INTO marketing_delivery_chunks (tenant_id, send_id, chunk_no, seq_lo, seq_hi)"
            " VALUES (:tenant_id, :send_id, :chunk_no, :seq_lo, :seq_hi)",
            chunks,
            writes=True,
        )


def move_cursor(session: Session, send_id: int, piece: PlannedPiece) -> None:
    """Remember how far planning came."""
    run(
        session,
        "UPDATE marketing_sends SET plan_cursor = :cursor, planned = planned + :rows,"
        " started_at = coalesce(started_at, nexus_now()) WHERE tenant_id = :tenant_id AND id = :send_id",
        {"send_id": send_id, "cursor": piece.last_lead_id, "rows": piece.rows},
        writes=True,
    )


def set_send_status(session: Session, send_id: int, status: str, reason: str | None) -> None:
    """Move a send; the caller holds its row lock or checks what it was."""
    run(
        session,
        "UPDATE marketing_sends SET status = :status, status_reason = :reason,"
        " planned_at = CASE WHEN :running THEN coalesce(planned_at, nexus_now()) ELSE planned_at END,"
        " finished_at = CASE WHEN :final THEN nexus_now() ELSE finished_at END"
        " WHERE tenant_id = :tenant_id AND id = :send_id",
        {
            "send_id": send_id,
            "status": status,
            "reason": reason,
            "running": status == "running",
            "final": status in ("completed", "cancelled", "missed", "failed"),
        },
        writes=True,
    )
