"""Many rows as one JSON parameter, read alike by both databases (see ``db.queries.imports`` for what it costs)."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy.orm import Session

from nexus_marketing.db.types import bigint_array

Values = Mapping[str, Any]


def is_postgresql(session: Session) -> bool:
    """Which of the two databases this is."""
    return session.get_bind().dialect.name == "postgresql"


def rowset(session: Session, columns: Mapping[str, str], parameter: str = "rows") -> str:
    """What stands behind FROM: ``s`` with these columns, out of the named parameter.

    Tables that are looked up for each row follow with CROSS JOIN and a WHERE: SQLite, which believes that a
    tenant has ten rows, would else go through all of them and through the set for each.

    Args:
        session: which database it is for.
        columns: name → PostgreSQL type; SQLite has those of JSON, and text for moments and days.
        parameter: bound to :func:`as_rows`.
    """
    if is_postgresql(session):
        typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        return f"json_to_recordset(CAST(:{parameter} AS json)) AS s({typed})"
    picked = ", ".join(
        f"value {'->' if kind == 'jsonb' else '->>'} '$.{name}' AS {name}" for name, kind in columns.items()
    )
    return f"(SELECT {picked} FROM json_each(:{parameter})) AS s"  # noqa: S608 - column names of ours


def columns_of(session: Session, columns: Mapping[str, str], rows: Sequence[Values]) -> tuple[str, dict[str, str]]:
    """As :func:`rowset` for hundreds of rows and more, with its parameters; JSON columns hold objects or nothing.

    A parameter for each column: PostgreSQL reads lists in half the time in which it reads objects, and arrays of numbers
    in a third of that.
    """
    if not is_postgresql(session):
        return rowset(session, columns), {"rows": as_rows(rows)}
    return _lists(tuple(columns.items())), {
        name: _list(kind, [row.get(name) for row in rows]) for name, kind in columns.items()
    }


@lru_cache(maxsize=100)
def _lists(columns: tuple[tuple[str, str], ...]) -> str:
    picked = ", ".join(f"CAST(r.{name} AS {kind}) AS {name}" for name, kind in columns)
    lists = ", ".join(
        f"unnest(CAST(:{name} AS bigint[]))" if kind == "bigint" else f"json_array_elements_text(CAST(:{name} AS json))"
        for name, kind in columns
    )
    return f"(SELECT {picked} FROM ROWS FROM ({lists}) AS r({', '.join(name for name, _ in columns)})) AS s"  # noqa: S608 - as above


def _list(kind: str, values: list[Any]) -> str:
    if kind == "bigint":
        return bigint_array(values)
    return orjson.dumps(values).decode()


def of_tenant(session: Session, table: str) -> str:
    """The condition on the tenant of a table that a rowset changes by ``id``.

    In SQLite's UPDATE … FROM nothing fixes the order; the plus keeps it from beginning with the tenant's rows.
    """
    return f"{'' if is_postgresql(session) else '+'}{table}.tenant_id = :tenant_id"


def as_rows(rows: Sequence[Values]) -> str:
    """The value of a rowset's parameter."""
    return orjson.dumps(rows).decode()


def as_ids(ids: Collection[int]) -> str:
    """Many ids as one parameter, for :func:`ids_of`."""
    return orjson.dumps(list(ids)).decode()


def among(session: Session, parameter: str) -> str:
    """What stands behind a column of ids that are to be among those of the named parameter, see :func:`as_among`."""
    if is_postgresql(session):
        return f"= ANY(CAST(:{parameter} AS bigint[]))"
    return f"IN (SELECT value FROM json_each(:{parameter}))"  # noqa: S608 - a name of ours


def as_among(session: Session, ids: Collection[int]) -> str:
    """The value of the parameter of :func:`among`."""
    return bigint_array(sorted(ids)) if is_postgresql(session) else as_ids(sorted(ids))


def ids_of(session: Session) -> str:
    """The rows of the parameter ``:ids``, a JSON array."""
    if is_postgresql(session):
        return "SELECT CAST(value AS bigint) AS id FROM json_array_elements_text(CAST(:ids AS json))"
    return "SELECT value AS id FROM json_each(:ids)"
