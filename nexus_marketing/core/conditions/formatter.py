"""A tree back to its two spellings; parsing what is written here gives the same tree."""

import re
from datetime import date, datetime
from typing import Final

from nexus_marketing.core.conditions.tree import (
    NULLARY,
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    Condition,
    Custom,
    Expression,
    FieldRef,
    Leaf,
    Literal,
    LiteralValue,
    Not,
    Operator,
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
    return _leaf_json(condition)


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
    seconds = abs(clock.offset_seconds)
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{clock.kind}() {'-' if clock.offset_seconds < 0 else '+'} {seconds // size} {unit}"
