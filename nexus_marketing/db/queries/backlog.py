"""What waits and what stands still, over all tenants: looked at by ``doctor``, not by workers."""

from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run_for_all

_AGE_PG = "EXTRACT(EPOCH FROM nexus_now() - min({moment}))"
_AGE_SQLITE = "(julianday(nexus_now()) - julianday(min({moment}))) * 86400"
_WAITING = """
SELECT count(DISTINCT CASE WHEN c.waits_for IS NULL THEN s.id END) AS sends,
  count(CASE WHEN c.waits_for IS NULL THEN 1 END) AS chunks, count(c.waits_for) AS for_domains, {age} AS seconds
FROM marketing_sends s
JOIN marketing_delivery_chunks c ON c.tenant_id = s.tenant_id AND c.send_id = s.id
WHERE s.status = 'running' AND c.closed_at IS NULL AND c.lease_until IS NULL
"""
_OVERDUE = """
SELECT count(*) AS rows, {age} AS seconds FROM marketing_sends s
JOIN marketing_deliveries d ON d.tenant_id = s.tenant_id AND d.send_id = s.id
WHERE s.status = 'running' AND d.state = 'planned' AND d.due_at <= nexus_now()
"""
_ABANDONED = """
SELECT count(*) FROM marketing_delivery_chunks
WHERE closed_at IS NULL AND lease_until IS NOT NULL AND lease_until < nexus_after(-60)
"""
# One may have been killed by anybody; the second over the same message is no chance.
_CRASHED = """
SELECT s.tenant_id, s.campaign_id, max(c.crashes) AS crashes FROM marketing_delivery_chunks c
JOIN marketing_sends s ON s.tenant_id = c.tenant_id AND s.id = c.send_id
WHERE c.crashes > 1 AND c.closed_at IS NULL OR c.crashes > 2 AND c.closed_at > nexus_after(-7 * 86400)
GROUP BY s.tenant_id, s.campaign_id ORDER BY s.campaign_id DESC LIMIT 20
"""
_STOPPED = """
SELECT s.tenant_id, s.id, s.campaign_id, s.channel, s.status, s.status_reason FROM marketing_sends s
WHERE s.status IN ('paused', 'missed', 'failed') AND s.status_reason IS NOT NULL
ORDER BY s.id DESC LIMIT 20
"""
# Those that are open alone: what was missed or failed is never forgotten, and a monitor asks often.
_REASONS = """
SELECT CASE WHEN status_reason LIKE 'cannot be planned%' THEN 'cannot_be_planned'
    WHEN status_reason LIKE 'cannot be sent%' THEN 'cannot_be_sent'
    WHEN {colon} > 0 THEN substr(status_reason, 1, {colon} - 1) ELSE 'other' END AS reason, count(*) AS sends
FROM marketing_sends WHERE status = 'paused' AND status_reason IS NOT NULL
GROUP BY 1
"""


def waiting_chunks(session: Session) -> Row[Any]:
    """How many running sends have how many chunks that nobody holds, and the age in seconds of the oldest send.

    Those that wait for the rates of domains are as they should be: they are counted apart (``for_domains``).
    """
    moment = "CASE WHEN c.waits_for IS NULL THEN s.created_at END"
    return run_for_all(session, _aged(session, _WAITING, moment), writes=False).one()


def overdue_retries(session: Session) -> Row[Any]:
    """How many recipients are due again and for how many seconds the first of them has been."""
    return run_for_all(session, _aged(session, _OVERDUE, "d.due_at"), writes=False).one()


def abandoned_chunks(session: Session) -> int:
    """Chunks whose lease was over a minute ago, which workers should have taken up."""
    return int(run_for_all(session, _ABANDONED, writes=False).scalar_one())


def crashed_chunks(session: Session) -> list[Row[Any]]:
    """Campaigns over whose messages several workers ended, one after the other, within a week."""
    return list(run_for_all(session, _CRASHED, writes=False))


def stopped_sends(session: Session) -> list[Row[Any]]:
    """The last sends that stopped by themselves, with the reason."""
    return list(run_for_all(session, _STOPPED, writes=False))


def stopped_sends_by_reason(session: Session) -> list[tuple[str, int]]:
    """How many sends stand still because of themselves, by the first word of why."""
    form = "strpos(status_reason, ':')" if is_postgresql(session) else "instr(status_reason, ':')"
    return [(row.reason, row.sends) for row in run_for_all(session, _REASONS.format(colon=form), writes=False)]


def _aged(session: Session, statement: str, moment: str) -> str:
    age = _AGE_PG if is_postgresql(session) else _AGE_SQLITE
    return statement.format(age=age.format(moment=moment))
