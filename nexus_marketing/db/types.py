"""Column types that mean the same on PostgreSQL and SQLite (CONDITIONS.md, Types)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, String
from sqlalchemy import Text as _Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import TEXT as PG_TEXT
from sqlalchemy.types import JSON, TypeDecorator, TypeEngine

#: 64-bit integers; SQLite needs the plain word INTEGER for its row id.
BigInt = BigInteger().with_variant(Integer(), "sqlite")

#: Text that compares by code point on both databases, whatever the cluster's locale is.
Text = _Text().with_variant(PG_TEXT(collation="C"), "postgresql")

#: JSON documents: binary on PostgreSQL, canonical text on SQLite. SQL NULL stands for "absent".
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

#: JSON whose members keep their order, which binary JSON sorts: for documents whose author's order means something.
OrderedJson = JSON(none_as_null=True)

#: Keyed hashes and MACs.
Bytes = LargeBinary()


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes; on SQLite as ``2026-03-29T01:30:00.000000Z``, so that order is text order."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL ``timestamptz``, SQLite text of 27 characters."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive datetimes: a guess at the zone is a wrong send time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: pass an aware datetime")
        if dialect.name == "postgresql":
            return value
        return to_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Aware UTC, whichever database it came from."""
        del dialect
        if value is None:
            return None
        if isinstance(value, str):
            return from_text(value)
        return value.astimezone(UTC)


def to_text(moment: datetime) -> str:
    """The canonical fixed-width text of a moment."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def from_text(text: str) -> datetime:
    """Read canonical text back."""
    return datetime.fromisoformat(text)


def read_moment(value: datetime | str) -> datetime:
    """A moment that hand-written SQL answered: SQLite's are canonical text."""
    return from_text(value) if isinstance(value, str) else value


def read_json(value: Any) -> Any:
    """A document that hand-written SQL answered: SQLite's are text."""
    return orjson.loads(value) if isinstance(value, str) else value


def bigint_array(numbers: Iterable[int | None]) -> str:
    """PostgreSQL's spelling of a list of numbers, for a parameter that is cast to ``bigint[]``.

    The driver's own encoding of a list costs a microsecond an element.
    """
    return "{" + ",".join(map(str, numbers)).replace("None", "NULL") + "}"
