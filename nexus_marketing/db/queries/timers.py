"""SQL of timers: set, claim fairly over tenants, take, give back (DATABASE.md, Locks)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, TextClause, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.ahead import Question, ask, send
from nexus_marketing.db.queries.rowsets import Values, as_ids, columns_of, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import BigInt, Json, UtcDateTime, from_text, read_json

_NOW = bindparam("now", type_=UtcDateTime())
_AT = bindparam("at", type_=UtcDateTime())

_INTO = "INSERT INTO marketing_timers (tenant_id, campaign_id, type, key, trigger_at, payload, created_at)"
_ONE = " VALUES (:tenant_id, :campaign_id, :type, :key, :at, :payload, :now)"
# Behind a SELECT, SQLite takes ON for a join where there is no WHERE.
_MANY = " SELECT :tenant_id, NULL, :type, s.key, s.at, {payload}, :now FROM {source} WHERE true"
_SET = """
ON CONFLICT (tenant_id, type, key) DO UPDATE SET status = 'waiting', attempts = 0, crashes = 0, error = NULL,
  lease_until = NULL, lease_token = NULL, campaign_id = excluded.campaign_id, {moved}
"""
_BINDS = (_AT, _NOW, bindparam("payload", type_=Json), bindparam("campaign_id", type_=BigInt))
_MOVED = _SET.format(moved="trigger_at = excluded.trigger_at, payload = excluded.payload")
_MOVE = text(_INTO + _ONE + _MOVED).bindparams(*_BINDS)
_ADVANCE = text(
    _INTO
    + _ONE
    + _SET.format(moved="trigger_at = excluded.trigger_at")
    + " WHERE marketing_timers.trigger_at > excluded.trigger_at OR marketing_timers.status <> 'waiting'"
).bindparams(*_BINDS)


def set_timer(session: Session, values: Mapping[str, Any], *, earliest: bool) -> None:
    """Write a timer, or move the one of this type and key; ``earliest`` never moves it to a later moment."""
    send(session, _ADVANCE if earliest else _MOVE, values)


def set_timers(session: Session, type_: str, rows: Sequence[Values], now: datetime) -> None:
    """Write or move timers of one type: ``key``, ``at`` as canonical text, ``payload``; may be sent ahead.

    A payload that they all share, one and the same object, is sent once.
    """
    shared = rows[0]["payload"]
    columns, payload = {"key": "text", "at": "timestamptz", "payload": "jsonb"}, "s.payload"
    if all(row["payload"] is shared for row in rows):
        del columns["payload"]
        payload = ":alike"
    source, bound = columns_of(session, columns, rows)
    statement = _typed(_INTO + _MANY.format(payload=payload, source=source) + _MOVED)
    send(session, statement, {"alike": shared, **bound, "type": type_, "now": now})


@lru_cache(maxsize=20)
def _typed(statement: str) -> TextClause:
    known = text(statement)
    return known.bindparams(_NOW, *([bindparam("alike", type_=Json)] if ":alike" in statement else []))


def cancel_timer(session: Session, type_: str, key: str) -> bool:
    """Remove a timer; whether there was one."""
    statement = "DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND type = :type AND key = :key"
    return bool(run(session, statement, {"type": type_, "key": key}, writes=True).rowcount)  # type: ignore[attr-defined]


def cancel_timers(session: Session, type_: str, keys: Sequence[str]) -> None:
    """Remove timers of one type, those that are there; may be sent ahead."""
    source, bound = columns_of(session, {"key": "text"}, [{"key": key} for key in keys])
    mine = "tenant_id = :tenant_id AND type = :type"
    statement = f"DELETE FROM marketing_timers WHERE {mine} AND key IN (SELECT s.key FROM {source})"  # noqa: S608 - ours
    send(session, statement, {**bound, "type": type_})


#: A few of each tenant that has some due: a tenant with a million cannot keep the others waiting. Nor can as many as fill
#: a claim by themselves: tenants are looked at in another order each time, or in SQLite each once before any twice.
#: By their place on disk, which stays while they are locked, and never by reading all (``db.by_index``).
_CLAIM_POSTGRESQL = """
UPDATE marketing_timers m SET lease_until = nexus_after(:seconds), lease_token = :token, attempts = m.attempts + 1,
  crashes = m.crashes + CASE WHEN m.lease_token IS NULL THEN 0 ELSE 1 END
WHERE m.ctid = ANY(ARRAY(
  SELECT d.place
  FROM (SELECT id FROM marketing_tenants ORDER BY hashint8extended(id, :token)) t CROSS JOIN LATERAL (
    SELECT w.ctid AS place FROM marketing_timers w
    WHERE w.tenant_id = t.id AND w.status = 'waiting' AND w.trigger_at <= :now
      AND (w.lease_until IS NULL OR w.lease_until <= nexus_now())
    ORDER BY w.trigger_at LIMIT :each FOR UPDATE SKIP LOCKED) d
  LIMIT :most))
RETURNING m.tenant_id, m.id, m.type, m.key, m.trigger_at, m.payload, m.campaign_id, m.attempts, m.crashes
"""
_CLAIM_SQLITE = """
UPDATE marketing_timers SET lease_until = nexus_after(:seconds), lease_token = :token, attempts = attempts + 1,
  crashes = crashes + CASE WHEN lease_token IS NULL THEN 0 ELSE 1 END
WHERE id IN (
  SELECT id FROM (
    SELECT id, trigger_at, row_number() OVER (PARTITION BY tenant_id ORDER BY trigger_at) AS place
    FROM marketing_timers WHERE status = 'waiting' AND trigger_at <= :now
      AND (lease_until IS NULL OR lease_until <= nexus_now()))
  WHERE place <= :each ORDER BY place, trigger_at LIMIT :most)
RETURNING tenant_id, id, type, key, trigger_at, payload, campaign_id, attempts, crashes
"""


def claim_timers(
    session: Session, now: datetime, token: int, *, lease_seconds: float, each: int, most: int
) -> list[TimerFact]:
    """Lease due timers, at most ``each`` of one tenant and ``most`` in all; earliest first.

    The session is for all tenants, and opened ``by_index``.
    """
    statement = _CLAIM_POSTGRESQL if is_postgresql(session) else _CLAIM_SQLITE
    values = {"now": now, "token": token, "seconds": lease_seconds, "each": each, "most": most}
    rows = run_for_all(session, text(statement).bindparams(_NOW), values, writes=True)
    return sorted((_fact(row, token) for row in rows), key=attrgetter("trigger_at", "tenant_id", "id"))


def take_timer(session: Session, timer: TimerFact) -> bool:
    """Remove a leased timer, first of all in the transaction that fires it; ``False``: it is somebody else's now."""
    statement = (
        "DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND id = :id AND lease_token = :token RETURNING id"
    )
    return bool(ask(session, Question(statement, {"id": timer.id, "token": timer.token}, writes=True))())


def take_timers(session: Session, timers: Sequence[TimerFact]) -> set[int]:
    """As :func:`take_timer` for timers of the tenant and of one claim; answers the ids of those that were taken."""
    if not timers:
        return set()
    statement = (
        f"DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND id IN ({ids_of(session)})"  # noqa: S608 - ours
        " AND lease_token = :token RETURNING id"
    )
    values = {"ids": as_ids([each.id for each in timers]), "token": timers[0].token}
    return {row.id for row in ask(session, Question(statement, values, writes=True))()}


def hold_timer(session: Session, timer: TimerFact, seconds: float) -> bool:
    """Lengthen the lease of a timer before something that takes a while; ``False``: it is somebody else's now."""
    statement = (
        "UPDATE marketing_timers SET lease_until = nexus_after(:seconds)"
        " WHERE tenant_id = :tenant_id AND id = :id AND lease_token = :token"
    )
    values = {"id": timer.id, "token": timer.token, "seconds": seconds}
    return bool(run(session, statement, values, writes=True).rowcount)  # type: ignore[attr-defined]


_GIVE_BACK = text("""
UPDATE marketing_timers SET status = :status, trigger_at = :at, error = :error, lease_until = NULL, lease_token = NULL
WHERE tenant_id = :tenant_id AND id = :id AND lease_token = :token
""").bindparams(_AT)


def give_back(session: Session, timer: TimerFact, *, status: str, at: datetime, error: str) -> bool:
    """Let go of a timer that failed: to be tried again at ``at``, or dead; ``False``: it is somebody else's now."""
    values = {"id": timer.id, "token": timer.token, "status": status, "at": at, "error": error[:500]}
    return bool(run(session, _GIVE_BACK, values, writes=True).rowcount)  # type: ignore[attr-defined]


_LET_GO = """
UPDATE marketing_timers SET lease_until = NULL, lease_token = NULL, attempts = attempts - 1{moved}
WHERE tenant_id = :tenant_id AND id IN ({ids}) AND lease_token = :token
"""


def let_go(session: Session, timers: Sequence[TimerFact], at: datetime | None = None) -> None:
    """Give timers of the tenant and of one claim back that nobody has tried to fire: due as before, or at ``at``."""
    values: dict[str, Any] = {"ids": as_ids([each.id for each in timers]), "token": timers[0].token}
    statement = _LET_GO.format(ids=ids_of(session), moved="" if at is None else ", trigger_at = :at")
    if at is None:
        run(session, statement, values, writes=True)
    else:
        run(session, text(statement).bindparams(_AT), {**values, "at": at}, writes=True)


def dead_timers(session: Session, limit: int) -> Sequence[Row[Any]]:
    """Timers of all tenants that wait for an operator, oldest first."""
    statement = (
        "SELECT tenant_id, id, type, key, trigger_at, attempts, crashes, error FROM marketing_timers"
        " WHERE status = 'dead' ORDER BY trigger_at LIMIT :limit"
    )
    return run_for_all(session, statement, {"limit": limit}, writes=False).all()


def _fact(row: Row[Any], token: int) -> TimerFact:
    tenant_id, timer_id, type_, key, at, payload, campaign_id, attempts, crashes = tuple(row)
    moment = from_text(at) if isinstance(at, str) else at
    return TimerFact(tenant_id, timer_id, type_, key, moment, read_json(payload), campaign_id, attempts, crashes, token)
