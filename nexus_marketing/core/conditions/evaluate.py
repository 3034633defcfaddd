"""A condition as Python closures over one record: the meaning that SQL must reproduce.

Every leaf is two-valued: a missing value or one of another type is false, nothing is cast and
nothing raises. Records are mappings of canonical values (``core.values``); attributes are never read.
"""

import operator as operators
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final

from nexus_marketing.core.conditions import patterns
from nexus_marketing.core.conditions.catalogue import EVENTS
from nexus_marketing.core.conditions.check import comparison_type
from nexus_marketing.core.conditions.clock import Evaluation
from nexus_marketing.core.conditions.facts import fact_predicate
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.schema import Field, Folding, Record, Schema
from nexus_marketing.core.conditions.tree import (
    AllOf,
    AnyOf,
    Clock,
    ClockKind,
    Condition,
    Consented,
    Custom,
    EventCount,
    EventPick,
    Expression,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Literal,
    LiteralValue,
    Not,
    Operator,
    Scored,
)
from nexus_marketing.core.values import DATE_SHAPE, DATETIME_SHAPE, canonical_datetime, email_norm, fold

Predicate = Callable[[Record, Evaluation], bool]
Reader = Callable[[Record], object]
Operand = Callable[[Record, Evaluation], Any]
Judge = Callable[[Any], bool]

SMALLEST: Final = 1e-30
LARGEST: Final = 1e30
_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.EQUAL: operators.eq,
    Operator.LESS: operators.lt,
    Operator.LESS_EQUAL: operators.le,
    Operator.GREATER: operators.gt,
    Operator.GREATER_EQUAL: operators.ge,
}


def closures(condition: Condition, schema: Schema) -> Predicate:
    """Compile a condition in negation normal form."""
    match condition:
        case AllOf():
            return _all(tuple(closures(term, schema) for term in condition.terms))
        case AnyOf():
            return _any(tuple(closures(term, schema) for term in condition.terms))
        case Not():
            return _not(closures(condition.term, schema))
        case Custom():
            return _custom(condition, schema)
        case EventCount() | EventPick() | InSegment() | Consented() | Scored():
            return fact_predicate(condition, lambda test: closures(normalise(test, EVENTS), EVENTS))
    return _leaf(condition, schema)


def reader(field: Field, schema: Schema) -> Reader:
    """How to find a field's value in a record; a companion that is not there is made from its text."""
    source = next((entry for entry in schema.fields.values() if entry.folded == field.name), None)
    read = _path_reader(field.path)
    if source is None:
        return read
    original = _path_reader(source.path)
    folded = email_norm if source.folding is Folding.EMAIL else fold

    def companion(record: Record) -> object:
        value = read(record)
        if value is not None:
            return value
        text = original(record)
        return folded(text) if isinstance(text, str) else None

    return companion


def as_number(value: object) -> float | None:
    """The value if it is a number; booleans are not."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def as_text(value: object) -> str | None:
    """The value if it is text."""
    return value if isinstance(value, str) else None


def as_boolean(value: object) -> bool | None:
    """The value if it is true or false."""
    return value if isinstance(value, bool) else None


def as_date(value: object) -> str | None:
    """A date as canonical text, from a date or from such text."""
    if isinstance(value, str):
        return value if DATE_SHAPE.match(value) else None
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else None


def as_datetime(value: object) -> str | None:
    """A point in time as canonical text, from an aware datetime or from such text."""
    if isinstance(value, str):
        return value if DATETIME_SHAPE.match(value) else None
    return canonical_datetime(value) if isinstance(value, datetime) and value.tzinfo is not None else None


_AS: Final[Mapping[FieldType, Callable[[object], Any]]] = {
    FieldType.NUMBER: as_number,
    FieldType.TEXT: as_text,
    FieldType.BOOLEAN: as_boolean,
    FieldType.DATE: as_date,
    FieldType.DATETIME: as_datetime,
}


def _all(terms: tuple[Predicate, ...]) -> Predicate:
    def every(record: Record, evaluation: Evaluation) -> bool:
        for term in terms:  # noqa: SIM110 a loop is faster than all() over a generator
            if not term(record, evaluation):
                return False
        return True

    return every


def _any(terms: tuple[Predicate, ...]) -> Predicate:
    def some(record: Record, evaluation: Evaluation) -> bool:
        for term in terms:  # noqa: SIM110
            if term(record, evaluation):
                return True
        return False

    return some


def _not(term: Predicate) -> Predicate:
    return lambda record, evaluation: not term(record, evaluation)


def _custom(condition: Custom, schema: Schema) -> Predicate:
    evaluate, arguments = schema.operator(condition.name).evaluate, condition.arguments
    return lambda record, evaluation: evaluate(arguments, record, evaluation) is True


def _leaf(leaf: Leaf, schema: Schema) -> Predicate:
    match leaf.operator:
        case Operator.BETWEEN:
            return _between(leaf, schema)
        case operator if operator in _COMPARE:
            return _comparison(leaf, schema)
    if not isinstance(leaf.subject, FieldRef):
        raise TypeError(f"{leaf.operator} on a subject that is no field passed the checks")
    field = schema.resolve(leaf.subject.name)
    read, judge = reader(field, schema), _judge(leaf, field.type)
    return lambda record, _evaluation: judge(read(record))


def _comparison(leaf: Leaf, schema: Schema) -> Predicate:
    kind = comparison_type(leaf, schema)
    compare = _COMPARE[leaf.operator]
    left, right = operand(leaf.subject, kind, schema), operand(leaf.operands[0], kind, schema)

    def judge(record: Record, evaluation: Evaluation) -> bool:
        first = left(record, evaluation)
        if first is None:
            return False
        second = right(record, evaluation)
        return second is not None and compare(first, second)

    return judge


def _between(leaf: Leaf, schema: Schema) -> Predicate:
    kind = comparison_type(leaf, schema)
    subject, low, high = (operand(e, kind, schema) for e in (leaf.subject, *leaf.operands))

    def judge(record: Record, evaluation: Evaluation) -> bool:
        value = subject(record, evaluation)
        if value is None:
            return False
        least, most = low(record, evaluation), high(record, evaluation)
        return least is not None and most is not None and bool(least <= value <= most)

    return judge


def operand(expression: Expression, kind: FieldType, schema: Schema) -> Operand:
    """One side of a comparison in the type of the comparison; None where it has none."""
    match expression:
        case Literal():
            constant = _AS[kind](expression.value)
            return lambda _record, _evaluation: constant
        case Clock():
            return _clock(expression, kind, schema)
        case FieldRef():
            read, convert = reader(schema.resolve(expression.name), schema), _AS[kind]
            return lambda record, _evaluation: convert(read(record))
    left, right = _bounded(expression.left, schema), _bounded(expression.right, schema)
    calculate = _CALCULATE[expression.operator]

    def result(record: Record, evaluation: Evaluation) -> float | None:
        first, second = left(record, evaluation), right(record, evaluation)
        return None if first is None or second is None else calculate(first, second)

    return result


def _bounded(expression: Expression, schema: Schema) -> Operand:
    """An operand of arithmetic: beyond 1e±30 a number is missing, so that no engine overflows."""
    inner = operand(expression, FieldType.NUMBER, schema)
    if not isinstance(expression, (Literal, FieldRef)):
        return inner

    def bounded(record: Record, evaluation: Evaluation) -> float | None:
        value = inner(record, evaluation)
        return float(value) if value is not None and (value == 0 or SMALLEST <= abs(value) <= LARGEST) else None

    return bounded


def _quotient(dividend: float, divisor: float) -> float | None:
    return None if divisor == 0 else dividend / divisor


_CALCULATE: Final[Mapping[str, Callable[[float, float], float | None]]] = {
    "+": operators.add,
    "-": operators.sub,
    "*": operators.mul,
    "/": _quotient,
}


def _clock(clock: Clock, kind: FieldType, schema: Schema) -> Operand:
    if clock.kind is not ClockKind.LOCAL_TODAY:
        return lambda _record, evaluation: evaluation.text(clock, kind)
    zone = reader(schema.resolve(schema.zone_field), schema)

    def local(record: Record, evaluation: Evaluation) -> str:
        return evaluation.local_day(clock, as_text(zone(record))).isoformat()

    return local


def _judge(leaf: Leaf, kind: FieldType) -> Judge:
    if leaf.operator is Operator.IS_PRESENT:
        return lambda value: value is not None
    constants = [entry.value for entry in leaf.operands if isinstance(entry, Literal)]
    if leaf.operator is Operator.IN:
        return _member(constants)
    if leaf.operator is Operator.CONTAINS:
        return _contains(constants[0], kind)
    return _textual(leaf.operator, str(constants[0]))


def _member(constants: list[LiteralValue]) -> Judge:
    keys = frozenset(map(_key, constants))
    has_dates = any(isinstance(constant, date) for constant in constants)

    def judge(value: object) -> bool:
        if isinstance(value, (bool, int, float, str)):
            return _key(value) in keys or (has_dates and isinstance(value, str) and ("date", value) in keys)
        return isinstance(value, date) and _key(value) in keys

    return judge


def _key(value: LiteralValue) -> tuple[str, LiteralValue]:
    """A value with its type, because a set thinks that 1 and True are one."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, datetime):
        return "date", canonical_datetime(value) if value.tzinfo is not None else ""
    if isinstance(value, date):
        return "date", value.isoformat()
    return ("text", value) if isinstance(value, str) else ("number", value)


def _contains(wanted: LiteralValue, kind: FieldType) -> Judge:
    key = _key(wanted)
    in_text = isinstance(wanted, str) and kind is not FieldType.LIST
    in_list = kind is not FieldType.TEXT

    def judge(value: object) -> bool:
        if isinstance(value, str):
            return in_text and str(wanted) in value
        if not in_list or not isinstance(value, list):
            return False
        return any(isinstance(entry, (bool, int, float, str)) and _key(entry) == key for entry in value)

    return judge


def _textual(operator: Operator, wanted: str) -> Judge:
    if operator is Operator.MATCHES:
        matches = patterns.matcher(wanted)
        return lambda value: isinstance(value, str) and matches(value)
    if operator is Operator.STARTS_WITH:
        return lambda value: isinstance(value, str) and value.startswith(wanted)
    return lambda value: isinstance(value, str) and value.endswith(wanted)


def _path_reader(path: tuple[str, ...]) -> Reader:
    if len(path) == 1:
        key = path[0]
        return lambda record: record.get(key)
    if len(path) == 2:
        return _nested_reader(*path)

    def walk(record: Record) -> object:
        value: object = record
        for key in path:
            value = value.get(key) if isinstance(value, (dict, Mapping)) else None
        return value

    return walk


def _nested_reader(outer: str, inner: str) -> Reader:
    def nested(record: Record) -> object:
        value = record.get(outer)
        return value.get(inner) if isinstance(value, (dict, Mapping)) else None

    return nested
