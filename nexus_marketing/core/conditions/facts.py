"""Conditions on what belongs to a lead: events, segments, consent (BEHAVIOUR.md 5.3).

A record carries them beside its fields: ``events`` (mappings with ``type``, ``name``, ``verdict``, ``tracked_at``,
``id``, ``channel``, ``campaign_id`` and ``metadata``), ``segments`` (a set of ids), ``scores`` (values by name) and
``consents`` (by channel and type the newest act: whether it grants, and until when). What a record does not carry has
not happened.
"""

import operator as operators
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.schema import Record
from nexus_marketing.core.conditions.tree import (
    Condition,
    Consented,
    ConsentIs,
    EventCount,
    EventPick,
    Fact,
    InSegment,
    Operator,
    Pick,
    Scored,
)

Predicate = Callable[[Record, Evaluation], bool]
Event = Mapping[str, Any]
#: Whom a count believes in unless it says otherwise.
HUMAN: Final = "human"
_DAY: Final = timedelta(days=1)
COMPARE: Final[Mapping[Operator, Callable[[float, float], bool]]] = {
    Operator.EQUAL: operators.eq,
    Operator.NOT_EQUAL: operators.ne,
    Operator.LESS: operators.lt,
    Operator.LESS_EQUAL: operators.le,
    Operator.GREATER: operators.gt,
    Operator.GREATER_EQUAL: operators.ge,
}


def fact_predicate(fact: Fact, nested: Callable[[Condition], Predicate]) -> Predicate:
    """Compile a fact.

    Args:
        fact: what is asked.
        nested: compiles a condition on an event.
    """
    match fact:
        case InSegment():
            return lambda record, _: fact.segment in _carried(record, "segments")
        case Consented():
            return lambda record, evaluation: consent_state(record, fact, evaluation.now) is fact.state
        case Scored():
            return _scored(fact)
        case EventCount():
            return _count(fact, None if fact.test is None else nested(fact.test))
    return _pick(fact, nested(fact.test))


def happened(event: Event) -> datetime:
    """When an event happened."""
    at = event["tracked_at"]
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def is_meant(event: Event, fact: EventCount | EventPick) -> bool:
    """Whether an event has the name and is believed."""
    return (event.get("name") or event["type"]) == fact.event and (fact.any_verdict or event["verdict"] == HUMAN)


def window(fact: EventCount, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The moment after which events count, and the one before which; the first moment of ``since`` counts too."""
    if fact.within_seconds is not None:
        return now - timedelta(seconds=fact.within_seconds), None
    if fact.since is None or fact.until is None:
        return None, None
    first = datetime.combine(fact.since, time(), UTC) - timedelta(microseconds=1)
    return first, datetime.combine(fact.until, time(), UTC) + _DAY


def consent_state(record: Record, fact: Consented, now: datetime) -> ConsentIs:
    """What the newest act says at a moment."""
    consents = record.get("consents")
    newest = consents.get((fact.channel, fact.type)) if isinstance(consents, Mapping) else None
    if newest is None:
        return ConsentIs.NONE
    is_granted, expires_at = newest
    if not is_granted:
        return ConsentIs.REVOKED
    return ConsentIs.EXPIRED if expires_at is not None and expires_at <= now else ConsentIs.GRANTED


def flips(fact: Fact, record: Record) -> Iterator[datetime]:
    """The moments at which the clock may change a fact's answer."""
    if isinstance(fact, EventCount) and fact.within_seconds is not None:
        for event in _carried(record, "events"):
            if is_meant(event, fact):
                yield happened(event) + timedelta(seconds=fact.within_seconds)
    if isinstance(fact, Consented):
        consents = record.get("consents")
        newest = consents.get((fact.channel, fact.type)) if isinstance(consents, Mapping) else None
        if newest is not None and newest[1] is not None:
            yield newest[1]


def _carried(record: Record, key: str) -> Any:
    return record.get(key) or ()


def _count(fact: EventCount, test: Predicate | None) -> Predicate:
    compare = COMPARE[fact.operator]

    def predicate(record: Record, evaluation: Evaluation) -> bool:
        after, before = window(fact, evaluation.now)
        found = 0
        for event in _carried(record, "events"):
            if not is_meant(event, fact):
                continue
            at = happened(event)
            if (after is not None and at <= after) or (before is not None and at >= before):
                continue
            found += test is None or test(event, evaluation)
        return compare(found, fact.number)

    return predicate


def _scored(fact: Scored) -> Predicate:
    compare = COMPARE[fact.operator]

    def predicate(record: Record, _evaluation: Evaluation) -> bool:
        scores = record.get("scores")
        return compare(scores.get(fact.score, 0) if isinstance(scores, Mapping) else 0, fact.number)

    return predicate


def _pick(fact: EventPick, test: Predicate) -> Predicate:
    choose: Any = min if fact.pick is Pick.FIRST else max

    def predicate(record: Record, evaluation: Evaluation) -> bool:
        meant = [event for event in _carried(record, "events") if is_meant(event, fact)]
        return bool(meant) and test(choose(meant, key=lambda each: (happened(each), each["id"])), evaluation)

    return predicate
