"""A tree back to its two spellings; parsing what is written here gives the same tree."""

import re
from datetime import date, datetime
from typing import Final

from nexus_marketing.core.conditions.text import DEFAULT_CONSENT
from nexus_marketing.core.conditions.tree import (
    NULLARY,
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    Expression,
    FieldRef,
    InSegment,
    Leaf,
    Literal,
    LiteralValue,
    Not,
    Operator,
    Scored,
)
from nexus_marketing.core.values import canonical_datetime

Json = dict[str, "JsonValue"]
JsonValue = bool | int | float | str | list["JsonValue"] | Json
_LISTS: Final = frozenset({Operator.IN, Operator.NOT_IN})
_RESERVED: Final = frozenset(
    [
        "and",
        "or",
        "not",
        "null",
        "true",
        "false",
        "in",
        "not_in",
        "contains",
        "not_contains",
        "starts_with",
        "ends_with",
        "matches",
        "before",
        "after",
        "between",
        "is_missing",
        "is_present",
        "is_null",
        "is_not_missing",
        "is_not_present",
        "is_not_null",
        "ignoring_case",
    ]
)
#: Words that mean something before and after an event's name.
_EVENT_WORDS: Final = frozenset({"where", "any", "any_verdict", *_RESERVED})
_FIRST: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LATER: Final = re.compile(r"[A-Za-z0-9_]+\Z")
_UNITS: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def to_text(condition: Condition) -> str:
    """The text spelling."""
    match condition:
        case AllOf():
            return " AND ".join(map(_grouped, condition.terms))
        case AnyOf():
            return " OR ".join(map(_grouped, condition.terms))
        case Not():
            return f"NOT {_grouped(condition.term)}"
        case Custom():
            return f"{condition.name}({', '.join(map(expression_text, condition.arguments))})"
        case EventCount():
            window = _window_text(condition)
            return f"count({_event_text(condition)}) {condition.operator} {condition.number}{window}"
        case EventPick():
            return f"{condition.pick}({_event_text(condition)}) has ({to_text(condition.test)})"
        case InSegment():
            return f"in_segment({_literal_text(condition.segment)})"
        case Scored():
            return f"score({_literal_text(condition.score)}) {condition.operator} {_literal_text(condition.number)}"
        case Consented():
            names = _literal_text(condition.channel)
            if condition.type != DEFAULT_CONSENT:
                names += f", {_literal_text(condition.type)}"
            return f"consent({names}) == {_literal_text(str(condition.state))}"
    return _leaf_text(condition)


def to_json(condition: Condition) -> Json:
    """The JSON spelling of the requirements: ``{"field", "operator", "value"}`` and ``{"conditions", "logic"}``."""
    match condition:
        case AllOf():
            return {"logic": "AND", "conditions": [to_json(term) for term in condition.terms]}
        case AnyOf():
            return {"logic": "OR", "conditions": [to_json(term) for term in condition.terms]}
        case Not():
            return {"logic": "NOT", "conditions": [to_json(condition.term)]}
        case Custom():
            return {"custom": condition.name, "arguments": [_plain(entry.value) for entry in condition.arguments]}
        case EventCount():
            return _count_json(condition)
        case EventPick():
            found: Json = {str(condition.pick): condition.event, "has": to_json(condition.test)}
            return found | _verdict_json(any_verdict=condition.any_verdict)
        case InSegment():
            return {"in_segment": condition.segment}
        case Scored():
            return {"score": condition.score, "operator": str(condition.operator), "value": condition.number}
        case Consented():
            kind: Json = {} if condition.type == DEFAULT_CONSENT else {"type": condition.type}
            return {"consent": condition.channel, **kind, "operator": "==", "value": str(condition.state)}
    return _leaf_json(condition)


def _event_text(fact: EventCount | EventPick) -> str:
    verdict = " any verdict" if fact.any_verdict else ""
    name = f"'{fact.event}'" if fact.event.split(".")[0] in _EVENT_WORDS else fact.event
    where = f" where {to_text(fact.test)}" if isinstance(fact, EventCount) and fact.test is not None else ""
    return f"{name}{verdict}{where}"


def _window_text(fact: EventCount) -> str:
    if fact.since is not None and fact.until is not None:
        return f" between {fact.since.isoformat()} and {fact.until.isoformat()}"
    return "" if fact.within_seconds is None else f" within {_duration_text(fact.within_seconds)}"


def _count_json(fact: EventCount) -> Json:
    found: Json = {"count": fact.event, "operator": str(fact.operator), "value": fact.number}
    if fact.test is not None:
        found["where"] = to_json(fact.test)
    if fact.within_seconds is not None:
        found["within"] = _duration_text(fact.within_seconds)
    if fact.since is not None and fact.until is not None:
        found["between"] = [fact.since.isoformat(), fact.until.isoformat()]
    return found | _verdict_json(any_verdict=fact.any_verdict)


def _verdict_json(*, any_verdict: bool) -> Json:
    return {"verdict": "any"} if any_verdict else {}


def expression_text(expression: Expression) -> str:
    """One operand as text."""
    match expression:
        case Literal():
            return _literal_text(expression.value)
        case FieldRef():
            return _name_text(expression.name)
        case Clock():
            return _clock_text(expression)
    return f"{_operand_text(expression.left)} {expression.operator} {_operand_text(expression.right)}"


def _grouped(condition: Condition) -> str:
    text = to_text(condition)
    return f"({text})" if isinstance(condition, (AllOf, AnyOf)) else text


def _leaf_text(leaf: Leaf) -> str:
    subject = expression_text(leaf.subject)
    operands = [expression_text(operand) for operand in leaf.operands]
    suffix = " ignoring case" if leaf.ignore_case else ""
    if leaf.operator in NULLARY:
        return f"{subject} {leaf.operator}"
    if leaf.operator in _LISTS:
        return f"{subject} {leaf.operator} [{', '.join(operands)}]{suffix}"
    if leaf.operator is Operator.BETWEEN:
        return f"{subject} between {operands[0]} and {operands[1]}"
    return f"{subject} {leaf.operator} {operands[0]}{suffix}"


def _leaf_json(leaf: Leaf) -> Json:
    subject = leaf.subject
    document: Json = {
        "field": subject.name if isinstance(subject, FieldRef) else {"expression": expression_text(subject)},
        "operator": str(leaf.operator),
    }
    values = [_operand_json(operand) for operand in leaf.operands]
    if leaf.operator in _LISTS or leaf.operator is Operator.BETWEEN:
        document["value"] = values
    elif values:
        document["value"] = values[0]
    if leaf.ignore_case:
        document["ignore_case"] = True
    return document


def _operand_json(operand: Expression) -> JsonValue:
    return _plain(operand.value) if isinstance(operand, Literal) else {"expression": expression_text(operand)}


def _operand_text(expression: Expression) -> str:
    text = expression_text(expression)
    return f"({text})" if isinstance(expression, Arithmetic) else text


def _plain(value: LiteralValue) -> JsonValue:
    if isinstance(value, datetime):
        return canonical_datetime(value)
    return value.isoformat() if isinstance(value, date) else value


def _literal_text(value: LiteralValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(_plain(value)) if isinstance(value, date) else repr(value)


def _name_text(name: str) -> str:
    first, *later = name.split(".")
    plain = _FIRST.match(first) and (later or first.lower() not in _RESERVED)
    spelled = [first if plain else f"`{first}`"]
    spelled.extend(key if _LATER.match(key) else f"`{key}`" for key in later)
    return ".".join(spelled)


def _clock_text(clock: Clock) -> str:
    if not clock.offset_seconds:
        return f"{clock.kind}()"
    return f"{clock.kind}() {'-' if clock.offset_seconds < 0 else '+'} {_duration_text(abs(clock.offset_seconds))}"


def _duration_text(seconds: int) -> str:
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}"
