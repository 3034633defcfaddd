"""SQL of reported events: a batch is checked, claimed and written by one statement each."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import date
from typing import Any, TypeVar

import orjson
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, ask, send
from nexus_marketing.db.queries.rowsets import Values, as_ids, as_rows, columns_of, ids_of, is_postgresql, rowset
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
Found = TypeVar("Found")


#: Tells once what was asked: inside ``sent_ahead`` it waits, behind the block it need not.
Later = Callable[[], Found]


def known_campaigns(session: Session, ids: Collection[int]) -> Later[dict[int, int]]:
    """Which of these ids are of campaigns that the tenant has."""
    if not ids:
        return dict
    # Only what is not as one expects comes back, here and below: mostly nothing.
    statement = (
        f"SELECT s.id FROM ({ids_of(session)}) s"
        " LEFT JOIN marketing_campaigns k ON k.tenant_id = :tenant_id AND k.id = s.id WHERE k.id IS NULL"
    )
    answer = ask(session, Question(statement, {"ids": as_ids(ids)}))

    def found() -> dict[int, int]:
        missing = {row.id for row in answer()}
        return {id_: id_ for id_ in ids if id_ not in missing}

    return found


def living_leads(session: Session, ids: Collection[int]) -> Later[dict[int, int]]:
    """Of these ids, who is there: the lead itself, or the one into which it was merged since the id was noted."""
    if not ids:
        return dict
    statement = (
        f"SELECT s.id, k.merged_into AS now FROM ({ids_of(session)}) s"
        " LEFT JOIN marketing_leads k ON k.tenant_id = :tenant_id AND k.id = s.id"
        " WHERE k.id IS NULL OR k.gone_at IS NOT NULL OR k.merged_into IS NOT NULL"
    )
    answer = ask(session, Question(statement, {"ids": as_ids(ids)}))

    def found() -> dict[int, int]:
        moved = {row.id: row.now for row in answer()}
        return {id_: now for id_ in ids if (now := moved.get(id_, id_)) is not None}

    return found


def leads_by(column: str, session: Session, values: Collection[str]) -> Later[dict[str, int]]:
    """Ids of leads by a text that is unique to each: ``external_id`` or ``email_norm``."""
    if not values:
        return dict
    statement = (
        f"SELECT l.{column} AS known, l.id FROM {rowset(session, {'known': 'text'})} CROSS JOIN marketing_leads l"
        f" WHERE l.tenant_id = :tenant_id AND l.{column} = s.known"
    )
    answer = ask(session, Question(statement, {"rows": as_rows([{"known": each} for each in values])}))
    return lambda: {row.known: row.id for row in answer()}


def claim_event_ids(session: Session, event_ids: Collection[str], days: Sequence[date]) -> Later[set[str]]:
    """Take event ids for these days of receipt; what is answered tells those nobody had taken.

    All days that are kept are asked. A copy that arrives at the same moment waits for this transaction
    at the key of its day; ``days`` are two around midnight, so that there it does so too.
    """
    if not event_ids:
        return set
    statement = _CLAIM.format(source=_source_of_ids(session))
    # In key order: two batches that share ids wait for each other and do not deadlock.
    bound: dict[str, Any] = {**_ids_on(sorted(event_ids), days), "first": days[0].isoformat()}
    if is_postgresql(session):
        statement = _TAKEN.format(claim=statement)
        bound.update(first=days[0], all=len(event_ids) * len(days))
    answer = ask(session, Question(statement, bound, writes=True))
    return lambda: _taken_for_all(event_ids, len(days), answer())


def _taken_for_all(event_ids: Collection[str], days: int, answer: Sequence[Sequence[Any]]) -> set[str]:
    """PostgreSQL answers how many rows are new, and which only where not all are; SQLite answers which."""
    found = [row[-1] for row in answer]
    if answer and len(answer[0]) > 1:
        if answer[0][0] == len(event_ids) * days:
            return set(event_ids)
        found = answer[0][1]
    return {event_id for event_id, count in Counter(found).items() if count == days}


def _ids_on(event_ids: Sequence[str], days: Sequence[date]) -> dict[str, str]:
    return {"ids": orjson.dumps(event_ids).decode(), "days": orjson.dumps(days).decode()}


def release_event_ids(session: Session, event_ids: Collection[str], days: Sequence[date]) -> None:
    """Give back ids that this transaction has taken for what it does not write after all."""
    if not event_ids:
        return
    statement = (
        "DELETE FROM marketing_event_seen WHERE tenant_id = :tenant_id AND (event_id, received_on) IN"
        f" (SELECT s.event_id, s.day FROM {_source_of_ids(session)})"
    )
    run(session, statement, _ids_on(sorted(event_ids), days), writes=True)


# The key of the table answers for the days that are claimed, so that only those before are asked.
_CLAIM = """
INSERT INTO marketing_event_seen (tenant_id, event_id, received_on) SELECT :tenant_id, s.event_id, s.day FROM {source}
WHERE NOT EXISTS (SELECT 1 FROM marketing_event_seen k
    WHERE k.tenant_id = :tenant_id AND k.event_id = s.event_id AND k.received_on < :first)
ON CONFLICT DO NOTHING RETURNING event_id
"""
_TAKEN = """
WITH claimed AS ({claim}) SELECT count(*), CASE WHEN count(*) < :all THEN array_agg(event_id) END FROM claimed
"""


def _source_of_ids(session: Session) -> str:
    """Each of ``:ids`` with each of ``:days``, in their order."""
    if is_postgresql(session):
        return (
            "(SELECT i.value AS event_id, CAST(d.value AS date) AS day"
            " FROM json_array_elements_text(CAST(:ids AS json)) i"
            " CROSS JOIN json_array_elements_text(CAST(:days AS json)) d) s"
        )
    return "(SELECT i.value AS event_id, d.value AS day FROM json_each(:ids) i CROSS JOIN json_each(:days) d) s"


def insert_engagements(session: Session, rows: Sequence[Values]) -> Later[int | None]:
    """Write engagements; what is answered tells the id of a single one.

    Keys are those of the table, moments are canonical text, what is missing is NULL.
    """
    statement, bound = _insert(session, rows)
    if len(rows) > 1:
        send(session, statement, bound)
        return lambda: None
    answer = ask(session, Question(f"{statement} RETURNING id", bound, writes=True))
    return lambda: int(answer()[0].id)


def _insert(session: Session, rows: Sequence[Values]) -> tuple[str, dict[str, str]]:
    used = set().union(*rows)
    columns = {name: kind for name, kind in _ENGAGEMENT.items() if name in used}
    source, bound = columns_of(session, columns, rows)
    statement = (
        f"INSERT INTO marketing_engagements (tenant_id, {', '.join(columns)})"
        f" SELECT :tenant_id, {', '.join(f's.{name}' for name in columns)} FROM {source}"
    )
    return statement, bound


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
