"""SQLite: ``json_type`` and ``json_extract``, code-point order by nature, one registered function.

``json_extract`` alone would take ``{"a": 1}`` for text and true for 1: its type is always asked.
"""

import re
from datetime import date
from typing import Any, Final, Protocol

from sqlalchemy import BigInteger, Double, Text, and_, case, exists, func, literal, null, or_, select

from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.conditions.patterns import PatternError, matcher
from nexus_marketing.db.conditions.engine import Column, Keys, Test

_DIGIT: Final = "[0-9]"
_DATE: Final = f"{_DIGIT * 4}-{_DIGIT * 2}-{_DIGIT * 2}"
_SHAPES: Final = {
    FieldType.DATE: _DATE,
    FieldType.DATETIME: f"{_DATE}T{_DIGIT * 2}:{_DIGIT * 2}:{_DIGIT * 2}.{_DIGIT * 6}Z",
}
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NUMBERS: Final = ("integer", "real")


class _Connection(Protocol):
    def create_function(self, name: str, narg: int, func: Any, *, deterministic: bool) -> None: ...


def register_sqlite_functions(dbapi_connection: _Connection) -> None:
    """Give a new connection the functions that compiled conditions call."""
    dbapi_connection.create_function("nexus_matches", 2, _matches, deterministic=True)


def _matches(pattern: object, subject: object) -> bool | None:
    if not isinstance(pattern, str) or not isinstance(subject, str):
        return None
    try:
        return matcher(pattern)(subject)
    except PatternError:
        return None


class SqliteEngine:
    """See ``engine.Engine``."""

    def number(self, column: Column, keys: Keys) -> Column:
        """Integers below 2^53 and reals, as doubles."""
        extracted: Any = func.json_extract(column, _path(keys), type_=Double())
        return case((_kind(column, keys).in_(_words(*_NUMBERS)), extracted * _one()), else_=null())

    def text(self, column: Column, keys: Keys) -> Column:
        """The text, unescaped."""
        return case((_kind(column, keys) == _word("text"), _extracted(column, keys)), else_=null())

    def shaped(self, column: Column, keys: Keys, kind: FieldType) -> Column:
        """Text of the shape, by GLOB, which knows classes and is case-sensitive."""
        text = self.text(column, keys)
        return case((text.op("GLOB", is_comparison=True)(_word(_SHAPES[kind])), text), else_=null())

    def equals(self, column: Column, keys: Keys, *, constant: str | float) -> Test:
        """Text by its extracted value first, so that an index on it serves; booleans are types."""
        if isinstance(constant, bool):
            return _kind(column, keys) == _word("true" if constant else "false")
        if not isinstance(constant, str):
            return self.number(column, keys) == literal(float(constant), Double())
        return and_(_extracted(column, keys) == literal(constant, Text()), _kind(column, keys) == _word("text"))

    def is_member(self, column: Column, keys: Keys, constants: list[Any]) -> Test:
        """One membership test per type."""
        texts = [c for c in constants if isinstance(c, str)]
        numbers = [float(c) for c in constants if isinstance(c, (int, float)) and not isinstance(c, bool)]
        booleans = ["true" if c else "false" for c in constants if isinstance(c, bool)]
        tests: list[Test] = []
        if texts:
            tests.append(and_(_extracted(column, keys).in_(texts), _kind(column, keys) == _word("text")))
        if numbers:
            tests.append(self.number(column, keys).in_(numbers))
        if booleans:
            tests.append(_kind(column, keys).in_(booleans))
        return or_(*tests)

    def is_present(self, column: Column, keys: Keys) -> Test:
        """NULL when absent, false for a JSON null."""
        return _kind(column, keys) != _word("null")

    def list_contains(self, column: Column, keys: Keys, constant: Any) -> Test:
        """Look through the elements, but only of a list: json_each also walks objects."""
        each = func.json_each(column, _path(keys)).table_valued("value", "type")
        if isinstance(constant, bool):
            test: Test = each.c.type == _word("true" if constant else "false")
        elif isinstance(constant, str):
            test = and_(each.c.type == _word("text"), each.c.value == literal(constant, Text()))
        else:
            test = and_(each.c.type.in_(_words(*_NUMBERS)), each.c.value == literal(float(constant), Double()))
        found = exists(select(_one()).select_from(each).where(test))
        return case((_kind(column, keys) == _word("array"), found), else_=null())

    def is_any_of(self, column: Column, constants: list[Any]) -> Test:
        """A plain IN."""
        if isinstance(constants[0], date):
            return column.in_(constants)
        typed: Any = Text() if isinstance(constants[0], str) else Double()
        if isinstance(constants[0], int):
            typed = BigInteger()
        return column.in_([literal(constant, typed) for constant in constants])

    def ordered(self, column: Column) -> Column:
        """BINARY, the default, compares UTF-8 bytes: code points."""
        return column

    def contains(self, text: Column, part: str) -> Test:
        """``instr``, never LIKE, which ignores case."""
        return func.instr(text, literal(part, Text())) > 0

    def ends_with(self, text: Column, suffix: str) -> Test:
        """The last characters; ``substr(x, -0)`` would be all of it."""
        if not suffix:
            return text.is_not(null())
        return func.substr(text, -len(suffix)) == literal(suffix, Text())

    def matches(self, text: Column, pattern: str) -> Test:
        """RE2 in Python."""
        return func.nexus_matches(literal(pattern, Text()), text) == 1


def _path(keys: Keys) -> Column:
    steps = "".join(f".{key}" if _PLAIN_KEY.match(key) else f'."{key}"' for key in keys)
    return _word(f"${steps}")


def _kind(column: Column, keys: Keys) -> Column:
    return func.json_type(column, _path(keys), type_=Text())


def _extracted(column: Column, keys: Keys) -> Column:
    return func.json_extract(column, _path(keys), type_=Text())


def _word(text: str) -> Column:
    return literal(text, Text(), literal_execute=True)


def _words(*texts: str) -> list[Column]:
    return [_word(text) for text in texts]


def _one() -> Column:
    return literal(1.0, Double(), literal_execute=True)
