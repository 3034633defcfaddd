"""SQL of frequency caps: what leads got of late, or are just getting, read from the ledger itself (ADR 0014).

A use is a ledger row that left (settled, and neither skipped nor failed) or that a worker holds under a lease. Nothing is
written down apart from the ledger, so that nothing can disagree with it: a message that fails stops being a use at once, one
whose fate is unknown stays one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.frequency import Rank
from nexus_marketing.db.queries.deliveries import GATHERED
from nexus_marketing.db.queries.locks import wait_alone
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import read_moment, to_text


class Targeting(NamedTuple):
    """One message of another send to a lead: ``left_at`` is when it left; it is leaving now, or due and waiting."""

    rank: Rank
    channel: str
    left_at: datetime | None
    is_leaving: bool


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
_COUNTS = "id <> :send_id AND message_class = 'marketing' AND counts_toward_caps"
_TARGETINGS = """
SELECT d.lead_id, d.send_id, s.priority, s.channel, s.status, d.settled_at, d.state = 'planned' AS is_planned,
  d.state = 'planned' AND (d.due_at IS NULL OR d.due_at = '{gathered}') AND EXISTS (
    SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = :tenant_id AND c.send_id = d.send_id
      AND c.closed_at IS NULL AND c.lease_until IS NOT NULL AND d.seq BETWEEN c.seq_lo AND c.seq_hi) AS is_leaving
FROM marketing_deliveries d CROSS JOIN marketing_sends s
WHERE d.tenant_id = :tenant_id AND d.lead_id IN ({ids}) AND d.send_id >= :first AND d.send_id <> :send_id
  AND (d.state = 'planned' AND (d.due_at IS NULL OR d.due_at = '{gathered}' OR d.due_at <= nexus_now())
    OR d.state NOT IN ('planned', 'skipped', 'failed') AND d.settled_at >= {oldest})
  AND s.tenant_id = d.tenant_id AND s.id = d.send_id AND s.message_class = 'marketing' AND s.counts_toward_caps
"""


def other_targetings(
    session: Session, send_id: int, lead_ids: Sequence[int], oldest: datetime
) -> dict[int, list[Targeting]]:
    """What other sends of the tenant have to do with each of these leads, since a moment; the caller holds the lock."""
    moment = "CAST(:oldest AS timestamptz)" if session.get_bind().dialect.name == "postgresql" else ":oldest"
    values = {"send_id": send_id, "oldest": to_text(oldest)}
    first = run(session, _FIRST_SEND.format(oldest=moment, counts=_COUNTS), values, writes=False).scalar_one()
    if first is None:
        return {}
    statement = _TARGETINGS.format(ids=ids_of(session), oldest=moment, gathered=GATHERED)
    rows = run(session, statement, {**values, "first": first, "ids": as_ids(lead_ids)}, writes=False)
    found: dict[int, list[Targeting]] = {}
    for row in rows:
        if not row.is_planned or row.is_leaving or row.status == "running":
            left_at = None if row.is_planned else read_moment(row.settled_at)
            each = Targeting(Rank(row.priority, row.send_id), row.channel, left_at, bool(row.is_leaving))
            found.setdefault(row.lead_id, []).append(each)
    return found
