"""SQL of warm-up plans: where a sender stands, moved on once a day by what the ledger says of the day before."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.core.pacing.rates import RateLimit
from nexus_marketing.core.pacing.warm_up import DayFigures, Standing, WarmUp, warm_ups_of
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import to_text

_STANDINGS = "SELECT sender, step, day FROM marketing_warm_ups WHERE tenant_id = :tenant_id"
_BEGIN = """
INSERT INTO marketing_warm_ups (tenant_id, sender, step, day) VALUES (:tenant_id, :sender, 0, :day) ON CONFLICT DO NOTHING
"""
# Of two workers at midnight one moves it on.
_MOVE = """
UPDATE marketing_warm_ups SET step = :step, day = :day WHERE tenant_id = :tenant_id AND sender = :sender AND day = :before
"""
_FIGURES = """
SELECT count(*) AS left, count(*) FILTER (WHERE d.state IN ('failed', 'bounced_hard')) AS bounced,
  count(*) FILTER (WHERE d.state = 'complained') AS complained
FROM marketing_sends s JOIN marketing_deliveries d ON d.tenant_id = s.tenant_id AND d.send_id = s.id
WHERE s.tenant_id = :tenant_id AND lower(s.sender ->> 'from_email') = :sender
  AND (s.finished_at IS NULL OR s.finished_at >= {begin}) AND d.settled_at >= {begin} AND d.settled_at < {end}
  AND (d.state NOT IN ('planned', 'skipped', 'failed') OR d.state = 'failed' AND d.reason = 'permanent_recipient')
"""


def warm_up_limits(session: Session, settings: Mapping[str, Any], now: datetime) -> list[RateLimit]:
    """What the tenant's plans allow today, those whose day is over moved on first."""
    plans = warm_ups_of(settings)
    if not plans:
        return []
    standings, today = standings_of(session), now.astimezone(UTC).date()
    limits = [plan.limit(_step(session, plan, standings.get(plan.sender), today)) for plan in plans]
    return [limit for limit in limits if limit is not None]


def step_today(session: Session, plan: WarmUp, now: datetime) -> int:
    """Which step of its plan a sender's first message of today would find; nothing is written down."""
    standing, today = standings_of(session).get(plan.sender), now.astimezone(UTC).date()
    if standing is None:
        return 0
    return standing.step if standing.day >= today else _moved_on(session, plan, standing)


def standings_of(session: Session) -> dict[str, Standing]:
    """Where the tenant's senders stand, by address."""
    rows = run(session, _STANDINGS, writes=False)
    return {row.sender: Standing(row.step, _as_date(row.day)) for row in rows}


def figures_of(session: Session, sender: str, day: date) -> DayFigures:
    """What became of the messages that left from an address on a day (UTC)."""
    begin = datetime.combine(day, time(), UTC)
    moments = {"begin": to_text(begin), "end": to_text(begin + timedelta(days=1))}
    form = "CAST(:{} AS timestamptz)" if is_postgresql(session) else ":{}"
    statement = _FIGURES.format(begin=form.format("begin"), end=form.format("end"))
    return DayFigures._make(run(session, statement, {"sender": sender, **moments}, writes=False).one())


def _step(session: Session, plan: WarmUp, standing: Standing | None, today: date) -> int:
    if standing is None:
        run(session, _BEGIN, {"sender": plan.sender, "day": today}, writes=True)
        return 0
    if standing.day >= today:
        return standing.step
    step = _moved_on(session, plan, standing)
    values = {"sender": plan.sender, "step": step, "day": today, "before": standing.day}
    run(session, _MOVE, values, writes=True)
    return step


def _moved_on(session: Session, plan: WarmUp, standing: Standing) -> int:
    return plan.after(standing.step, figures_of(session, plan.sender, standing.day))


def _as_date(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
