"""What the compiler asks of a database: typed reads of JSON and the text operators.

Every read answers NULL for a missing value and for one of another type, and cannot raise.
"""

from typing import Any, Protocol

from sqlalchemy import ColumnElement

from nexus_marketing.core.conditions import FieldType

Column = ColumnElement[Any]
Test = ColumnElement[bool]
Keys = tuple[str, ...]


class Engine(Protocol):
    """One database's spelling."""

    def number(self, column: Column, keys: Keys) -> Column:
        """The JSON number as a double."""

    def text(self, column: Column, keys: Keys) -> Column:
        """The JSON text."""

    def shaped(self, column: Column, keys: Keys, kind: FieldType) -> Column:
        """The JSON text if it has the shape of a canonical date or datetime."""

    def equals(self, column: Column, keys: Keys, *, constant: str | float) -> Test:
        """Whether the JSON value is this text, number or boolean, in type and value."""

    def is_member(self, column: Column, keys: Keys, constants: list[Any]) -> Test:
        """Whether the JSON value is one of texts, numbers and booleans."""

    def is_present(self, column: Column, keys: Keys) -> Test:
        """Whether there is a JSON value other than null."""

    def list_contains(self, column: Column, keys: Keys, constant: Any) -> Test:
        """Whether the JSON value is a list with this scalar in it."""

    def is_any_of(self, column: Column, constants: list[Any]) -> Test:
        """Whether a typed column has one of these values."""

    def ordered(self, column: Column) -> Column:
        """Text to be compared by code point."""

    def contains(self, text: Column, part: str) -> Test:
        """Whether the part occurs in the text."""

    def ends_with(self, text: Column, suffix: str) -> Test:
        """Whether the text ends with the suffix."""

    def matches(self, text: Column, pattern: str) -> Test:
        """Whether the pattern occurs in a text of at most 4 KB."""
