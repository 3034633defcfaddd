"""Facts as SQL: how often something happened to a lead, where it belongs, what it allowed.

Two shapes of the same answer. For a few leads (``few``) each asks the index of its own events. For all of them the
events of a name are read once and grouped, which a million leads then join.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Double, Table, and_, bindparam, exists, false, func, literal, or_, select, tuple_

from nexus_marketing.core.conditions import Condition, Consented, EventCount, EventPick, InSegment, Operator, Scored
from nexus_marketing.core.conditions.facts import COMPARE, HUMAN, window
from nexus_marketing.core.conditions.tree import ConsentIs, Fact, Pick
from nexus_marketing.core.engagements import EngagementType
from nexus_marketing.db.models import Consent, Engagement, Score, ScoreValue, SegmentMember
from nexus_marketing.db.types import BigInt, UtcDateTime

Test = ColumnElement[bool]
_TENANT = bindparam("tenant_id", type_=BigInt)
_EVENTS = cast("Table", Engagement.__table__)
_MEMBERS = cast("Table", SegmentMember.__table__)
_CONSENTS = cast("Table", Consent.__table__)
_SCORES = cast("Table", Score.__table__)
_VALUES = cast("Table", ScoreValue.__table__)
_TYPES: Final = frozenset(EngagementType) - {EngagementType.CUSTOM}
#: Columns of an event by the first key of a condition's field.
EVENT_COLUMNS: Final = ("tracked_at", "type", "name", "channel", "campaign_id", "link", "metadata")


@dataclass(frozen=True, slots=True)
class Related:
    """How a statement reaches what belongs to its leads: ``lead`` is the column of their id."""

    lead: Any
    few: bool = False


def event_named(events: Any, event: str) -> Test:
    """Which rows are events of a name."""
    if event in _TYPES:
        return cast("Test", events.c.type == event)
    return and_(events.c.type == EngagementType.CUSTOM, events.c.name == event)


def compile_fact(
    fact: Fact, related: Related, dialect: str, now: datetime, nested: Callable[[Condition, Any], Test]
) -> Test:
    """The fact as a two-valued test.

    Args:
        fact: what is asked.
        related: whose.
        dialect: ``postgresql`` or ``sqlite``.
        now: the moment of the evaluation.
        nested: compiles a condition on an event, given its columns.
    """
    match fact:
        case InSegment():
            return _in_segment(fact, related)
        case Consented():
            return _consented(fact, related, now)
        case Scored():
            return _scored(fact, related)
        case EventCount():
            return _count(fact, related, dialect, now, nested)
    return _pick(fact, related, dialect, nested)


def _in_segment(fact: InSegment, related: Related) -> Test:
    members = _MEMBERS.alias()
    wanted = (
        members.c.tenant_id == _TENANT,
        members.c.segment_id == literal(int(fact.segment), BigInt),
        members.c.lead_id == related.lead,
    )
    return exists(select(literal(1)).select_from(members).where(*wanted))


def _scored(fact: Scored, related: Related) -> Test:
    """Most leads have no value of a score: it is 0, and so they are asked for by those that do not fit."""
    values, scores = _VALUES.alias(), _SCORES.alias()
    named = select(scores.c.id).where(scores.c.tenant_id == _TENANT, scores.c.name == fact.score)
    compare: Any = COMPARE[fact.operator]
    of_nothing = bool(compare(0, fact.number))
    fits = compare(values.c.value, literal(float(fact.number), Double))
    wanted = (
        values.c.tenant_id == _TENANT,
        values.c.score_id == named.scalar_subquery(),
        values.c.lead_id == related.lead,
        ~fits if of_nothing else fits,
    )
    found = exists(select(literal(1)).select_from(values).where(*wanted))
    return ~found if of_nothing else found


def _consented(fact: Consented, related: Related, now: datetime) -> Test:
    act, later = _CONSENTS.alias(), _CONSENTS.alias()

    def about(acts: Any, lead: Any) -> Test:
        return and_(
            acts.c.tenant_id == _TENANT,
            acts.c.lead_id == lead,
            acts.c.channel == fact.channel,
            acts.c.type == fact.type,
        )

    if fact.state is ConsentIs.NONE:
        return ~exists(select(literal(1)).select_from(act).where(about(act, related.lead)))
    moment = literal(now, UtcDateTime())
    granted = act.c.granted_at.is_not(None)
    says = {
        ConsentIs.REVOKED: act.c.granted_at.is_(None),
        ConsentIs.GRANTED: and_(granted, or_(act.c.expires_at.is_(None), act.c.expires_at > moment)),
        ConsentIs.EXPIRED: and_(granted, act.c.expires_at <= moment),
    }
    newer = (
        select(literal(1))
        .select_from(later)
        .where(about(later, act.c.lead_id), tuple_(later.c.at, later.c.id) > tuple_(act.c.at, act.c.id))
    )
    return exists(
        select(literal(1)).select_from(act).where(about(act, related.lead), says[fact.state], ~newer.exists())
    )


def _happened(
    fact: EventCount | EventPick, events: Any, nested: Callable[[Condition, Any], Test], now: datetime | None
) -> list[Test]:
    found: list[Test] = [events.c.tenant_id == _TENANT, event_named(events, fact.event)]
    if not fact.any_verdict:
        found.append(events.c.verdict == HUMAN)
    if isinstance(fact, EventCount) and now is not None:
        after, before = window(fact, now)
        if after is not None:
            found.append(events.c.tracked_at > literal(after, UtcDateTime()))
        if before is not None:
            found.append(events.c.tracked_at < literal(before, UtcDateTime()))
        if fact.test is not None:
            found.append(nested(fact.test, events))
    return found


def _count(
    fact: EventCount, related: Related, dialect: str, now: datetime, nested: Callable[[Condition, Any], Test]
) -> Test:
    def at_least(number: int) -> Test:
        return _having(related, dialect, _happened(fact, events, nested, now), events, number, None)

    events, number = _EVENTS.alias(), fact.number
    match fact.operator:
        case Operator.GREATER_EQUAL:
            return at_least(number) if number else ~false()
        case Operator.GREATER:
            return at_least(number + 1)
        case Operator.LESS_EQUAL:
            return ~at_least(number + 1)
        case Operator.LESS:
            return ~at_least(number) if number else false()
    if not number:
        return ~at_least(1)
    return _having(related, dialect, _happened(fact, events, nested, now), events, number, number)


def _having(related: Related, dialect: str, happened: list[Test], events: Any, least: int, most: int | None) -> Test:
    """Whether the number of events lies between ``least``, which is at least one, and ``most``."""
    number = func.count()
    enough = number >= least if most is None else number == most
    if related.few:
        own = (*happened, events.c.lead_id == related.lead)
        if least == 1 and most is None:
            return exists(select(literal(1)).select_from(events).where(*own))
        counted = select(number).select_from(events).where(*own).scalar_subquery()
        return counted >= least if most is None else counted == most
    leads = select(events.c.lead_id).where(*happened)
    if least > 1 or most is not None:
        leads = leads.group_by(events.c.lead_id).having(enough)
    return _is_one_of(related, dialect, leads)


def _is_one_of(related: Related, dialect: str, leads: Any) -> Test:
    """As PostgreSQL plans it as a join, also below NOT; as SQLite reads it once."""
    if dialect == "sqlite":
        return cast("Test", related.lead.in_(leads))
    found = leads.subquery()
    return exists(select(literal(1)).select_from(found).where(found.c.lead_id == related.lead))


def _pick(fact: EventPick, related: Related, dialect: str, nested: Callable[[Condition, Any], Test]) -> Test:
    events = _EVENTS.alias()
    happened = _happened(fact, events, nested, None)
    keys = (events.c.tracked_at, events.c.id)
    order = [key.desc() for key in keys] if fact.pick is Pick.LAST else [key.asc() for key in keys]
    is_so = nested(fact.test, events)
    if related.few:
        own = (*happened, events.c.lead_id == related.lead)
        chosen = select(is_so.label("is_so")).select_from(events).where(*own).order_by(*order).limit(1)
        return chosen.scalar_subquery().is_(True)
    place = func.row_number().over(partition_by=events.c.lead_id, order_by=order)
    ranked = select(events.c.lead_id, place.label("place"), is_so.label("is_so")).where(*happened).subquery()
    return _is_one_of(related, dialect, select(ranked.c.lead_id).where(ranked.c.place == 1, ranked.c.is_so.is_(True)))
