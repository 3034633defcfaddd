"""SQL of scoring: what waits, what a lead's scores are made of, and what is written for a batch of leads at once."""
# ruff: noqa: S608 - the pieces put together here are our own column names, never input

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import orjson
from sqlalchemy import Executable, Row, RowMapping, Table, bindparam, select, text
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from nexus_marketing.db.ahead import Question, answers, ask, send
from nexus_marketing.db.models import Lead, ScoreValue
from nexus_marketing.db.queries.queues import taking
from nexus_marketing.db.queries.rowsets import Values, among, as_among, as_rows, is_postgresql, of_tenant, rowset
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import BigInt, Json, UtcDateTime, to_text

_LEADS = cast("Table", Lead.__table__)
_VALUES = cast("Table", ScoreValue.__table__)
_TENANT = bindparam("tenant_id", type_=BigInt)
_MARK = {"lead_id": "bigint", "since": "timestamptz", "until": "timestamptz"}

_WAITING = """
SELECT t.id AS tenant_id, 'marks' AS kind FROM marketing_tenants t
WHERE EXISTS (SELECT 1 FROM marketing_score_marks m WHERE m.tenant_id = t.id)
UNION ALL SELECT t.id, 'recompute' FROM marketing_tenants t
WHERE EXISTS (SELECT 1 FROM marketing_score_recomputes r WHERE r.tenant_id = t.id AND r.finished_at IS NULL)
UNION ALL SELECT t.id, 'removal' FROM marketing_tenants t
WHERE EXISTS (SELECT 1 FROM marketing_scores k WHERE k.tenant_id = t.id AND k.removed_at IS NOT NULL)
"""


def scoring_work(session: Session) -> list[Row[Any]]:
    """(tenant_id, kind) of what waits: ``marks`` of leads, ``recompute`` by new rules, ``removal`` of scores."""
    return list(run_for_all(session, _WAITING, writes=False))


_ENSURE = text("""
INSERT INTO marketing_scores (tenant_id, name, created_at, updated_at) VALUES (:tenant_id, :name, :now, :now)
ON CONFLICT DO NOTHING
""").bindparams(bindparam("now", type_=UtcDateTime()))


def ensure_score(session: Session, name: str, now: datetime) -> None:
    """Have a score of this name, whoever comes first."""
    run(session, _ENSURE, {"name": name, "now": now}, writes=True)


def append_marks(session: Session, rows: Sequence[Values]) -> None:
    """Note leads to be looked at: ``lead_id``, and the span of what they did (canonical text) or nothing."""
    statement = (
        "INSERT INTO marketing_score_marks (tenant_id, lead_id, since, until)"
        f" SELECT :tenant_id, s.lead_id, s.since, s.until FROM {rowset(session, _MARK)}"
    )
    run(session, statement, {"rows": as_rows(rows)}, writes=True)


def take_marks(session: Session, size: int) -> list[Row[Any]]:
    """Take up to so many marks out of the queue; they are gone when the transaction commits."""
    return answers(session, marks_to_take(session, size))[0]


def marks_to_take(session: Session, size: int) -> Question:
    """The same as a question."""
    statement = _typed(taking(session, "marketing_score_marks", "lead_id, since, until"))
    return Question(statement, {"piece": size}, writes=True)


_MARKS = """
SELECT lead_id, since, until FROM marketing_score_marks
WHERE tenant_id = :tenant_id AND lead_id IN :leads AND since IS NOT NULL
"""


def marks_of(session: Session, lead_ids: Collection[int]) -> list[Row[Any]]:
    """Marks of these leads that nobody has taken yet."""
    return list(run(session, _typed(_MARKS, "leads"), {"leads": sorted(lead_ids)}, writes=False))


#: What lies in hand-written statements under these names, whichever database answers.
_MOMENT = UtcDateTime()
_COLUMNS: Mapping[str, TypeEngine[Any]] = {
    "at": _MOMENT,
    "since": _MOMENT,
    "until": _MOMENT,
    "tracked_at": _MOMENT,
    "next_change_at": _MOMENT,
    "published_at": _MOMENT,
    "metadata": Json,
    "marks": Json,
    "rules": Json,
    "events": Json,
    "reads": Json,
}


@lru_cache(maxsize=100)
def _typed(statement: str, *lists: str) -> Executable:
    """A statement whose columns are read by their names; made once, which costs as much as running it."""
    names = [name for name in _COLUMNS if re.search(rf"\b{name}\b", statement)]
    clause = text(statement)
    if lists:
        clause = clause.bindparams(*(bindparam(name, expanding=True) for name in lists))
    return clause.columns(**{name: _COLUMNS[name] for name in names})


_ID = bindparam("leads", type_=BigInt, expanding=True)
_ALIVE = (_LEADS.c.tenant_id == _TENANT, _LEADS.c.gone_at.is_(None), _LEADS.c.id.in_(_ID))
_READ_RECORDS = select(_LEADS).where(*_ALIVE).order_by(_LEADS.c.id)
_LOCK_RECORDS = _READ_RECORDS.with_for_update(key_share=True)
_FREE = select(_LEADS.c.id).where(*_ALIVE).order_by(_LEADS.c.id).with_for_update(key_share=True, skip_locked=True)


def lock_records(session: Session, lead_ids: Collection[int]) -> list[RowMapping]:
    """These leads as they are, but for those that are gone; locked, in the order of their ids."""
    return list(run(session, _LOCK_RECORDS, {"leads": sorted(lead_ids)}, writes=False).mappings())


def read_records(session: Session, lead_ids: Collection[int]) -> list[RowMapping]:
    """The same without locks, for what only looks."""
    return list(run(session, _READ_RECORDS, {"leads": sorted(lead_ids)}, writes=False).mappings())


_ENGAGEMENTS = """
SELECT id, tracked_at, lead_id, type, name, verdict, metadata, channel, campaign_id, link FROM (
    SELECT e.id, e.tracked_at, e.lead_id, e.type, e.name, e.verdict, e.metadata, e.channel, e.campaign_id, e.link,
           row_number() OVER (PARTITION BY e.lead_id ORDER BY e.tracked_at DESC, e.id DESC) AS place
    FROM {spans} CROSS JOIN marketing_engagements e
    WHERE e.tenant_id = :tenant_id AND e.lead_id = s.lead_id AND e.tracked_at >= s.since AND e.tracked_at <= s.until
    AND e.tracked_at >= {first} AND e.tracked_at <= {last}{leads}
    AND (e.type {events} OR e.name {events}){only}) d
WHERE place <= :most
"""


def engagements_of(
    session: Session, spans: Sequence[Values], events: Collection[str], most: int, *, only_human: bool = False
) -> Question:
    """What leads did in spans of time (``lead_id``, ``since``, ``until`` as canonical text): the newest of each."""
    # All spans lie between two moments, by which partitions are chosen; PostgreSQL, which believes that there are a
    # hundred spans, is to go by leads all the same.
    moment = "CAST(:{} AS timestamptz)" if is_postgresql(session) else ":{}"
    is_server = is_postgresql(session)
    statement = _ENGAGEMENTS.format(
        spans=rowset(session, _MARK),
        leads=f" AND e.lead_id {among(session, 'leads')}" if is_server else "",
        first=moment.format("first"),
        last=moment.format("last"),
        only=" AND e.verdict = 'human'" if only_human else "",
        events="= ANY(CAST(:events AS text[]))" if is_server else "IN (SELECT value FROM json_each(:events))",
    )
    named = sorted(events)
    bound = {
        "rows": as_rows(spans),
        "leads": as_among(session, {span["lead_id"] for span in spans}),
        "first": min(span["since"] for span in spans),
        "last": max(span["until"] for span in spans),
        "events": named if is_server else orjson.dumps(named).decode(),
        "most": most,
    }
    return Question(_typed(statement), bound)


_KEY = {"score_id": "bigint", "rule": "text", "version": "bigint"}
_CONTRIBUTIONS = """
SELECT score_id, lead_id, kind, rule, version, cause, turn, points, at, actor, reason FROM (
    SELECT c.*, row_number() OVER (PARTITION BY c.lead_id, c.score_id ORDER BY c.at DESC) AS place
    FROM marketing_score_contributions c WHERE c.tenant_id = :tenant_id AND c.lead_id {leads}
    AND (c.version = 0 OR (c.score_id, c.rule, c.version) IN (SELECT s.score_id, s.rule, s.version FROM {rules}))) d
WHERE place <= :most ORDER BY at
"""


def contributions_of(session: Session, lead_ids: Collection[int], rules: Sequence[Values], most: int) -> Question:
    """Contributions to these leads' scores: of no rule, and of rules (``score_id``, ``rule``, ``version``) in force."""
    statement = _CONTRIBUTIONS.format(rules=rowset(session, _KEY), leads=among(session, "leads"))
    return Question(_typed(statement), {"leads": as_among(session, lead_ids), "rows": as_rows(rules), "most": most})


_STORED = """
SELECT score_id, lead_id, value, version, marks, next_change_at FROM marketing_score_values
WHERE tenant_id = :tenant_id AND score_id {scores} AND lead_id {leads}
"""


def values_of(session: Session, lead_ids: Collection[int], score_ids: Collection[int]) -> Question:
    """The stored scores of these leads."""
    statement = _STORED.format(scores=among(session, "scores"), leads=among(session, "leads"))
    bound = {"leads": as_among(session, lead_ids), "scores": as_among(session, score_ids)}
    return Question(_typed(statement), bound)


_IN_FORCE = """
SELECT s.id, s.name, v.number, v.rules, v.published_at, v.fire_on_recompute
FROM marketing_scores s JOIN marketing_score_versions v
ON v.tenant_id = s.tenant_id AND v.score_id = s.id AND v.number = s.published
WHERE s.tenant_id = :tenant_id AND s.removed_at IS NULL ORDER BY s.id
"""


def rules_in_force() -> Question:
    """(id, name, number, rules, published_at, fire_on_recompute) of every score whose rules are published."""
    return Question(_typed(_IN_FORCE), {})


_ASKED = """
SELECT events, reads FROM marketing_scores
WHERE tenant_id = :tenant_id AND published IS NOT NULL AND removed_at IS NULL
"""


def asked_by_rules(session: Session) -> Callable[[], list[Row[Any]]]:
    """(events, reads) of every score whose rules are published, told by what is answered (``db.ahead.ask``)."""
    return ask(session, Question(_typed(_ASKED), {}))


_CONTRIBUTION = {
    "score_id": "bigint",
    "rule": "text",
    "version": "bigint",
    "cause": "bigint",
    "turn": "bigint",
    "lead_id": "bigint",
    "kind": "text",
    "points": "double precision",
    "at": "timestamptz",
    "actor": "text",
    "reason": "text",
}
_VALUE = {
    "score_id": "bigint",
    "lead_id": "bigint",
    "value": "double precision",
    "version": "bigint",
    "marks": "jsonb",
    "next_change_at": "timestamptz",
    "computed_at": "timestamptz",
}
_CROSSING = {
    "score_id": "bigint",
    "lead_id": "bigint",
    "threshold": "text",
    "direction": "text",
    "before": "double precision",
    "after": "double precision",
    "at": "timestamptz",
}


def append_contributions(session: Session, rows: Sequence[Values]) -> None:
    """Append to the ledger; what is there already stays as it is."""
    _insert(session, "marketing_score_contributions", _CONTRIBUTION, rows, " ON CONFLICT DO NOTHING")


def append_crossings(session: Session, rows: Sequence[Values]) -> None:
    """Write down crossings of thresholds."""
    _insert(session, "marketing_score_crossings", _CROSSING, rows)


def write_values(session: Session, rows: Sequence[Values]) -> None:
    """Store scores of leads that are locked."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in list(_VALUE)[2:])
    conflict = f" ON CONFLICT (tenant_id, score_id, lead_id) DO UPDATE SET {changed}"
    _insert(session, "marketing_score_values", _VALUE, rows, conflict)


def _insert(session: Session, table: str, columns: Mapping[str, str], rows: Sequence[Values], more: str = "") -> None:
    if not rows:
        return
    picked = ", ".join(f"s.{name}" for name in columns)
    statement = (
        f"INSERT INTO {table} (tenant_id, {', '.join(columns)})"
        f" SELECT :tenant_id, {picked} FROM {rowset(session, columns)} WHERE true{more}"
    )
    send(session, statement, {"rows": as_rows(rows)})


def write_own_scores(session: Session, rows: Sequence[Values]) -> None:
    """Show ``value`` as the lead's own score, of leads that are locked."""
    if not rows:
        return
    columns = {"lead_id": "bigint", "value": "double precision"}
    statement = (
        f"UPDATE marketing_leads AS l SET score = s.value FROM {rowset(session, columns)}"
        f" WHERE {of_tenant(session, 'l')} AND l.id = s.lead_id"
    )
    send(session, statement, {"rows": as_rows(rows)})


def due_leads(session: Session, now: datetime, size: int) -> list[int]:
    """Leads whose score time changes by now, those that wait longest first."""
    statement = (
        select(_VALUES.c.lead_id)
        .where(_VALUES.c.tenant_id == _TENANT, _VALUES.c.next_change_at <= now)
        .order_by(_VALUES.c.next_change_at)
        .limit(size)
    )
    return list(dict.fromkeys(run(session, statement, writes=False).scalars()))


def free_leads(session: Session, lead_ids: Collection[int]) -> list[int]:
    """Lock those of these leads that nobody else has locked, and answer them."""
    if not lead_ids:
        return []
    return list(run(session, _FREE, {"leads": sorted(lead_ids)}, writes=False).scalars())


_FORGET = (
    text("""
UPDATE marketing_score_values SET next_change_at = NULL
WHERE tenant_id = :tenant_id AND next_change_at <= :now AND lead_id IN :leads AND (lead_id IN :done OR lead_id IN (
    SELECT id FROM marketing_leads WHERE tenant_id = :tenant_id AND id IN :leads AND gone_at IS NOT NULL))
""")
    .bindparams(bindparam("leads", expanding=True), bindparam("done", expanding=True))
    .bindparams(bindparam("now", type_=UtcDateTime()))
)


def forget_due(session: Session, lead_ids: Collection[int], done: Collection[int], now: datetime) -> None:
    """What is still due of leads that are done with, or gone, has no rules any more that could change it."""
    if lead_ids:
        bound = {"leads": sorted(lead_ids), "done": sorted(done), "now": now}
        run(session, _FORGET, bound, writes=True)


def first_due(session: Session) -> datetime | None:
    """When time changes a score next."""
    statement = (
        select(_VALUES.c.next_change_at)
        .where(_VALUES.c.tenant_id == _TENANT, _VALUES.c.next_change_at.is_not(None))
        .order_by(_VALUES.c.next_change_at)
        .limit(1)
    )
    found: datetime | None = run(session, statement, writes=False).scalar()
    return found


def next_leads(session: Session, after: int, size: int) -> list[int]:
    """Ids of leads after one, in their order."""
    statement = (
        select(_LEADS.c.id)
        .where(_LEADS.c.tenant_id == _TENANT, _LEADS.c.id > after, _LEADS.c.gone_at.is_(None))
        .order_by(_LEADS.c.id)
        .limit(size)
    )
    return list(run(session, statement, writes=False).scalars())


def newest_leads(session: Session, size: int) -> list[int]:
    """Ids of the leads that came last."""
    wanted = (_LEADS.c.tenant_id == _TENANT, _LEADS.c.gone_at.is_(None))
    statement = select(_LEADS.c.id).where(*wanted).order_by(_LEADS.c.id.desc()).limit(size)
    return list(run(session, statement, writes=False).scalars())


# The oldest transaction of the server tells it at once. Where that one is old, the locks say whether it is of this
# database: what others do for hours elsewhere holds nobody up here. Transactions are numbered modulo 2^32 there.
_IS_PAST = """
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) + 0 * :tenant_id > :fence OR NOT EXISTS (
    SELECT 1 FROM pg_locks x JOIN pg_locks r ON r.virtualtransaction = x.virtualtransaction
    WHERE x.locktype = 'transactionid' AND x.granted AND x.mode = 'ExclusiveLock' AND r.locktype = 'relation'
      AND r.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((:fence - CAST(CAST(x.transactionid AS text) AS bigint)) & 4294967295) < 2147483648)
"""


def present_fence(session: Session) -> int:
    """A number below which are all transactions that may have begun before now; on SQLite there is one at a time."""
    if not is_postgresql(session):
        return 0
    statement = "SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint) + 0 * :tenant_id"
    return int(run(session, statement, writes=True).scalar_one())


def is_past(session: Session, fence: int) -> bool:
    """Whether all transactions that had begun when the fence was set have ended."""
    if not is_postgresql(session):
        return True
    return bool(run(session, _IS_PAST, {"fence": fence}, writes=False).scalar_one())


_MOVE = """
UPDATE marketing_score_contributions SET lead_id = :winner WHERE tenant_id = :tenant_id AND lead_id = :loser
AND {kinds} AND (score_id, rule, version, cause, turn) IN (
    SELECT score_id, rule, version, cause, turn FROM marketing_score_contributions
    WHERE tenant_id = :tenant_id AND lead_id = :loser AND {kinds} ORDER BY 1, 2, 3, 4, 5 LIMIT :size)
"""


def move_contributions(session: Session, loser: int, winner: int, size: int) -> int:
    """Up to ``size`` of the points that a merged lead had for what it did become the winner's."""
    bound = {"loser": loser, "winner": winner, "size": size}
    return int(run(session, _MOVE.format(kinds="kind = 'event'"), bound, writes=True).rowcount)  # type: ignore[attr-defined]


def move_given_points(session: Session, loser: int, winner: int, score_ids: Collection[int]) -> int:
    """Points that belong to no rule, of these scores, become the winner's."""
    statement = text(
        "UPDATE marketing_score_contributions SET lead_id = :winner WHERE tenant_id = :tenant_id AND lead_id = :loser"
        " AND version = 0 AND score_id IN :scores"
    ).bindparams(bindparam("scores", expanding=True))
    bound = {"loser": loser, "winner": winner, "scores": sorted(score_ids)}
    return int(run(session, statement, bound, writes=True).rowcount)  # type: ignore[attr-defined]


def clear_piece_of_score(session: Session, table: str, keys: Sequence[str], score_id: int, size: int) -> int:
    """Delete up to ``size`` rows of a score; fewer mean that none are left."""
    listed = ", ".join(keys)
    statement = (
        f"DELETE FROM {table} WHERE tenant_id = :tenant_id AND ({listed}) IN (SELECT {listed} FROM {table}"
        f" WHERE tenant_id = :tenant_id AND score_id = :score_id ORDER BY {listed} LIMIT :size)"
    )
    return int(run(session, statement, {"score_id": score_id, "size": size}, writes=True).rowcount)  # type: ignore[attr-defined]


def span(lead_id: int, since: datetime, until: datetime) -> dict[str, Any]:
    """A row for :func:`engagements_of`."""
    return {"lead_id": lead_id, "since": to_text(since), "until": to_text(until)}
