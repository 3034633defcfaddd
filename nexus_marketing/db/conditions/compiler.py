"""From a condition to a SQLAlchemy expression that keeps the indexes of hand-written SQL.

Positive leaves are emitted bare (NULL acts as false in WHERE), negated ones as
``(leaf) IS NOT TRUE``; never COALESCE, never LIKE, never lower(). In a SELECT list use
``wrap_for_select``. The clock is read in Python and bound.
"""

import math
from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Date,
    Double,
    Integer,
    Numeric,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    null,
    or_,
    true,
)  # fmt: skip
from sqlalchemy.sql.elements import BindParameter

from nexus_marketing.core.conditions import (
    EVENTS,
    FACTS,
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Condition,
    Consented,
    Custom,
    Evaluation,
    EventCount,
    EventPick,
    Field,
    FieldRef,
    FieldType,
    InSegment,
    Leaf,
    Not,
    Operator,
    Schema,
    Scored,
)
from nexus_marketing.core.conditions import Literal as Constant
from nexus_marketing.core.conditions.check import comparison_type
from nexus_marketing.core.conditions.clock import known_zones
from nexus_marketing.core.conditions.evaluate import LARGEST, SMALLEST
from nexus_marketing.core.conditions.limits import refuse
from nexus_marketing.core.conditions.normal import normalise
from nexus_marketing.core.conditions.tree import Expression, Fact, expressions, parts
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.conditions.engine import Column, Engine, Test
from nexus_marketing.db.conditions.facts import EVENT_COLUMNS, Related, compile_fact
from nexus_marketing.db.conditions.postgresql import PostgresEngine
from nexus_marketing.db.conditions.sqlite import SqliteEngine

Dialect = Literal["postgresql", "sqlite"]
_DATES: Final = frozenset({FieldType.DATE, FieldType.DATETIME})
_ENGINES: Final[Mapping[str, Callable[[], Engine]]] = {"postgresql": PostgresEngine, "sqlite": SqliteEngine}
_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], Test]]] = {
    Operator.EQUAL: lambda left, right: left == right,
    Operator.LESS: lambda left, right: left < right,
    Operator.LESS_EQUAL: lambda left, right: left <= right,
    Operator.GREATER: lambda left, right: left > right,
    Operator.GREATER_EQUAL: lambda left, right: left >= right,
}


def compile_condition(
    condition: Condition,
    schema: Schema,
    columns: Mapping[str, Any],
    dialect: str,
    evaluation: Evaluation,
    *,
    zones: Collection[str] | None = None,
    related: Related | None = None,
) -> Test:
    """Compile a condition for a WHERE clause; it may answer NULL for false.

    Args:
        condition: a tree; it is checked against the schema here.
        schema: names and types.
        columns: column expressions by the first key of a field's path (``score``, ``metadata``).
        dialect: ``postgresql`` or ``sqlite``.
        evaluation: the one reading of the clock.
        zones: the time zones present, for ``local_today()``; all known zones without it.
        related: how to reach events, segments and consent; conditions that ask for them are refused without it.

    Raises:
        ConditionError: a name or type is wrong, a plugin condition has no SQL form, or a field
            has no column here.
    """
    compiler = _Compiler(schema, columns, dialect, evaluation, zones, related)
    return compiler.condition(normalise(condition, schema))


def wrap_for_select(test: Test) -> Test:
    """The two-valued answer for a SELECT list: ``(test) IS TRUE``."""
    return test.is_(true())


def next_text(prefix: str) -> str | None:
    """The least text after all texts that start with ``prefix``; None when there is none."""
    for length in range(len(prefix), 0, -1):
        point = ord(prefix[length - 1])
        if point < 0x10FFFF:
            return prefix[: length - 1] + chr(0xE000 if point == 0xD7FF else point + 1)
    return None


class _Compiler:
    """One compilation; holds what every leaf needs."""

    __slots__ = ("columns", "dialect", "engine", "evaluation", "related", "schema", "zones")

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Any],
        dialect: str,
        evaluation: Evaluation,
        zones: Collection[str] | None,
        related: Related | None = None,
    ) -> None:
        self.schema = schema
        self.columns = columns
        self.dialect = dialect
        self.engine = _ENGINES[dialect]()
        self.related = related
        self.evaluation = evaluation
        self.zones = zones

    def condition(self, condition: Condition) -> Test:
        match condition:
            case AllOf():
                return and_(*map(self.condition, condition.terms)).self_group()
            case AnyOf():
                return or_(*map(self.condition, condition.terms)).self_group()
            case Not():
                term = self.condition(condition.term)
                # Facts are two-valued, and below IS NOT TRUE they would be no join.
                return ~term if isinstance(condition.term, FACTS) else term.is_not(true())
            case Custom():
                refuse(
                    condition.where,
                    "no_sql_form",
                    f"{condition.name}() is answered by its plugin, no database can; make a segment of it",
                )
            case EventCount() | EventPick() | InSegment() | Consented() | Scored():
                return self.fact(condition)
        return self.leaf(condition)

    def fact(self, fact: Fact) -> Test:
        if self.related is None:
            refuse(
                fact.where, "no_facts_here", "events, segments, consent and scores are for the conditions of segments"
            )
        return compile_fact(fact, self.related, self.dialect, self.evaluation.now, self.of_event)

    def of_event(self, condition: Condition, events: Any) -> Test:
        columns = {name: events.c[name] for name in EVENT_COLUMNS}
        compiler = _Compiler(EVENTS, columns, self.dialect, self.evaluation, ())
        return compiler.condition(normalise(condition, EVENTS))

    def leaf(self, leaf: Leaf) -> Test:
        if leaf.operator is Operator.BETWEEN or leaf.operator in _COMPARE:
            return self.comparison(leaf)
        field = self.field(leaf.subject)
        column, keys = self.column(field), field.path[1:]
        match leaf.operator:
            case Operator.IS_PRESENT:
                in_json = keys or field.type in {FieldType.JSON, FieldType.LIST}
                return self.engine.is_present(column, keys) if in_json else column.is_not(null())
            case Operator.IN:
                return self.member(leaf, field, column)
            case Operator.CONTAINS:
                return self.contains(_constants(leaf)[0], field, column)
        return self.textual(leaf, field)

    def field(self, expression: Expression) -> Field:
        if not isinstance(expression, FieldRef):
            raise TypeError(f"{expression} passed the checks where a field stands")
        return self.schema.resolve(expression.name)

    def column(self, field: Field) -> Any:
        found = self.columns.get(field.path[0])
        if found is None:
            refuse("", "no_column", f"{field.name} has no column here; evaluate it in Python")
        return found

    # Comparisons

    def comparison(self, leaf: Leaf) -> Test:
        kind = comparison_type(leaf, self.schema)
        if kind in _DATES:
            return self.compare_dates(leaf, kind)
        quick = self.compare_quickly(leaf, kind)
        if quick is not None:
            return quick
        sides = [self.typed(expression, kind) for expression in expressions(leaf)]
        if kind is FieldType.TEXT and leaf.operator is not Operator.EQUAL:
            sides = [sides[0] if isinstance(sides[0], BindParameter) else self.engine.ordered(sides[0]), *sides[1:]]
        return _compared(leaf.operator, sides)

    def compare_quickly(self, leaf: Leaf, kind: FieldType) -> Test | None:
        """Spellings that keep an index: JSON equality by containment, integers as integers."""
        if not isinstance(leaf.subject, FieldRef) or not all(isinstance(e, Constant) for e in leaf.operands):
            return None
        field, constants = self.field(leaf.subject), _constants(leaf)
        column = self.column(field)
        if leaf.operator is Operator.EQUAL and _is_json(field):
            return self.engine.equals(column, field.path[1:], constant=constants[0])
        if kind is FieldType.NUMBER and not _is_json(field) and isinstance(column.type, Integer):
            return _integer_test(leaf.operator, column, constants)
        return None

    def typed(self, expression: Expression, kind: FieldType) -> Any:
        match expression:
            case Constant():
                return _literal(expression.value, kind)
            case Arithmetic():
                return self.arithmetic(expression)
            case FieldRef():
                return self.field_value(self.field(expression), kind)
        raise TypeError(f"{expression} passed the checks in a comparison of {kind}")

    def field_value(self, field: Field, kind: FieldType) -> Any:
        column, keys = self.column(field), field.path[1:]
        if not _is_json(field):
            is_double = kind is not FieldType.NUMBER or isinstance(column.type, Double)
            return column if is_double or not isinstance(column.type, (Integer, Numeric)) else cast(column, Double)
        if kind is FieldType.NUMBER:
            return self.engine.number(column, keys)
        if kind is FieldType.TEXT:
            return self.engine.text(column, keys)
        is_true = self.engine.equals(column, keys, constant=True)
        return case((is_true, true()), (self.engine.equals(column, keys, constant=False), false()), else_=null())

    def arithmetic(self, expression: Expression) -> Any:
        """Double arithmetic whose operands lie within 1e±30, so that nothing overflows or underflows."""
        if isinstance(expression, Arithmetic):
            left, right = self.arithmetic(expression.left), self.arithmetic(expression.right)
            match expression.operator:
                case "+":
                    return left + right
                case "-":
                    return left - right
                case "*":
                    return left * right
            return left / func.nullif(right, _literal(0.0, FieldType.NUMBER), type_=Double())
        value = self.typed(expression, FieldType.NUMBER)
        if isinstance(expression, FieldRef) and not _is_json(self.field(expression)):
            value = cast(value, Double)
        size: Any = func.abs(value, type_=Double())
        least, most = _literal(SMALLEST, FieldType.NUMBER), _literal(LARGEST, FieldType.NUMBER)
        in_range = or_(value == _literal(0.0, FieldType.NUMBER), and_(size >= least, size <= most))
        return case((in_range, value), else_=null())

    # Dates

    def compare_dates(self, leaf: Leaf, kind: FieldType) -> Test:
        fields = [self.field(part) for e in expressions(leaf) for part in parts(e) if isinstance(part, FieldRef)]
        in_json = {_is_json(field) for field in fields}
        if len(in_json) > 1:
            names = " and ".join(field.name for field in fields)
            refuse(leaf.where, "mixed_dates", f"{names} keep dates in different ways; evaluate this in Python")
        column_type = None if in_json.pop() else self.column(fields[0]).type
        sides = [self.dated(expression, kind, column_type) for expression in expressions(leaf)]
        return _compared(leaf.operator, sides)

    def dated(self, expression: Expression, kind: FieldType, column_type: Any) -> Any:
        match expression:
            case FieldRef():
                field = self.field(expression)
                column = self.column(field)
                return column if column_type is not None else self.engine.shaped(column, field.path[1:], kind)
            case Clock(kind=ClockKind.LOCAL_TODAY):
                return self.local_today(expression, column_type)
            case Clock():
                moment: Any = self.evaluation.day(expression)
                if kind is FieldType.DATETIME:
                    moment = self.evaluation.instant(expression)
            case Constant():
                moment = expression.value
            case _:
                raise TypeError(f"{expression} passed the checks in a comparison of dates")
        return moment_of(moment, kind, column_type)

    def local_today(self, clock: Clock, column_type: Any) -> Column:
        """A CASE over the zones that are present: no database does zone arithmetic."""
        zone = self.column(self.schema.resolve(self.schema.zone_field))
        groups = self.evaluation.zones_by_date(clock, known_zones() if self.zones is None else self.zones)
        default = self.evaluation.day(clock)
        whens = [
            (self.engine.is_any_of(zone, list(names)), moment_of(day, FieldType.DATE, column_type))
            for day, names in groups.items()
            if day != default
        ]
        otherwise = moment_of(default, FieldType.DATE, column_type)
        return case(*whens, else_=otherwise) if whens else otherwise

    # Membership and text

    def member(self, leaf: Leaf, field: Field, column: Any) -> Test:
        constants = _constants(leaf)
        if field.type in _DATES:
            if _is_json(field):
                texts = [_moment_text(constant) for constant in constants]
                return self.engine.is_member(column, field.path[1:], texts)
            return self.engine.is_any_of(column, constants)
        if _is_json(field):
            return self.engine.is_member(column, field.path[1:], constants)
        if isinstance(column.type, Integer):
            integers = [int(constant) for constant in constants if float(constant).is_integer()]
            return self.engine.is_any_of(column, integers) if integers else false()
        if field.type is FieldType.NUMBER:
            return self.engine.is_any_of(self.field_value(field, FieldType.NUMBER), [float(c) for c in constants])
        return self.engine.is_any_of(column, constants)

    def contains(self, wanted: Any, field: Field, column: Any) -> Test:
        keys = field.path[1:]
        if field.type is FieldType.LIST or not isinstance(wanted, str):
            return self.engine.list_contains(column, keys, wanted)
        if not _is_json(field):
            return self.engine.contains(column, wanted)
        in_text = self.engine.contains(self.engine.text(column, keys), wanted)
        return (
            in_text if field.type is FieldType.TEXT else or_(in_text, self.engine.list_contains(column, keys, wanted))
        )

    def textual(self, leaf: Leaf, field: Field) -> Test:
        wanted = str(_constants(leaf)[0])
        if leaf.operator is Operator.STARTS_WITH:
            return self.starts_with(self.field_value(field, FieldType.TEXT), wanted)
        if leaf.operator is Operator.ENDS_WITH:
            backwards = self.schema.fields.get(field.reversed or "")
            if backwards is not None and backwards.path[0] in self.columns:
                return self.starts_with(self.field_value(backwards, FieldType.TEXT), wanted[::-1])
            return self.engine.ends_with(self.field_value(field, FieldType.TEXT), wanted)
        return self.engine.matches(self.field_value(field, FieldType.TEXT), wanted)

    def starts_with(self, text: Any, prefix: str) -> Test:
        """A half-open range, which a plain index serves."""
        if not prefix:
            return text.is_not(null())
        ordered, after = self.engine.ordered(text), next_text(prefix)
        from_here = ordered >= literal(prefix, Text())
        return from_here if after is None else and_(from_here, ordered < literal(after, Text()))


def _compared(operator: Operator, sides: list[Any]) -> Test:
    if operator is Operator.BETWEEN:
        return and_(sides[0] >= sides[1], sides[0] <= sides[2])
    return _COMPARE[operator](*sides)


def _constants(leaf: Leaf) -> list[Any]:
    return [operand.value for operand in leaf.operands if isinstance(operand, Constant)]


def _is_json(field: Field) -> bool:
    return not field.is_column or field.type in {FieldType.JSON, FieldType.LIST}


def _literal(value: Any, kind: FieldType) -> Any:
    if kind is FieldType.NUMBER:
        return literal(float(value), Double())
    if kind is FieldType.BOOLEAN:
        return true() if value else false()
    return literal(value, Text())


def dated_column(field: Field, columns: Mapping[str, Any], dialect: str, kind: FieldType) -> tuple[Column, Any]:
    """A date field's column and its type; its text and ``None`` where it lies in JSON.

    Raises:
        ConditionError: the field has no column here.
    """
    column = columns.get(field.path[0])
    if column is None:
        refuse("", "no_column", f"{field.name} has no column here; evaluate it in Python")
    if _is_json(field):
        return _ENGINES[dialect]().shaped(column, field.path[1:], kind), None
    return column, column.type


def moment_of(moment: Any, kind: FieldType, column_type: Any) -> Column:
    """A date or datetime as a value to compare with what :func:`dated_column` answered."""
    if column_type is None:
        return literal(_moment_text(moment), Text())
    return literal(moment, Date() if kind is FieldType.DATE and isinstance(column_type, Date) else column_type)


def _moment_text(moment: Any) -> str:
    return canonical_datetime(moment) if hasattr(moment, "hour") else date.isoformat(moment)


def _integer_test(operator: Operator, column: Any, constants: list[Any]) -> Test:
    """An integer column against doubles, as integers: a cast of the column would lose its index."""
    low, high = constants[0], constants[-1]
    match operator:
        case Operator.EQUAL:
            return column == _integer(low) if float(low).is_integer() else false()
        case Operator.GREATER:
            return column > _integer(math.floor(low))
        case Operator.GREATER_EQUAL:
            return column >= _integer(math.ceil(low))
        case Operator.LESS:
            return column < _integer(math.ceil(low))
        case Operator.LESS_EQUAL:
            return column <= _integer(math.floor(low))
    return and_(column >= _integer(math.ceil(low)), column <= _integer(math.floor(high)))


def _integer(value: float) -> Column:
    """As 64 bits, whatever the column's width: a narrower parameter would be out of range, not false."""
    return literal(int(value), BigInteger())
