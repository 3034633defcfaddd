"""SQL of journeys that run: who listens, the messages of runs in the ledger, and ends of many runs at once."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.journeys.runs import LIVE, RunState
from nexus_marketing.core.timers import TimerStatus
from nexus_marketing.db.ahead import Question, ask
from nexus_marketing.db.queries.deliveries import WITHHELD
from nexus_marketing.db.queries.rowsets import as_ids, columns_of, ids_of, is_postgresql, of_tenant
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import UtcDateTime

#: Timers of runs, of things that journeys listen to, and of work on many runs.
RUN_DUE: Final = "journey.run"
MOVED: Final = "journey.segment"
HAPPENED: Final = "journey.event"
CHANGED: Final = "journey.change"
CALL_DUE: Final = "journey.call"
ENDED: Final = "journey.ended"
REDATE: Final = "journey.redate"
SCORED: Final = "journey.score"
#: A plugin is to be asked who comes.
ASK: Final = "journey.ask"
#: The rest of a segment that is let in a piece at a time, by journey and segment.
BACKFILL: Final = "journey.backfill"
#: What journeys with date triggers listen to among changes.
DATES: Final = "dates"
#: A run takes this many numbers of occurrences in the ledger: one for each node it comes to, at most 10,000.
VISITS: Final = 1 << 14
_LIVE: Final = ", ".join(f"'{state}'" for state in sorted(LIVE))
_NOW = bindparam("now", type_=UtcDateTime())


def occurrence_of(run_id: int, visit: int) -> int:
    """What tells the message of one visit of one run from all others in the ledger."""
    return run_id * VISITS + visit


_LISTENED = """
SELECT name FROM marketing_journey_listeners WHERE tenant_id = :tenant_id AND kind = 'event'
UNION SELECT name FROM marketing_campaign_listeners WHERE tenant_id = :tenant_id
"""


def events_listened(session: Session) -> Callable[[], frozenset[str]]:
    """Of which events any journey or campaign of the tenant wants to hear: told by what is answered (``db.ahead.ask``)."""
    answer = ask(session, Question(_LISTENED, {}))
    return lambda: frozenset(row.name for row in answer())


_TIMER = "INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)"
_EMPTY_PG, _EMPTY = "CAST('{}' AS jsonb)", "'{}'"
_TELL_CHANGE = (
    _TIMER
    + """
SELECT DISTINCT r.tenant_id, 'journey.change', CAST(r.lead_id AS text), :now, {empty}, :now
FROM marketing_journey_runs r
WHERE r.tenant_id = :tenant_id AND r.lead_id IN ({ids}) AND r.state IN ({live}) AND EXISTS (
  SELECT 1 FROM marketing_journey_listeners l
  WHERE l.tenant_id = :tenant_id AND l.kind = 'change' AND l.name = '' AND l.journey_id = r.journey_id)
ORDER BY 3
ON CONFLICT (tenant_id, type, key) DO UPDATE SET trigger_at = excluded.trigger_at, status = 'waiting', attempts = 0,
  crashes = 0, error = NULL, lease_until = NULL, lease_token = NULL
"""
)


_TELL_DATES = (
    _TIMER
    + """
SELECT l.tenant_id, 'journey.redate', CAST(l.id AS text), :now, {empty}, :now FROM marketing_leads l
WHERE l.tenant_id = :tenant_id AND l.id IN ({ids}) AND EXISTS (SELECT 1 FROM marketing_journey_listeners j
  WHERE j.tenant_id = :tenant_id AND j.kind = 'change' AND j.name = 'dates')
ORDER BY 3
ON CONFLICT (tenant_id, type, key) DO UPDATE SET trigger_at = excluded.trigger_at, status = 'waiting', attempts = 0,
  crashes = 0, error = NULL, lease_until = NULL, lease_token = NULL
"""
)


def tell_change(session: Session, lead_ids: Sequence[int], now: datetime) -> None:
    """Have the runs of changed leads looked at, where their journeys read what leads are, and dates that bring them in."""
    empty = _EMPTY_PG if is_postgresql(session) else _EMPTY
    for told in (_TELL_CHANGE, _TELL_DATES):
        statement = text(told.format(ids=ids_of(session), live=_LIVE, empty=empty)).bindparams(_NOW)
        run(session, statement, {"ids": as_ids(lead_ids), "now": now}, writes=True)


# The segment's generation and the moment make it an occurrence of its own, told once however often it is looked at.
_TELL_MOVES = (
    _TIMER
    + """
SELECT s.tenant_id, 'journey.segment',
  m.change || ':' || CAST(s.id AS text) || ':' || CAST(m.lead_id AS text) || ':'
    || CAST(s.generation + :ahead AS text) || ':' || CAST(nexus_now() AS text),
  nexus_now(), {empty}, nexus_now()
FROM ({moves}) m JOIN marketing_segments s ON s.tenant_id = :tenant_id AND s.id = m.segment_id
WHERE EXISTS (SELECT 1 FROM marketing_journey_listeners l
  WHERE l.tenant_id = :tenant_id AND l.kind = m.change AND l.name = CAST(m.segment_id AS text))
ORDER BY 3 ON CONFLICT (tenant_id, type, key) DO NOTHING
"""
)


def tell_moves(session: Session, moves: str, values: Mapping[str, Any]) -> None:
    """Have journeys hear who entered and left segments.

    Args:
        session: in whose transaction membership changes.
        moves: SQL of (segment_id, lead_id, change).
        values: its parameters, and ``ahead`` of the segment's generation by how much.
    """
    empty = _EMPTY_PG if is_postgresql(session) else _EMPTY
    run(session, _TELL_MOVES.format(moves=moves, empty=empty), values, writes=True)


#: Of a delivery ``d``: what a worker holds may be on the wire, and is settled by whoever holds it.
IN_NO_HANDS: Final = """NOT EXISTS (
    SELECT 1 FROM marketing_delivery_chunks c WHERE c.tenant_id = :tenant_id AND c.send_id = d.send_id
      AND c.closed_at IS NULL AND c.lease_until IS NOT NULL AND d.seq BETWEEN c.seq_lo AND c.seq_hi)"""
_WITHDRAW = f"""
UPDATE marketing_deliveries AS d SET {WITHHELD.format(reason="'cancelled'")}
WHERE d.tenant_id = :tenant_id AND d.lead_id = :lead_id AND d.occurrence = :occurrence AND d.step <> ''
  AND d.state = 'planned' AND {IN_NO_HANDS}
"""


def withdraw_messages(session: Session, lead_id: int, occurrence: int) -> int:
    """Settle what one visit wrote and nobody has taken up yet; answers how many."""
    bound = {"lead_id": lead_id, "occurrence": occurrence}
    return int(run(session, _WITHDRAW, bound, writes=True).rowcount)  # type: ignore[attr-defined]


_TO_TELL = """
SELECT d.tenant_id, d.send_id, d.seq, d.occurrence, d.channel, d.state, d.reason FROM marketing_deliveries d
WHERE d.step <> '' AND d.settled_at IS NOT NULL AND d.told_at IS NULL AND d.tenant_id > :after AND d.tenant_id <= :until
  AND (SELECT s.status FROM marketing_sends s WHERE s.tenant_id = d.tenant_id AND s.id = d.send_id) <> 'paused'
ORDER BY d.tenant_id, d.send_id, d.seq LIMIT :size
"""
_LAST_TENANT: Final = (1 << 63) - 1


def messages_to_tell(session: Session, after: int = 0, size: int = 500) -> list[Row[Any]]:
    """Settled messages whose runs do not know it yet; a pause keeps them waiting.

    Args:
        session: that sees all tenants.
        after: tenants behind this one come first, then the others: one with a million keeps nobody waiting.
        size: how many at most.

    Returns:
        (tenant_id, send_id, seq, occurrence, channel, state, reason) of each; those of a tenant stand together.
    """
    found = run_for_all(session, _TO_TELL, {"after": after, "until": _LAST_TENANT, "size": size}, writes=False).all()
    left = size - len(found)
    if not after or not left:
        return [*found]
    return [*found, *run_for_all(session, _TO_TELL, {"after": 0, "until": after, "size": left}, writes=False)]


_TAKE_OUTCOME = """
UPDATE marketing_deliveries SET told_at = nexus_now()
WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq = :seq AND told_at IS NULL AND settled_at IS NOT NULL
RETURNING occurrence, channel, state, reason
"""


def take_outcome(session: Session, send_id: int, seq: int) -> Row[Any] | None:
    """Note that a run is told in this transaction; ``None``: somebody else tells it."""
    return run(session, _TAKE_OUTCOME, {"send_id": send_id, "seq": seq}, writes=True).first()


_TAKE_OUTCOMES = """
UPDATE marketing_deliveries SET told_at = nexus_now() FROM {source}
WHERE {of_tenant} AND marketing_deliveries.send_id = s.send_id AND marketing_deliveries.seq = s.seq
  AND marketing_deliveries.state = s.state AND marketing_deliveries.told_at IS NULL
RETURNING marketing_deliveries.send_id, marketing_deliveries.seq
"""


def take_outcomes(session: Session, rows: Sequence[Row[Any]]) -> set[tuple[int, int]]:
    """As :func:`take_outcome` for many, where they stand as they did; answers send and seq of those taken."""
    if not rows:
        return set()
    columns = {"send_id": "bigint", "seq": "bigint", "state": "text"}
    source, bound = columns_of(session, columns, [{name: getattr(row, name) for name in columns} for row in rows])
    statement = _TAKE_OUTCOMES.format(source=source, of_tenant=of_tenant(session, "marketing_deliveries"))
    return {(row.send_id, row.seq) for row in ask(session, Question(statement, bound, writes=True))()}


def outcome_of(session: Session, send_id: int, seq: int) -> Row[Any] | None:
    """The same of a message that nobody has to take any more."""
    wanted = (
        "SELECT occurrence, channel, state, reason FROM marketing_deliveries"
        " WHERE tenant_id = :tenant_id AND send_id = :send_id AND seq = :seq"
    )
    return run(session, wanted, {"send_id": send_id, "seq": seq}, writes=False).first()


_END = f"""
UPDATE marketing_journey_runs SET state = :state, reason = :reason, ended_at = :now, wake_at = NULL,
  version = version + 1, wait_token = wait_token + 1
WHERE tenant_id = :tenant_id AND id IN (
  SELECT r.id FROM marketing_journey_runs r
  WHERE r.tenant_id = :tenant_id AND {{whose}} AND r.state IN ({_LIVE}) ORDER BY r.id LIMIT :size)
RETURNING id, node
"""
_WHOSE = {"run": "r.id IN ({ids})", "lead": "r.lead_id IN ({ids})", "journey": "r.journey_id IN ({ids})"}
_NOTE = text(
    "INSERT INTO marketing_journey_steps (tenant_id, run_id, at, said, node, detail)"
    " VALUES (:tenant_id, :run_id, :now, 'ended', :node, :detail)"
).bindparams(_NOW)
_FORGET = "DELETE FROM marketing_timers WHERE tenant_id = :tenant_id AND type = 'journey.run' AND status <> 'dead' AND key = :key"
_CLOSE = text(
    "UPDATE marketing_journey_approvals SET closed_at = :now, answer = 'expired'"
    " WHERE tenant_id = :tenant_id AND run_id = :run_id AND closed_at IS NULL"
).bindparams(_NOW)


def end_runs(
    session: Session,
    whose: str,
    ids: Sequence[int],
    reason: str,
    now: datetime,
    size: int,
    *,
    state: RunState = RunState.EXITED,
) -> list[int]:
    """End up to ``size`` live runs of leads (``lead``), of journeys (``journey``) or by their ids (``run``), with their
    timers and questions; answers their ids.
    """
    statement = text(_END.format(whose=_WHOSE[whose].format(ids=ids_of(session)))).bindparams(_NOW)
    bound = {"ids": as_ids(ids), "reason": reason, "now": now, "size": size, "state": str(state)}
    ended = run(session, statement, bound, writes=True).all()
    if not ended:
        return []
    detail = orjson.dumps({"state": str(state), "reason": reason}).decode()
    kind = "CAST(:detail AS jsonb)" if is_postgresql(session) else ":detail"
    note = text(str(_NOTE).replace(":detail", kind)).bindparams(_NOW)
    run(
        session,
        note,
        [{"run_id": row.id, "node": row.node, "now": now, "detail": detail} for row in ended],
        writes=True,
    )
    run(session, _FORGET, [{"key": str(row.id)} for row in ended], writes=True)
    run(session, _CLOSE, [{"run_id": row.id, "now": now} for row in ended], writes=True)
    return [row.id for row in ended]


_FATES = """
SELECT state FROM marketing_deliveries
WHERE tenant_id = :tenant_id AND lead_id = :lead_id AND occurrence = :occurrence AND step <> ''
"""


def fates_of(session: Session, lead_id: int, run_id: int, visit: int) -> list[str]:
    """What became of the messages of one visit, by the ledger."""
    bound = {"lead_id": lead_id, "occurrence": occurrence_of(run_id, visit)}
    return list(run(session, _FATES, bound, writes=False).scalars())


_FOLLOW = f"""
UPDATE marketing_journey_runs SET lead_id = :winner, version = version + 1
WHERE tenant_id = :tenant_id AND lead_id = :loser AND state IN ({_LIVE}) AND NOT EXISTS (
  SELECT 1 FROM marketing_journey_runs o WHERE o.tenant_id = :tenant_id AND o.lead_id = :winner
    AND o.journey_id = marketing_journey_runs.journey_id)
"""


def follow_runs(session: Session, loser: int, winner: int) -> int:
    """Live runs of a merged lead become the winner's, in journeys that the winner never was in."""
    return int(run(session, _FOLLOW, {"loser": loser, "winner": winner}, writes=True).rowcount)  # type: ignore[attr-defined]


_LATE = text(f"""
SELECT id FROM marketing_journey_runs
WHERE tenant_id = :tenant_id AND journey_id = :journey_id AND state IN ({_LIVE}) AND wake_at <= :now AND id > :after
ORDER BY id LIMIT :size
""").bindparams(_NOW)
_HURRY = f"""
UPDATE marketing_timers SET trigger_at = :now
WHERE tenant_id = :tenant_id AND status = '{TimerStatus.WAITING}' AND trigger_at > :now AND {{which}}
"""
_OF_RUNS = "type = 'journey.run' AND key IN (SELECT s.key FROM {source})"
_HELD_BACK = f"""
(type = 'journey.held' OR (type = '{BACKFILL}' AND key LIKE CAST(:journey_id AS text) || ':%'))
"""


def hurry_runs(session: Session, journey_id: int, now: datetime, after: int, size: int) -> int | None:
    """Have runs that a pause put off go on at once, those behind run ``after``; one that was not late keeps its moment.

    Returns:
        The run after which there may be more, or nothing where these were the last.
    """
    bound = {"journey_id": journey_id, "now": now, "after": after, "size": size}
    late = [row.id for row in run(session, _LATE, bound, writes=False)]
    if late:
        source, keys = columns_of(session, {"key": "text"}, [{"key": str(run_id)} for run_id in late])
        statement = text(_HURRY.format(which=_OF_RUNS.format(source=source))).bindparams(_NOW)
        run(session, statement, {**keys, "now": now}, writes=True)
    return late[-1] if len(late) == size else None


def hurry_others(session: Session, journey_id: int, now: datetime) -> None:
    """What else a pause put off is due at once: events that runs have yet to hear of, and members who have yet to come in."""
    statement = text(_HURRY.format(which=_HELD_BACK)).bindparams(_NOW)
    run(session, statement, {"journey_id": journey_id, "now": now}, writes=True)


_EVENTS = """
SELECT e.id, e.tracked_at, e.type, e.name, e.verdict, e.channel, e.campaign_id, e.metadata, d.occurrence, d.step
FROM marketing_engagements e LEFT JOIN marketing_deliveries d
  ON d.tenant_id = :tenant_id AND d.send_id = e.send_id AND d.seq = e.seq AND d.step <> ''
WHERE e.tenant_id = :tenant_id AND e.lead_id = :lead_id {which} ORDER BY e.tracked_at DESC, e.id DESC LIMIT :most
"""
_AT = text(_EVENTS.format(which="AND e.tracked_at = :at")).bindparams(bindparam("at", type_=UtcDateTime()))


def newest_events(session: Session, lead_id: int, most: int) -> Sequence[Row[Any]]:
    """What a lead did, newest first; of what it did with a message of a journey also which that was."""
    return run(session, _EVENTS.format(which=""), {"lead_id": lead_id, "most": most}, writes=False).all()


def events_at(session: Session, lead_id: int, at: datetime, most: int) -> Sequence[Row[Any]]:
    """The same at one moment."""
    return run(session, _AT, {"lead_id": lead_id, "at": at, "most": most}, writes=False).all()


_SCORES = """
SELECT s.name, v.value FROM marketing_score_values v
JOIN marketing_scores s ON s.tenant_id = :tenant_id AND s.id = v.score_id AND s.removed_at IS NULL
WHERE v.tenant_id = :tenant_id AND v.lead_id = :lead_id
"""
_CONSENTS = """
SELECT channel, type, granted_at, expires_at FROM marketing_consents
WHERE tenant_id = :tenant_id AND lead_id = :lead_id ORDER BY at, id
"""


def score_values(session: Session, lead_id: int) -> dict[str, float]:
    """A lead's named scores."""
    return {row.name: row.value for row in run(session, _SCORES, {"lead_id": lead_id}, writes=False)}


def consent_acts(session: Session, lead_id: int) -> Sequence[Row[Any]]:
    """A lead's acts of consent, the newest last."""
    return run(session, _CONSENTS, {"lead_id": lead_id}, writes=False).all()


def known_segments(session: Session, names: Collection[str]) -> dict[str, Row[Any]]:
    """Segments by what they were called: by name, or by id in digits."""
    return _known(session, "SELECT id, name, kind FROM marketing_segments", names)


def known_journeys(session: Session, names: Collection[str]) -> dict[str, Row[Any]]:
    """Journeys in the same way."""
    return _known(session, "SELECT id, name FROM marketing_journeys", names)


def _known(session: Session, select: str, names: Collection[str]) -> dict[str, Row[Any]]:
    if not names:
        return {}
    rows = run(
        session,
        text(f"{select} WHERE tenant_id = :tenant_id AND (name IN :names OR CAST(id AS text) IN :names)").bindparams(
            bindparam("names", expanding=True)
        ),
        {"names": sorted(names)},
        writes=False,
    ).all()
    return {str(row.id): row for row in rows} | {row.name: row for row in rows}
