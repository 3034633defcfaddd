"""What a condition reads, and when the clock alone will change its answer.

Segments use both: a change marks only the rules that depend on it, and a rule that reads the
clock is looked at again exactly when it may flip (BEHAVIOUR.md 5.3).
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from nexus_marketing.core.conditions.check import comparison_type
from nexus_marketing.core.conditions.clock import EARLIEST, LATEST, Evaluation, is_zone, start_of_day
from nexus_marketing.core.conditions.evaluate import closures, operand, reader
from nexus_marketing.core.conditions.facts import flips
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.schema import Dependencies, Record, Schema
from nexus_marketing.core.conditions.tree import (
    FACTS,
    Clock,
    ClockKind,
    Condition,
    Consented,
    ConsentIs,
    Custom,
    EventCount,
    Fact,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Scored,
    expressions,
    leaves,
    parts,
)

_TICK = timedelta(microseconds=1)
_DAY_SECONDS = 86_400


def dependencies(condition: Condition, schema: Schema) -> Dependencies:
    """Fields (canonical names), events, segments and whether the clock is read."""
    asked = (each.name for each in leaves(condition) if isinstance(each, Custom))
    found = Dependencies(conditions=frozenset(f"{name}@{schema.operator(name).version}" for name in asked))
    for leaf in leaves(normalise(condition, schema)):
        if isinstance(leaf, Custom):
            found |= schema.operator(leaf.name).depends_on
            continue
        if isinstance(leaf, FACTS):
            found |= _read_by(leaf)
            continue
        flat = [part for expression in expressions(leaf) for part in parts(expression)]
        names = {part.name for part in flat if isinstance(part, FieldRef)}
        clocks = [part for part in flat if isinstance(part, Clock)]
        if any(clock.kind is ClockKind.LOCAL_TODAY for clock in clocks):
            names.add(schema.zone_field)
        found |= Dependencies(fields=frozenset(names), clock=bool(clocks))
    return found


def _read_by(fact: Fact) -> Dependencies:
    match fact:
        case InSegment():
            return Dependencies(segments=frozenset({str(fact.segment)}))
        case Scored():
            return Dependencies(scores=frozenset({fact.score}))
        case Consented():
            by_clock = fact.state in {ConsentIs.GRANTED, ConsentIs.EXPIRED}
            return Dependencies(consents=frozenset({fact.channel}), clock=by_clock)
        case EventCount():
            return Dependencies(events=frozenset({fact.event}), clock=fact.within_seconds is not None)
    return Dependencies(events=frozenset({fact.event}))


def clock_leaves(condition: Condition, schema: Schema) -> tuple[Leaf, ...]:
    """The leaves that compare with the clock, in normal form: each has one boundary that moves."""
    return tuple(
        leaf
        for leaf in leaves(normalise(condition, schema))
        if isinstance(leaf, Leaf) and any(isinstance(expression, Clock) for expression in expressions(leaf))
    )


def next_flip(condition: Condition, schema: Schema, record: Record, evaluation: Evaluation) -> datetime | None:
    """The first instant after ``evaluation.now`` at which the clock changes the answer for this record.

    None when it never does. A plugin condition that reads the clock, and a date that is in no
    calendar, are looked at again at the next midnight: early is allowed, late is not.
    """
    normal = normalise(condition, schema)
    candidates: set[datetime] = set()
    has_unknown = False
    for leaf in leaves(normal):
        if isinstance(leaf, Custom):
            has_unknown |= schema.operator(leaf.name).depends_on.clock
            continue
        if isinstance(leaf, FACTS):
            candidates.update(flips(leaf, record))
            continue
        try:
            candidates.update(_candidates(leaf, schema, record, evaluation))
        except ValueError:
            has_unknown = True
    flip = _first_change(normal, schema, record, evaluation, candidates)
    if not has_unknown:
        return flip
    midnight = start_of_day(evaluation.today + timedelta(days=1), evaluation.zone)
    return midnight if flip is None else min(flip, midnight)


def _first_change(
    normal: Condition, schema: Schema, record: Record, evaluation: Evaluation, candidates: Iterable[datetime]
) -> datetime | None:
    predicate = closures(normal, schema)
    before = predicate(record, evaluation)
    for moment in sorted(candidates):
        if moment > evaluation.now and predicate(record, Evaluation(moment, evaluation.zone)) is not before:
            return moment
    return None


def _candidates(leaf: Leaf, schema: Schema, record: Record, evaluation: Evaluation) -> Iterator[datetime]:
    """Every instant at which one of the leaf's clocks passes one of its values."""
    clocks = [expression for expression in expressions(leaf) if isinstance(expression, Clock)]
    if not clocks:
        return
    kind = comparison_type(leaf, schema)
    for expression in expressions(leaf):
        if isinstance(expression, Clock):
            continue
        value: Any = operand(expression, kind, schema)(record, evaluation)
        if value is not None:
            for clock in clocks:
                yield from _crossings(clock, kind, value, _zone(clock, schema, record, evaluation))


def _zone(clock: Clock, schema: Schema, record: Record, evaluation: Evaluation) -> str:
    if clock.kind is ClockKind.LOCAL_TODAY:
        zone = reader(schema.resolve(schema.zone_field), schema)(record)
        if isinstance(zone, str) and is_zone(zone):
            return zone
    return evaluation.zone


def _crossings(clock: Clock, kind: FieldType, value: str, zone: str) -> Iterator[datetime]:
    """When the clock reaches the value, and when it has passed it."""
    moved = timedelta(seconds=-clock.offset_seconds)
    if kind is FieldType.DATETIME:
        moment = datetime.fromisoformat(value).astimezone(UTC)
        if clock.kind is ClockKind.NOW:
            yield from (_shifted(moment, moved), _shifted(moment, moved + _TICK))
            return
        day = max(min(moment, LATEST), EARLIEST).astimezone(ZoneInfo(zone)).date()
    else:
        day = date.fromisoformat(value)
    if clock.kind is ClockKind.NOW:
        yield from (_shifted(start_of_day(each, zone), moved) for each in _days(day, 0))
    else:
        yield from (start_of_day(each, zone) for each in _days(day, -clock.offset_seconds // _DAY_SECONDS))


def _days(day: date, moved: int) -> Iterator[date]:
    """The day moved, and the day after."""
    for days in (moved, moved + 1):
        ordinal = day.toordinal() + days
        yield date.fromordinal(max(EARLIEST.toordinal(), min(ordinal, LATEST.toordinal())))


def _shifted(moment: datetime, moved: timedelta) -> datetime:
    try:
        return moment + moved
    except OverflowError:
        return LATEST
