"""The typed tree that both spellings of a condition become and all evaluators read.

Nodes are values: equal spelling of the same meaning gives equal trees. ``where`` tells where a
node was written (character offset in text, path in JSON), for error messages only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final

LiteralValue = bool | int | float | str | date | datetime
Where = int | str
NOWHERE: Final[Where] = ""


class FieldType(StrEnum):
    """What a field holds; ``json`` is any canonical value, judged row by row."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    LIST = "list"
    JSON = "json"


class Operator(StrEnum):
    """Every built-in operator, spelled as in JSON."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    GREATER = ">"
    GREATER_EQUAL = ">="
    LESS = "<"
    LESS_EQUAL = "<="
    IN = "in"
    NOT_IN = "not_in"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    MATCHES = "matches"
    BEFORE = "before"
    AFTER = "after"
    BETWEEN = "between"
    IS_MISSING = "is_missing"
    IS_PRESENT = "is_present"


class ClockKind(StrEnum):
    """Which reading of the clock: the instant, the evaluation's date, the date where the lead lives."""

    NOW = "now"
    TODAY = "today"
    LOCAL_TODAY = "local_today"


POSITIVE_FORMS: Final = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.NOT_CONTAINS: Operator.CONTAINS,
    Operator.IS_MISSING: Operator.IS_PRESENT,
}
ORDERINGS: Final = frozenset(
    {Operator.GREATER, Operator.GREATER_EQUAL, Operator.LESS, Operator.LESS_EQUAL, Operator.BEFORE, Operator.AFTER}
)
NULLARY: Final = frozenset({Operator.IS_MISSING, Operator.IS_PRESENT})


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant with its type, so that ``1`` and ``true`` are never the same."""

    value: LiteralValue
    where: Where = field(default=NOWHERE, compare=False, repr=False)
    type: FieldType = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive the type from the value."""
        object.__setattr__(self, "type", literal_type(self.value))


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field by name; the schema says what it is."""

    name: str
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Clock:
    """A reading of the clock, moved by whole seconds (days for dates)."""

    kind: ClockKind
    offset_seconds: int = 0
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Double arithmetic; ``operator`` is one of ``+ - * /`` and x/0 is missing."""

    operator: str
    left: Expression
    right: Expression
    where: Where = field(default=NOWHERE, compare=False, repr=False)


Expression = Literal | FieldRef | Clock | Arithmetic


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison of a subject; two-valued: missing or another type is false."""

    subject: Expression
    operator: Operator
    operands: tuple[Expression, ...] = ()
    ignore_case: bool = False
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Custom:
    """A condition of a plugin, by its registered name."""

    name: str
    arguments: tuple[Literal, ...] = ()
    where: Where = field(default=NOWHERE, compare=False, repr=False)


class Pick(StrEnum):
    """Which of a lead's events of one name, by the moment at which they happened."""

    FIRST = "first"
    LAST = "last"


class ConsentIs(StrEnum):
    """What the newest act of consent says; ``none`` where there was no act."""

    GRANTED = "granted"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class EventCount:
    """How often an event of a name happened to the lead, compared with a whole number.

    ``test`` is a condition on the event itself. Events count from ``within_seconds`` before the evaluation on, or on
    the days ``since`` to ``until`` (UTC, both included), or ever. Machines count only where ``any_verdict`` says so.
    """

    event: str
    operator: Operator
    number: int
    test: Condition | None = None
    within_seconds: int | None = None
    since: date | None = None
    until: date | None = None
    any_verdict: bool = False
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class EventPick:
    """True when there is a first or last event of a name and it satisfies ``test``."""

    pick: Pick
    event: str
    test: Condition
    any_verdict: bool = False
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class InSegment:
    """True when the lead is in a segment, by id; a name stands only until it is saved."""

    segment: int | str
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Consented:
    """True when the lead's consent for a channel and type is in this state."""

    channel: str
    state: ConsentIs
    type: str = "marketing"
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Scored:
    """The lead's value of a named score, compared with a number; 0 where nothing was counted yet."""

    score: str
    operator: Operator
    number: int | float
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every term is."""

    terms: tuple[Condition, ...]
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when some term is."""

    terms: tuple[Condition, ...]
    where: Where = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """True when the term is false: the complement over existing records."""

    term: Condition
    where: Where = field(default=NOWHERE, compare=False, repr=False)


Fact = EventCount | EventPick | InSegment | Consented | Scored
FACTS: Final = (EventCount, EventPick, InSegment, Consented, Scored)
Condition = AllOf | AnyOf | Not | Leaf | Custom | Fact


def literal_type(value: LiteralValue) -> FieldType:
    """The type of a constant; booleans are not numbers and datetimes are not dates."""
    if isinstance(value, bool):
        return FieldType.BOOLEAN
    if isinstance(value, (int, float)):
        return FieldType.NUMBER
    if isinstance(value, str):
        return FieldType.TEXT
    return FieldType.DATETIME if isinstance(value, datetime) else FieldType.DATE


def expressions(leaf: Leaf) -> tuple[Expression, ...]:
    """Subject and operands."""
    return (leaf.subject, *leaf.operands)


def parts(expression: Expression) -> tuple[Expression, ...]:
    """The leaves of an arithmetic expression, or the expression itself."""
    if isinstance(expression, Arithmetic):
        return (*parts(expression.left), *parts(expression.right))
    return (expression,)


def leaves(condition: Condition) -> tuple[Leaf | Custom | Fact, ...]:
    """Every comparison, plugin condition and fact, left to right; what a fact asks of its events is not looked into."""
    found: list[Leaf | Custom | Fact] = []
    waiting: list[Condition] = [condition]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (AllOf, AnyOf)):
            waiting.extend(reversed(node.terms))
        elif isinstance(node, Not):
            waiting.append(node.term)
        else:
            found.append(node)
    return tuple(found)
