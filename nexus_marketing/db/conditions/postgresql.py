"""PostgreSQL: jsonb, ``COLLATE "C"``, advanced regular expressions that we spell ourselves.

A CASE on ``jsonb_typeof`` stands before every cast, because PostgreSQL promises no order of
evaluation otherwise. Equality is containment: exact, because stored numbers are canonical, and served by a GIN index.
"""

from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    Double,
    Text,
    and_,
    any_,
    case,
    cast,
    collate,
    func,
    literal,
    null,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.conditions.patterns import MAX_SUBJECT_BYTES, parse, postgres_source
from nexus_marketing.db.conditions.engine import Column, Keys, Test

_SHAPES: Final = {
    FieldType.DATE: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    FieldType.DATETIME: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
}


class PostgresEngine:
    """See ``engine.Engine``."""

    def number(self, column: Column, keys: Keys) -> Column:
        """``CASE WHEN jsonb_typeof(m->'k') = 'number' THEN (m->>'k')::float8 END``."""
        return case((_kind(column, keys) == _word("number"), cast(_as_text(column, keys), Double)), else_=null())

    def text(self, column: Column, keys: Keys) -> Column:
        """``CASE WHEN jsonb_typeof(m->'k') = 'string' THEN m->>'k' END``."""
        return case((_kind(column, keys) == _word("string"), _as_text(column, keys)), else_=null())

    def shaped(self, column: Column, keys: Keys, kind: FieldType) -> Column:
        """Text of ten or twenty-seven characters, compared by code point."""
        text = self.text(column, keys)
        return self.ordered(case((text.op("~", is_comparison=True)(_word(_SHAPES[kind])), text), else_=null()))

    def equals(self, column: Column, keys: Keys, *, constant: str | float) -> Test:
        """``m @> '{"k": "x"}'``: the same type and value at that place."""
        if not keys:
            return _jsonb(column) == literal(constant, JSONB())
        return _jsonb(column).contains(literal(_nested(keys, constant), JSONB()))

    def is_member(self, column: Column, keys: Keys, constants: list[Any]) -> Test:
        """``m->'k' = ANY('{"x", 1}')``: equality of jsonb is by type and value.

        Texts alone are compared as text first, and their type asked only of those that match: 0.6 of the time.
        """
        if keys and all(isinstance(constant, str) for constant in constants):
            return and_(self.is_any_of(_as_text(column, keys), constants), _kind(column, keys) == _word("string"))
        return _value(column, keys) == any_(literal(constants, ARRAY(JSONB())))

    def is_present(self, column: Column, keys: Keys) -> Test:
        """NULL when absent, false for a JSON null."""
        return _kind(column, keys) != _word("null")

    def list_contains(self, column: Column, keys: Keys, constant: Any) -> Test:
        """``m @> '{"k": ["x"]}'`` asks for a list that has the element."""
        return _jsonb(column).contains(literal(_nested(keys, [constant]), JSONB()))

    def is_any_of(self, column: Column, constants: list[Any]) -> Test:
        """``= ANY(array)``: one statement shape for lists of every length."""
        return column == any_(literal(constants, ARRAY(_element(constants[0]))))

    def ordered(self, column: Column) -> Column:
        """Under ``"C"``; a column declared so keeps its index."""
        return collate(column, "C")

    def contains(self, text: Column, part: str) -> Test:
        """``strpos``, never LIKE: no wildcards to escape."""
        return func.strpos(text, literal(part, Text())) > 0

    def ends_with(self, text: Column, suffix: str) -> Test:
        """The last characters of the text."""
        return func.right(text, len(suffix)) == literal(suffix, Text())

    def matches(self, text: Column, pattern: str) -> Test:
        """Our own spelling of the pattern, on at most 4 KB."""
        found = collate(text, "C").op("~", is_comparison=True)(literal(postgres_source(parse(pattern)), Text()))
        return case((func.octet_length(text) <= MAX_SUBJECT_BYTES, found), else_=null())


def _jsonb(column: Column) -> Any:
    return type_coerce(column, JSONB())


def _word(text: str) -> Column:
    return literal(text, Text(), literal_execute=True)


def _value(column: Column, keys: Keys) -> Any:
    value = _jsonb(column)
    for key in keys:
        value = value.op("->", return_type=JSONB())(_word(key))
    return value


def _as_text(column: Column, keys: Keys) -> Column:
    if not keys:
        return _jsonb(column).op("#>>", return_type=Text())(cast(literal("{}", Text()), ARRAY(Text())))
    return _value(column, keys[:-1]).op("->>", return_type=Text())(_word(keys[-1]))


def _kind(column: Column, keys: Keys) -> Column:
    return func.jsonb_typeof(_value(column, keys), type_=Text())


def _nested(keys: Keys, value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _element(constant: object) -> Any:
    if isinstance(constant, bool):
        return Boolean()
    if isinstance(constant, int):
        return BigInteger()
    if isinstance(constant, float):
        return Double()
    if isinstance(constant, datetime):
        return TIMESTAMP(timezone=True)
    return Date() if isinstance(constant, date) else Text()
