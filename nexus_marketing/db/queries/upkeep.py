"""SQL of keeping segments true: marks, membership of a few leads, who came and went (BEHAVIOUR.md 5.3)."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, cast

import orjson
from sqlalchemy import ColumnElement, Row, Table, bindparam, literal, select
from sqlalchemy.orm import Session

from nexus_marketing.core.segments import SegmentMove
from nexus_marketing.db.ahead import append_ahead
from nexus_marketing.db.conditions import event_named
from nexus_marketing.db.models import Consent, Engagement, SegmentMark
from nexus_marketing.db.queries.journeys import tell_moves
from nexus_marketing.db.queries.rowsets import as_ids, ids_of, is_postgresql
from nexus_marketing.db.queries.segments import LEADS
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import BigInt, UtcDateTime

EVENTS = cast("Table", Engagement.__table__)
CONSENTS = cast("Table", Consent.__table__)
_TENANT = bindparam("tenant_id", type_=BigInt)
#: Marks looked at in one go; each may stand for a thousand leads.
_MARKS = 2_000


def add_mark(session: Session, names: Sequence[str], lead_ids: Sequence[int], now: datetime) -> None:
    """Note in the caller's transaction that leads changed."""
    append_ahead(session, SegmentMark, names=list(names), lead_ids=list(lead_ids), marked_at=now)


def tenants_with_marks(session: Session) -> list[int]:
    """Tenants that have leads to look at."""
    rows = run_for_all(session, "SELECT DISTINCT tenant_id FROM marketing_segment_marks", writes=False)
    return [row.tenant_id for row in rows]


def read_marks(session: Session) -> list[Row[Any]]:
    """(id, names, lead_count, marked_at) of the tenant's oldest marks, which stay until :func:`forget_marks`."""
    length = "jsonb_array_length" if is_postgresql(session) else "json_array_length"
    statement = (
        f"SELECT id, names, marked_at, {length}(lead_ids) AS lead_count FROM marketing_segment_marks"
        f" WHERE tenant_id = :tenant_id ORDER BY id LIMIT {_MARKS}"
    )
    return list(run(session, statement, writes=False))


def marked_leads(session: Session, ids: Sequence[int]) -> dict[int, Any]:
    """The leads of each of a few marks."""
    statement = (
        f"SELECT id, lead_ids FROM marketing_segment_marks WHERE tenant_id = :tenant_id AND id IN ({ids_of(session)})"
    )
    return {row.id: row.lead_ids for row in run(session, statement, {"ids": as_ids(ids)}, writes=False)}


def forget_marks(session: Session, ids: Sequence[int]) -> None:
    """Remove marks whose leads were evaluated in this transaction."""
    statement = f"DELETE FROM marketing_segment_marks WHERE tenant_id = :tenant_id AND id IN ({ids_of(session)})"
    run(session, statement, {"ids": as_ids(ids)}, writes=True)


_TRY_TENANT = "SELECT pg_try_advisory_xact_lock(hashtextextended('segments of ' || CAST(:tenant_id AS text), 0))"
_TRY_SEGMENTS = """
SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:ids AS json))
WHERE pg_try_advisory_xact_lock(hashtextextended('segment ' || CAST(:tenant_id AS text) || ' ' || value, 0))
"""
_WAIT_SEGMENT = (
    "SELECT pg_advisory_xact_lock(hashtextextended('segment ' || CAST(:tenant_id AS text) || ' ' || :segment, 0))"
)
_WAIT_RULES = "SELECT pg_advisory_xact_lock(hashtextextended('segment rules ' || CAST(:tenant_id AS text), 0))"
_FREE_SEGMENTS = """
SELECT id FROM marketing_segments WHERE tenant_id = :tenant_id AND id IN (SELECT value FROM json_each(:ids))
  AND (building_until IS NULL OR building_until <= nexus_now())
"""


def try_upkeep(session: Session) -> bool:
    """Whether this transaction alone keeps the tenant's segments; on SQLite the only writer does."""
    return not is_postgresql(session) or bool(run(session, _TRY_TENANT, writes=False).scalar_one())


def try_segments(session: Session, ids: Collection[int]) -> set[int]:
    """Those of the segments that nobody computes as a whole meanwhile; nobody can until this transaction ends."""
    statement = _TRY_SEGMENTS if is_postgresql(session) else _FREE_SEGMENTS
    return set(run(session, statement, {"ids": as_ids(sorted(ids))}, writes=False).scalars()) if ids else set()


def wait_for_segment(session: Session, segment_id: int) -> None:
    """Until this transaction ends nobody else computes the segment (PostgreSQL)."""
    if is_postgresql(session):
        run(session, _WAIT_SEGMENT, {"segment": str(segment_id)}, writes=False)


_BUILD = """
UPDATE marketing_segments SET building_until = nexus_after(:seconds)
WHERE tenant_id = :tenant_id AND id = :segment_id AND (:mine OR building_until IS NULL OR building_until <= nexus_now())
"""


def lock_rules(session: Session) -> None:
    """Until this transaction ends nobody else changes which segments read which (PostgreSQL)."""
    if is_postgresql(session):
        run(session, _WAIT_RULES, writes=False)


def hold_segment(session: Session, segment_id: int, seconds: float, *, mine: bool) -> bool:
    """Keep upkeep and others away while a segment is computed in pieces (SQLite); ``mine`` renews."""
    values = {"segment_id": segment_id, "seconds": seconds, "mine": mine}
    return bool(run(session, _BUILD, values, writes=True).rowcount)  # type: ignore[attr-defined]


def memberships(session: Session, lead_ids: Sequence[int]) -> dict[int, set[int]]:
    """The segments of each of a few leads."""
    statement = (
        "SELECT lead_id, segment_id FROM marketing_segment_members"
        f" WHERE tenant_id = :tenant_id AND lead_id IN ({ids_of(session)})"
    )
    found: dict[int, set[int]] = {lead_id: set() for lead_id in lead_ids}
    for row in run(session, statement, {"ids": as_ids(lead_ids)}, writes=False):
        found[row.lead_id].add(row.segment_id)
    return found


def lead_records(session: Session, lead_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Leads by the names of their columns, as conditions read them; those that are gone are left out."""
    wanted = select(LEADS).where(LEADS.c.tenant_id == _TENANT, LEADS.c.id.in_(lead_ids), LEADS.c.gone_at.is_(None))
    return [dict(row) for row in run(session, wanted, writes=False).mappings()]


def matching(session: Session, test: ColumnElement[bool], lead_ids: Sequence[int]) -> set[int]:
    """Those of a few leads that satisfy a condition."""
    wanted = (LEADS.c.tenant_id == _TENANT, LEADS.c.id.in_(lead_ids), LEADS.c.gone_at.is_(None), test)
    return set(run(session, select(LEADS.c.id).where(*wanted), writes=False).scalars())


Move = tuple[int, int, str]
"""Segment, lead, ``entered`` or ``left``."""


def moves_of(segment_id: int, came: Iterable[int], went: Iterable[int]) -> list[Move]:
    """The moves of one segment."""
    entered = [(segment_id, lead_id, str(SegmentMove.ENTERED)) for lead_id in came]
    return entered + [(segment_id, lead_id, str(SegmentMove.LEFT)) for lead_id in went]


_ENTER = """
INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
SELECT s.tenant_id, s.id, m.lead_id, nexus_now(), s.generation FROM ({moves}) m
JOIN marketing_segments s ON s.tenant_id = :tenant_id AND s.id = m.segment_id
WHERE m.change = 'entered' ORDER BY 2, 3 ON CONFLICT DO NOTHING
"""
_LEAVE = """
DELETE FROM marketing_segment_members WHERE tenant_id = :tenant_id AND (segment_id, lead_id) IN (
  SELECT m.segment_id, m.lead_id FROM ({moves}) m WHERE m.change = 'left')
"""
_NOTE = """
INSERT INTO marketing_segment_changes (tenant_id, segment_id, lead_id, change, cause, generation, at)
SELECT s.tenant_id, s.id, m.lead_id, m.change, :cause, s.generation + :ahead, nexus_now() FROM ({moves}) m
JOIN marketing_segments s ON s.tenant_id = :tenant_id AND s.id = m.segment_id ORDER BY 2, 3
"""
# Rows in the order of their ids: others count at the same time.
_COUNT = """
UPDATE marketing_segments SET lead_count = lead_count + (
  SELECT sum(CASE WHEN m.change = 'entered' THEN 1 ELSE -1 END) FROM ({moves}) m WHERE m.segment_id = marketing_segments.id)
WHERE tenant_id = :tenant_id AND id IN (
  SELECT id FROM marketing_segments WHERE tenant_id = :tenant_id AND id IN (SELECT m.segment_id FROM ({moves}) m)
  ORDER BY id{lock})
"""
_MOVES_POSTGRESQL = (
    "SELECT CAST(e ->> 0 AS bigint) AS segment_id, CAST(e ->> 1 AS bigint) AS lead_id, e ->> 2 AS change"
    " FROM json_array_elements(CAST(:moves AS json)) e"
)
_MOVES_SQLITE = (
    "SELECT e.value ->> 0 AS segment_id, e.value ->> 1 AS lead_id, e.value ->> 2 AS change FROM json_each(:moves) e"
)


def apply_moves(session: Session, moves: Sequence[Move], cause: str) -> None:
    """Write who entered and who left, count them, and note each."""
    if not moves:
        return
    count_moves(session, moves, cause)
    kinds = {change for _, _, change in moves}
    for kind, statement in (("entered", _ENTER), ("left", _LEAVE)):
        if kind in kinds:
            run(session, statement.format(moves=_source(session)), {"moves": _as_moves(moves)}, writes=True)


def count_moves(session: Session, moves: Sequence[Move], cause: str) -> None:
    """Count and note moves whose membership is written elsewhere."""
    if moves:
        lock = " FOR UPDATE" if is_postgresql(session) else ""
        counting = _COUNT.format(moves=_source(session), lock=lock)
        run(session, counting, {"moves": _as_moves(moves)}, writes=True)
        note_moves(session, moves, cause)


def _source(session: Session) -> str:
    return _MOVES_POSTGRESQL if is_postgresql(session) else _MOVES_SQLITE


def _as_moves(moves: Sequence[Move]) -> str:
    return orjson.dumps(moves).decode()


def note_moves(session: Session, moves: Sequence[Move], cause: str, *, ahead: int = 0) -> None:
    """Note moves that are written and counted elsewhere; ``ahead`` of the segment's generation by so much."""
    if moves:
        bound = {"moves": _as_moves(moves), "cause": cause, "ahead": ahead}
        run(session, _NOTE.format(moves=_source(session)), bound, writes=True)
        tell_moves(session, _source(session), {"moves": bound["moves"], "ahead": ahead})


def leads_between(session: Session, value: Any, low: Any, high: Any) -> list[int]:
    """Living leads whose value lies between two moments, both included."""
    wanted = (LEADS.c.tenant_id == _TENANT, LEADS.c.gone_at.is_(None), value >= low, value <= high)
    return list(run(session, select(LEADS.c.id).where(*wanted).order_by(LEADS.c.id), writes=False).scalars())


def least_above(session: Session, value: Any, low: Any, lead_ids: Sequence[int] | None) -> Any:
    """The least value that is not below ``low``, of all living leads or of a few."""
    wanted = [LEADS.c.tenant_id == _TENANT, LEADS.c.gone_at.is_(None), value >= low]
    if lead_ids is not None:
        wanted.append(LEADS.c.id.in_(lead_ids))
    least = select(value).where(*wanted).order_by(value).limit(1)
    return run(session, least, writes=False).scalar()


def leads_of_events(session: Session, event: str, after: datetime, until: datetime) -> set[int]:
    """Leads to whom an event happened after one moment and until another."""
    wanted = (
        EVENTS.c.tenant_id == _TENANT,
        event_named(EVENTS, event),
        EVENTS.c.tracked_at > literal(after, UtcDateTime()),
        EVENTS.c.tracked_at <= literal(until, UtcDateTime()),
    )
    return set(run(session, select(EVENTS.c.lead_id).where(*wanted), writes=False).scalars())


def first_event_after(session: Session, event: str, after: datetime, lead_ids: Sequence[int] | None) -> datetime | None:
    """When an event first happened after a moment, to anybody or to a few."""
    wanted = [
        EVENTS.c.tenant_id == _TENANT,
        event_named(EVENTS, event),
        EVENTS.c.tracked_at > literal(after, UtcDateTime()),
    ]
    if lead_ids is not None:
        wanted.append(EVENTS.c.lead_id.in_(lead_ids))
    first = select(EVENTS.c.tracked_at).where(*wanted).order_by(EVENTS.c.tracked_at).limit(1)
    return cast("datetime | None", run(session, first, writes=False).scalar())


def leads_of_consents(session: Session, channel: str, type_: str, after: datetime, until: datetime) -> set[int]:
    """Leads of whom an act of consent ended after one moment and until another."""
    wanted = [*_consents(channel, type_, after), CONSENTS.c.expires_at <= literal(until, UtcDateTime())]
    return set(run(session, select(CONSENTS.c.lead_id).where(*wanted), writes=False).scalars())


def first_expiry_after(
    session: Session, channel: str, type_: str, after: datetime, lead_ids: Sequence[int] | None
) -> datetime | None:
    """When an act of consent, of anybody or of a few, ends first after a moment."""
    wanted = _consents(channel, type_, after)
    if lead_ids is not None:
        wanted.append(CONSENTS.c.lead_id.in_(lead_ids))
    first = select(CONSENTS.c.expires_at).where(*wanted).order_by(CONSENTS.c.expires_at).limit(1)
    return cast("datetime | None", run(session, first, writes=False).scalar())


def _consents(channel: str, type_: str, after: datetime) -> list[ColumnElement[bool]]:
    return [
        CONSENTS.c.tenant_id == _TENANT,
        CONSENTS.c.channel == channel,
        CONSENTS.c.type == type_,
        CONSENTS.c.expires_at > literal(after, UtcDateTime()),
    ]
