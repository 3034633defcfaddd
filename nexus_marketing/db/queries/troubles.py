"""What went wrong and waits for a person, over all tenants: looked at by ``doctor`` and monitors, not by workers."""

from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run_for_all

_WEEK = 7 * 86_400
# Each of them by an index that holds such rows alone: there may be millions of the others.
_ACTIONS = f"""
SELECT t.slug, a.name, a.state, min(a.reason) AS reason, count(*) AS n, max(a.id) AS last_id
FROM marketing_actions a JOIN marketing_tenants t ON t.id = a.tenant_id
WHERE a.state IN ('failed', 'paused') AND (a.settled_at IS NULL OR a.settled_at > nexus_after(-{_WEEK}))
GROUP BY t.slug, a.name, a.state ORDER BY n DESC, t.slug, a.name LIMIT 100
"""  # noqa: S608 - our own numbers
_RUNS = f"""
SELECT t.slug, r.journey_id, min(r.reason) AS reason, count(*) AS n
FROM marketing_journey_runs r JOIN marketing_tenants t ON t.id = r.tenant_id
WHERE r.state = 'failed' AND r.ended_at > nexus_after(-{_WEEK})
GROUP BY t.slug, r.journey_id ORDER BY n DESC, t.slug, r.journey_id LIMIT 100
"""  # noqa: S608 - our own numbers
_ESCALATIONS = """
SELECT t.slug, e.id, e.entity_id AS campaign_id, e.level, {age} AS seconds
FROM marketing_escalations e JOIN marketing_tenants t ON t.id = e.tenant_id
WHERE e.acknowledged_at IS NULL ORDER BY e.at, e.id LIMIT 1000
"""
_AGE_PG = "EXTRACT(EPOCH FROM nexus_now() - e.at)"
_AGE_SQLITE = "(julianday(nexus_now()) - julianday(e.at)) * 86400"
_TAKING_BACK = """
SELECT t.slug, c.id AS campaign_id, (
    SELECT count(*) FROM marketing_actions a
    WHERE a.tenant_id = c.tenant_id AND a.campaign_id = c.id AND a.state IN ('waiting', 'paused')) AS actions
FROM marketing_campaigns c JOIN marketing_tenants t ON t.id = c.tenant_id
WHERE c.failed_at < nexus_after(-3600) AND (
    EXISTS (SELECT 1 FROM marketing_timers w WHERE w.tenant_id = c.tenant_id AND w.type = 'campaign.compensation'
            AND w.key = CAST(c.id AS text))
    OR EXISTS (SELECT 1 FROM marketing_actions a WHERE a.tenant_id = c.tenant_id AND a.campaign_id = c.id
               AND a.state IN ('waiting', 'paused')))
ORDER BY c.failed_at LIMIT 20
"""


def ill_actions(session: Session) -> list[Row[Any]]:
    """(slug, name, state, reason, n, last_id) of actions that failed within a week, or whose plugin is missing."""
    return list(run_for_all(session, _ACTIONS, writes=False))


def failed_runs(session: Session) -> list[Row[Any]]:
    """(slug, journey_id, reason, n) of runs of journeys that failed within a week."""
    return list(run_for_all(session, _RUNS, writes=False))


def open_escalations(session: Session) -> list[Row[Any]]:
    """(slug, id, campaign_id, level, seconds) of escalations that nobody has acknowledged, the oldest first."""
    age = _AGE_PG if is_postgresql(session) else _AGE_SQLITE
    return list(run_for_all(session, _ESCALATIONS.format(age=age), writes=False))


def slow_compensations(session: Session) -> list[Row[Any]]:
    """(slug, campaign_id, actions) of campaigns that failed over an hour ago and of which not all is taken back."""
    return list(run_for_all(session, _TAKING_BACK, writes=False))
