"""SQL of frequency caps: what leads got of late, or are just getting, read from the ledger itself (ADR 0014).

A use is a ledger row that left (settled, and neither skipped nor failed) or that a worker holds under a lease. Nothing is
written down apart from the ledger, so that nothing can disagree with it: a message that fails stops being a use at once, one
whose fate is unknown stays one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.frequency import Rank
from nexus_marketing.db.queries.deliveries import GATHERED
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.rowsets import as_ids, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import read_moment, to_text


class Targeting(NamedTuple):
    """One message to a lead: ``left_at`` is when it left; it is leaving now, or due and waiting.

    ``launch_id`` and ``occurrence`` say which targeting it is part of: its channels are the same one, each visit of a journey's
    run to a message is another.
    """

    rank: Rank
    launch_id: int
    occurrence: int
    seq: int
    channel: str
    left_at: datetime | None
    is_leaving: bool

    @property
    def key(self) -> tuple[int, int]:
        """What makes it the same targeting."""
        return self.launch_id, self.occurrence


def lock_caps(session: Session) -> None:
    """Until this transaction ends no other decides by the tenant's caps: two workers never share the last slot."""
    wait_alone(session, "caps")


# Sends that are over for longer than any window reaches cannot hold a use: the ledger index is read from this one on.
_FIRST_SEND = """
SELECT min(id) FROM (
  SELECT id FROM marketing_sends WHERE tenant_id = :tenant_id AND {counts}
    AND status IN ('scheduled', 'planning', 'running', 'paused')
  UNION ALL SELECT id FROM marketing_sends WHERE tenant_id = :tenant_id AND {counts} AND finished_at >= {oldest}
  UNION ALL SELECT id FROM marketing_sends WHERE tenant_id = :tenant_id AND {counts}
    AND status = 'cancelled' AND finished_at IS NULL
) AS found
"""
# Of a journey's message a lead may have been written to before: by another run, or by an earlier round of the same.
_COUNTS = """(coalesce(launch_id, id) <> :launch_id OR journey_id IS NOT NULL)
  AND message_class = 'marketing' AND counts_toward_caps"""
# From the leads to what they got: a planner that begins with the sends reads the whole ledger of each (400 ms a claim with
# four sends of 300,000; 9 ms this way). PostgreSQL keeps to the order behind OFFSET, SQLite behind CROSS JOIN. The bound on
# the send is written for the index on leads alone: of tables without statistics the planner believes every index equal.
_TARGETINGS = """
SELECT d.lead_id, d.send_id, coalesce(s.launch_id, s.id), d.occurrence, d.seq, s.priority, s.channel, s.status, d.settled_at, d.state = 'planned' AS is_planned,
  (d.due_at IS NULL OR d.due_at = '{gathered}') AS is_in_a_chunk
FROM ({ids}) AS i CROSS JOIN {ledger} CROSS JOIN marketing_sends s
WHERE d.tenant_id = :tenant_id AND d.lead_id = i.id AND d.send_id >= :first
  AND (d.state = 'planned' AND (d.due_at IS NULL OR d.due_at = '{gathered}' OR d.due_at <= nexus_now())
    OR d.state NOT IN ('planned', 'skipped', 'failed') AND d.settled_at >= {oldest})
  AND s.tenant_id = :tenant_id AND s.id = d.send_id
  AND (coalesce(s.launch_id, s.id) <> :launch_id OR s.journey_id IS NOT NULL)
  AND s.message_class = 'marketing' AND s.counts_toward_caps
"""
_LEDGER_PG = """LATERAL (
  SELECT r.* FROM marketing_deliveries r WHERE r.tenant_id = :tenant_id AND r.lead_id = i.id
    AND (r.tenant_id, r.lead_id, r.send_id) >= (:tenant_id, i.id, :first) OFFSET 0
) AS d"""
_LEASED = """
SELECT send_id, seq_lo, seq_hi FROM marketing_delivery_chunks
WHERE tenant_id = :tenant_id AND closed_at IS NULL AND lease_until IS NOT NULL AND send_id >= :first
"""


def other_targetings(
    session: Session, launch_id: int, lead_ids: Sequence[int], oldest: datetime
) -> dict[int, list[Targeting]]:
    """What the tenant's sends have to do with each of these leads, since a moment; the caller holds the lock.

    Of a launch that writes to a lead once the others are listed; of a journey's messages all, those asked about among them.
    """
    is_pg = is_postgresql(session)
    moment = "CAST(:oldest AS timestamptz)" if is_pg else ":oldest"
    values = {"launch_id": launch_id, "oldest": to_text(oldest)}
    first = run(session, _FIRST_SEND.format(oldest=moment, counts=_COUNTS), values, writes=False).scalar_one()
    if first is None:
        return {}
    leased: dict[int, list[range]] = {}
    for chunk in run(session, _LEASED, {"first": first}, writes=False):
        leased.setdefault(chunk.send_id, []).append(range(chunk.seq_lo, chunk.seq_hi + 1))
    ledger = _LEDGER_PG if is_pg else "marketing_deliveries d"
    statement = _TARGETINGS.format(ids=ids_of(session), ledger=ledger, oldest=moment, gathered=GATHERED)
    rows: Any = run(session, statement, {**values, "first": first, "ids": as_ids(lead_ids)}, writes=False).all()
    found: dict[int, list[Targeting]] = {}
    ranks: dict[int, Rank] = {}
    # Tuples: names cost more than all the rest of it.
    for (
        lead_id,
        send,
        launch,
        occurrence,
        seq,
        priority,
        channel,
        status,
        settled_at,
        is_planned,
        is_in_a_chunk,
    ) in rows:
        is_leaving = bool(is_planned and is_in_a_chunk and any(seq in part for part in leased.get(send, ())))
        if is_planned and not is_leaving and status != "running":
            continue
        rank = ranks.get(send) or ranks.setdefault(send, Rank(priority, send))
        left_at = None if is_planned else read_moment(settled_at)
        one = Targeting(rank, launch, occurrence, seq, channel, left_at, is_leaving)
        found.setdefault(lead_id, []).append(one)
    return found


_OCCURRENCES = (
    "SELECT seq, occurrence FROM marketing_deliveries"
    " WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq IN ({ids})"
)


def occurrences_of(session: Session, send_id: int, seqs: Sequence[int]) -> dict[int, int]:
    """Of recipients of a journey's message, to which visit of which run each belongs."""
    values = {"send_id": send_id, "ids": as_ids(seqs)}
    rows = run(session, _OCCURRENCES.format(ids=ids_of(session)), values, writes=False)
    return {row.seq: row.occurrence for row in rows}
