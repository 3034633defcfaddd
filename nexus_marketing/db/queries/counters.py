"""SQL of counters: deltas folded into roll-ups, both read together, and what they should be by the rows."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.queues import taking
from nexus_marketing.db.queries.rowsets import as_rows, is_postgresql, rowset
from nexus_marketing.db.tenancy import run

_PIECE = 2000
_KEY = "campaign_id, day, type, verdict"
_ROLLUP = {
    "campaign_id": "bigint",
    "day": "date",
    "type": "text",
    "verdict": "text",
    "hits": "bigint",
    "recipients": "bigint",
}


class Count(NamedTuple):
    """Engagements and recipients of one campaign (0 for none), day (UTC, as text), type and verdict."""

    campaign_id: int
    day: str
    type: str
    verdict: str
    hits: int
    recipients: int


def take_deltas(session: Session) -> list[Count]:
    """Take up to 2,000 deltas out; they are gone when the transaction commits, and in the roll-ups then."""
    statement = taking(session, "marketing_engagement_deltas", ", ".join(Count._fields))
    found = run(session, statement, {"piece": _PIECE}, writes=True)
    return [_count(row) for row in found]


def add_to_rollups(session: Session, counts: Sequence[Count]) -> None:
    """Add sums to the roll-ups. ``counts`` come one per key, in key order, so that two folds lock alike."""
    if not counts:
        return
    statement = (
        f"INSERT INTO marketing_engagement_rollups AS r (tenant_id, {_KEY}, hits, recipients)"
        f" SELECT :tenant_id, {', '.join(f's.{name}' for name in _ROLLUP)} FROM {rowset(session, _ROLLUP)} WHERE true"
        f" ON CONFLICT (tenant_id, {_KEY})"
        " DO UPDATE SET hits = r.hits + excluded.hits, recipients = r.recipients + excluded.recipients"
    )
    run(session, statement, {"rows": as_rows([each._asdict() for each in counts])}, writes=True)


_BOTH = """
SELECT {columns}, CAST(sum(hits) AS bigint) AS hits, CAST(sum(recipients) AS bigint) AS recipients FROM (
    SELECT {columns}, hits, recipients FROM marketing_engagement_rollups
    WHERE tenant_id = :tenant_id AND campaign_id = :campaign_id
    UNION ALL
    SELECT {columns}, hits, recipients FROM marketing_engagement_deltas
    WHERE tenant_id = :tenant_id AND campaign_id = :campaign_id) counted
GROUP BY {columns}
"""


def campaign_counts(session: Session, campaign_id: int) -> list[Row[Any]]:
    """(type, verdict, hits, recipients) of a campaign: roll-ups and what waits to be folded, so always exact."""
    statement = _BOTH.format(columns="type, verdict")
    return list(run(session, statement, {"campaign_id": campaign_id}, writes=False).all())


_COUNTED = """
SELECT {key}, CAST(sum(hits) AS bigint) AS hits, CAST(sum(recipients) AS bigint) AS recipients FROM (
    SELECT coalesce(campaign_id, 0) AS campaign_id, {tracked} AS day, type, verdict, count(*) AS hits, 0 AS recipients
    FROM marketing_engagements WHERE tenant_id = :tenant_id
    GROUP BY 1, 2, type, verdict
    UNION ALL
    SELECT coalesce(s.campaign_id, 0), {first}, r.type, r.verdict, 0, count(*)
    FROM marketing_recipient_engagements r
    LEFT JOIN marketing_sends s ON s.tenant_id = r.tenant_id AND s.tenant_id = :tenant_id AND s.id = r.send_id
    WHERE r.tenant_id = :tenant_id
    GROUP BY 1, 2, r.type, r.verdict
    UNION ALL
    SELECT {key}, -hits, -recipients FROM marketing_engagement_rollups
    WHERE tenant_id = :tenant_id
    UNION ALL
    SELECT {key}, -hits, -recipients FROM marketing_engagement_deltas
    WHERE tenant_id = :tenant_id) counted
GROUP BY {key}
HAVING sum(hits) <> 0 OR sum(recipients) <> 0
ORDER BY {key}
"""


def differences(session: Session) -> list[Count]:
    """What is missing from the counters (negative: what is too much), counted anew from every row.

    One statement sees one moment, in which rows, deltas and roll-ups belong together: engagements come
    with their deltas, and a fold moves deltas. So the answer stays true while others go on writing.
    """
    day = "CAST({} AT TIME ZONE 'UTC' AS date)" if is_postgresql(session) else "substr({}, 1, 10)"
    statement = _COUNTED.format(key=_KEY, tracked=day.format("tracked_at"), first=day.format("r.first_at"))
    return [_count(row) for row in run(session, statement, writes=False)]


def _count(row: Row[Any]) -> Count:
    day = row.day.isoformat() if isinstance(row.day, date) else row.day
    return Count(row.campaign_id, day, row.type, row.verdict, int(row.hits), int(row.recipients))
