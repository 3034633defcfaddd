"""Lists of resources: one whitelist of fields, sorts and filters for REST and GraphQL (S07).

Names from outside are looked up here and never reach SQL as text. Pages go by key, not by offset:
``(sort value, id)`` of the last row, so that page 1,000 costs what page 1 costs. Statements are
made once per shape and kept, because building one costs more than PostgreSQL needs to run it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Row, Select, Table, Text, bindparam, cast, select, tuple_
from sqlalchemy.orm import Session

from nexus_marketing.core.conditions import Evaluation, Schema, parse_text
from nexus_marketing.core.conditions.schema import nearest
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.db.base import Base
from nexus_marketing.db.conditions import compile_condition
from nexus_marketing.db.queries.audited import has_words
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import UtcDateTime

MAX_LIMIT = 200
TENANT: BindParameter[Any] = bindparam("tenant_id")


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """What of a table may be seen, sorted by and filtered on.

    ``fields`` maps names of the API to columns; ``ids`` leave as text. Sorts are on columns that are
    never NULL, because NULLs sort differently on the two databases. ``scope`` narrows a listing to
    its parent with named parameters.
    """

    name: str
    table: Table
    fields: Mapping[str, str]
    sorts: Sequence[str]
    schema: Schema
    ids: frozenset[str] = frozenset({"id"})
    scope: ColumnElement[bool] | None = None
    #: Which rows there are for those outside.
    visible: ColumnElement[bool] | None = None
    #: Money says nothing without its currency: who asks for one gets the other.
    together: Mapping[str, str] = field(default_factory=dict)
    #: The order where none is asked for, newest first.
    default_sort: str = "id"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asked of a list, with names checked by :func:`read_wish`.

    ``after`` is the sort value and id of the last row seen; ``parameters`` belong to the scope.
    """

    fields: tuple[str, ...]
    sort: str
    descending: bool
    limit: int
    filter: str = ""
    after: tuple[Any, int] | None = None
    offset: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Folded words that a row must all have; only for whoever may look with :mod:`db.queries.audited`.
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in the order of ``names``; ``last`` continues after them when there are more."""

    names: tuple[str, ...]
    rows: Sequence[Row[Any]]
    last: tuple[Any, int] | None

    def documents(self) -> list[dict[str, Any]]:
        """The rows as objects."""
        names = self.names
        return [dict(zip(names, row, strict=False)) for row in self.rows]


def table_of(model: type[Base]) -> Table:
    """The table of a model."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


def read_wish(listing: Listing, *, fields: str = "", sort: str = "", limit: int = 50, filter_text: str = "") -> Wish:
    """Check the names of a wish.

    Raises:
        ValidationError: each name that is not in the whitelist, with the nearest that is.
    """
    problems: list[Problem] = []
    named = [name.strip() for name in fields.split(",")] if fields else list(listing.fields)
    wanted = tuple(dict.fromkeys([*named, *(listing.together[name] for name in named if name in listing.together)]))
    problems += [_unknown("fields", name, listing.fields) for name in wanted if name not in listing.fields]
    by = sort.removeprefix("-") or listing.default_sort
    if by not in listing.sorts:
        problems.append(_unknown("sort", by, listing.sorts))
    if not 1 <= limit <= MAX_LIMIT:
        problems.append(Problem("limit", "out_of_bounds", f"limit is between 1 and {MAX_LIMIT}."))
    if problems:
        raise ValidationError(problems=problems)
    return Wish(wanted, by, sort.startswith("-") or not sort, limit, filter_text)


def page(session: Session, listing: Listing, wish: Wish, evaluation: Evaluation, schema: Schema | None = None) -> Page:
    """One page of a tenant's rows.

    Args:
        session: of the tenant.
        listing: what may be seen.
        wish: from :func:`read_wish`.
        evaluation: the clock of the filter.
        schema: names of the filter when they are more than the listing's (a tenant's own lead fields).

    Raises:
        ConditionError: what is wrong with the filter and where.
    """
    statement = _statement(
        listing,
        wish.fields,
        wish.sort,
        descending=wish.descending,
        after=wish.after is not None,
        offset=wish.offset > 0,
    )
    parameters: dict[str, Any] = {**wish.parameters, "row_limit": wish.limit + 1}
    if wish.filter:
        statement = statement.where(_filter(session, listing, wish.filter, evaluation, schema))
    if wish.words:
        condition, bound = has_words(listing.table, wish.words, session.get_bind().dialect.name)
        statement, parameters = statement.where(condition), parameters | bound
    if wish.after is not None:
        parameters |= {"after_value": _value_after(listing, wish), "after_id": wish.after[1]}
    if wish.offset:
        parameters["row_offset"] = wish.offset
    rows = run(session, statement, parameters, writes=False).all()
    if len(rows) <= wish.limit:
        return Page(wish.fields, rows, None)
    last: Sequence[Any] = rows[wish.limit - 1]
    return Page(wish.fields, rows[: wish.limit], (last[-2], last[-1]))


def _value_after(listing: Listing, wish: Wish) -> Any:
    """The sort value of the last row seen; moments come back from a cursor as text."""
    value = wish.after[0] if wish.after else None
    is_moment = isinstance(listing.table.c[listing.fields[wish.sort]].type, UtcDateTime)
    return datetime.fromisoformat(value) if is_moment and isinstance(value, str) else value


@lru_cache(maxsize=500)
def _statement(
    listing: Listing, fields: tuple[str, ...], sort: str, *, descending: bool, after: bool, offset: bool
) -> Select[Any]:
    columns = listing.table.c
    by, identity = columns[listing.fields[sort]], columns["id"]
    statement = select(*(_shown(listing, name) for name in fields), by.label("_sort"), identity.label("_id"))
    statement = statement.where(columns["tenant_id"] == TENANT)
    for condition in (listing.scope, listing.visible):
        if condition is not None:
            statement = statement.where(condition)
    order = (identity,) if sort == "id" else (by, identity)
    if after:
        seen = (bindparam("after_value", type_=by.type), bindparam("after_id", type_=identity.type))
        here, there = tuple_(*order), tuple_(*seen[-len(order) :])
        statement = statement.where(here < there if descending else here > there)
    statement = statement.order_by(*(column.desc() if descending else column for column in order))
    statement = statement.limit(bindparam("row_limit"))
    return statement.offset(bindparam("row_offset")) if offset else statement


def _shown(listing: Listing, name: str) -> ColumnElement[Any]:
    column = listing.table.c[listing.fields[name]]
    return cast(column, Text).label(name) if name in listing.ids else column.label(name)


def _filter(session: Session, listing: Listing, text: str, evaluation: Evaluation, schema: Schema | None) -> Any:
    names = schema or listing.schema
    condition = parse_text(text, names, "filter")
    dialect = session.get_bind().dialect.name
    return compile_condition(condition, names, dict(listing.table.c), dialect, evaluation)


def _unknown(path: str, name: str, known: Any) -> Problem:
    hint = nearest(name, list(known)) or f": use {', '.join(known)}"
    return Problem(path, "unknown_field", f"There is no field {name[:64]!a} here{hint}.")
