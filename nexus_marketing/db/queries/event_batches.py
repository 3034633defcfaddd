"""SQL of reported events: a batch is checked, claimed and written by one statement each."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import Values, as_rows, is_postgresql, rowset
from nexus_marketing.db.tenancy import run, run_for_all

_ENGAGEMENT = {
    "tracked_at": "timestamptz",
    "type": "text",
    "name": "text",
    "lead_id": "bigint",
    "campaign_id": "bigint",
    "send_id": "bigint",
    "seq": "bigint",
    "link": "bigint",
    "channel": "text",
    "verdict": "text",
    "machine_hint": "text",
    "notes": "text",
    "metadata": "jsonb",
    "words": "text",
}
_DELTA = {
    "campaign_id": "bigint",
    "day": "date",
    "type": "text",
    "verdict": "text",
    "hits": "bigint",
    "recipients": "bigint",
}
_FORGET_PIECE = 2000


def known_campaigns(session: Session, ids: Collection[int]) -> set[int]:
    """Which of these ids are of campaigns that the tenant has."""
    if not ids:
        return set()
    statement = (
        f"SELECT k.id FROM {rowset(session, {'id': 'bigint'})} CROSS JOIN marketing_campaigns k"
        " WHERE k.tenant_id = :tenant_id AND k.id = s.id"
    )
    found = run(session, statement, {"rows": as_rows([{"id": each} for each in ids])}, writes=False)
    return set(found.scalars())


def living_leads(session: Session, ids: Collection[int]) -> dict[int, int]:
    """Of these ids, who is there: the lead itself, or the one into which it was merged since the id was noted."""
    if not ids:
        return {}
    statement = (
        f"SELECT k.id, coalesce(k.merged_into, k.id) AS now FROM {rowset(session, {'id': 'bigint'})}"
        " CROSS JOIN marketing_leads k WHERE k.tenant_id = :tenant_id AND k.id = s.id"
        " AND (k.gone_at IS NULL OR k.merged_into IS NOT NULL)"
    )
    found = run(session, statement, {"rows": as_rows([{"id": each} for each in ids])}, writes=False)
    return {row.id: row.now for row in found}


def leads_by(session: Session, column: str, values: Collection[str]) -> dict[str, int]:
    """Ids of leads by a text that is unique to each: ``external_id`` or ``email_norm``."""
    if not values:
        return {}
    statement = (
        f"SELECT l.{column} AS known, l.id FROM {rowset(session, {'known': 'text'})} CROSS JOIN marketing_leads l"
        f" WHERE l.tenant_id = :tenant_id AND l.{column} = s.known"
    )
    found = run(session, statement, {"rows": as_rows([{"known": each} for each in values])}, writes=False)
    return {row.known: row.id for row in found}


def claim_event_ids(session: Session, event_ids: Collection[str], days: Sequence[date]) -> set[str]:
    """Take event ids for these days of receipt; answers those that nobody had taken.

    All days that are kept are asked. A copy that arrives at the same moment waits for this transaction
    at the key of its day; ``days`` are two around midnight, so that there it does so too.
    """
    if not event_ids:
        return set()
    # In key order: two batches that share ids wait for each other and do not deadlock.
    rows = [{"event_id": each, "day": day.isoformat()} for each in sorted(event_ids) for day in days]
    source = rowset(session, {"event_id": "text", "day": "date"})
    # The key of the table answers for the days that are claimed, so that only those before are asked.
    claim = (
        "INSERT INTO marketing_event_seen (tenant_id, event_id, received_on)"
        f" SELECT :tenant_id, s.event_id, s.day FROM {source}"
        " WHERE NOT EXISTS (SELECT 1 FROM marketing_event_seen k"
        " WHERE k.tenant_id = :tenant_id AND k.event_id = s.event_id AND k.received_on < :first)"
        " ON CONFLICT DO NOTHING RETURNING event_id, received_on"
    )
    bound: dict[str, Any] = {"rows": as_rows(rows), "first": days[0] if is_postgresql(session) else days[0].isoformat()}
    if is_postgresql(session):
        # Only what somebody had taken comes back: mostly nothing.
        missed = (
            f"WITH claimed AS ({claim}) SELECT s.event_id FROM {source}"
            " LEFT JOIN claimed c ON c.event_id = s.event_id AND c.received_on = s.day WHERE c.event_id IS NULL"
        )
        return set(event_ids) - set(run(session, missed, bound, writes=True).scalars())
    taken: dict[str, int] = {}
    for event_id in run(session, claim, bound, writes=True).scalars():
        taken[event_id] = taken.get(event_id, 0) + 1
    return {event_id for event_id, count in taken.items() if count == len(days)}


def insert_engagements(session: Session, rows: Sequence[Values]) -> None:
    """Write engagements: keys are those of the table, moments are canonical text, what is missing is NULL."""
    run(session, _insert(session, rows), {"rows": as_rows(rows)}, writes=True)


def insert_engagement(session: Session, row: Values) -> int:
    """Write one and answer its id."""
    statement = f"{_insert(session, [row])} RETURNING id"
    return int(run(session, statement, {"rows": as_rows([row])}, writes=True).scalar_one())


def _insert(session: Session, rows: Sequence[Values]) -> str:
    used = set().union(*rows)
    columns = {name: kind for name, kind in _ENGAGEMENT.items() if name in used}
    return (
        f"INSERT INTO marketing_engagements (tenant_id, {', '.join(columns)})"
        f" SELECT :tenant_id, {', '.join(f's.{name}' for name in columns)} FROM {rowset(session, columns)}"
    )


def append_deltas(session: Session, rows: Sequence[Values]) -> None:
    """Append changes of counters: ``campaign_id`` (0 for none), ``day``, ``type``, ``verdict`` and both measures."""
    if not rows:
        return
    names, picked = ", ".join(_DELTA), ", ".join(f"s.{name}" for name in _DELTA)
    statement = (
        f"INSERT INTO marketing_engagement_deltas (tenant_id, {names})"
        f" SELECT :tenant_id, {picked} FROM {rowset(session, _DELTA)}"
    )
    run(session, statement, {"rows": as_rows(rows)}, writes=True)


def forget_event_days(session: Session, before: date) -> int:
    """Let go of event ids received before a day: whole partitions, on SQLite a piece of them; answers how many rows."""
    if is_postgresql(session):
        run_for_all(session, "SELECT nexus_drop_event_days(:before)", {"before": before}, writes=True)
        return 0
    statement = (
        "DELETE FROM marketing_event_seen WHERE rowid IN"
        " (SELECT rowid FROM marketing_event_seen WHERE received_on < :before LIMIT :piece)"
    )
    gone: Any = run_for_all(session, statement, {"before": before.isoformat(), "piece": _FORGET_PIECE}, writes=True)
    return int(gone.rowcount)
