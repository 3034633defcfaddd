"""What an ORM statement touches, and the ways past the tenant criterion that it must not take.

``with_loader_criteria`` reaches mapped entities only: a Core table, ``text()`` or a second table of an
UPDATE inside an otherwise harmless ORM statement would read or write every tenant's rows (all tried).
SQLAlchemy has no public way to ask a statement for these parts, hence the private names.
"""
# ruff: noqa: SLF001

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Alias, Column, ColumnClause, Delete, Insert, Join, Select, Table, TextClause, Update
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import SelectBase

from nexus_marketing.core.errors import ForeignTenant, TenantRequired

_ENTITY = "parententity"


def touches_tenant_rows(statement: Select[Any] | Update | Delete) -> bool:
    """Whether a mapped tenant table occurs anywhere in an ORM statement, subqueries included.

    Raises:
        TenantRequired: part of it is invisible to the ORM, so the tenant criterion would not reach it.
    """
    touched = False
    for element in visitors.iterate(statement):
        if isinstance(element, TextClause) or _is_hidden_select(element):
            raise TenantRequired("text() inside a statement on tenant tables escapes the tenant: use columns or run().")
        for part in _tables_named_by(element):
            if _is_tenant_table(part):
                touched = True
                if _ENTITY not in part._annotations:
                    raise TenantRequired(f"{_name(part)} is used as a Core table: use the mapped class, or run().")
    if isinstance(statement, Update | Delete):
        _refuse_other_tables(statement)
    return touched


def check_written_tenant(statement: Insert | Update, parameters: Any, tenant_id: int) -> None:
    """Refuse writes that would put rows into another tenant.

    Raises:
        ForeignTenant: a row of the parameters, or a value of the statement, names another tenant.
        TenantRequired: the rows cannot be seen (``INSERT … SELECT``, ``values([...])``).
    """
    if isinstance(statement, Insert):
        if not parameters or statement.select is not None or statement._multi_values:
            raise TenantRequired("INSERT … SELECT and inserts without parameter rows go through db.tenancy.run().")
        _check_upsert(statement)
    if "tenant_id" in _assigned(statement):
        raise ForeignTenant("A statement assigns tenant_id: rows never change their tenant.")
    rows = [parameters] if isinstance(parameters, Mapping) else parameters or ()
    for row in rows:
        if (isinstance(statement, Insert) or "tenant_id" in row) and row.get("tenant_id") != tenant_id:
            raise ForeignTenant(f"A bulk write carries tenant {row.get('tenant_id')} in a session of {tenant_id}.")


def _tables_named_by(element: Any) -> Iterator[Any]:
    if isinstance(element, Column):
        # A column stands for its table; annotations say whether it came from a mapped class.
        yield element if _ENTITY in element._annotations else element.table
    elif isinstance(element, Select):
        yield from element._from_obj
        yield from (join[0] for join in element._setup_joins)
    elif isinstance(element, Join):
        yield element.left
        yield element.right
    elif isinstance(element, Table | Alias) and _ENTITY in element._annotations:
        yield element


def _is_tenant_table(part: Any) -> bool:
    table = part.table if isinstance(part, Column) else part
    while isinstance(table, Alias):
        table = table.element
    return isinstance(table, Table) and "tenant_id" in table.c


def _is_hidden_select(element: Any) -> bool:
    return isinstance(element, ColumnClause) and element.is_literal and "select" in str(element.name).lower()


def _refuse_other_tables(statement: Update | Delete) -> None:
    # The criterion is added for the table that is written only, not for those of UPDATE … FROM.
    pending: list[Any] = list(statement.get_children())
    while pending:
        element = pending.pop()
        if isinstance(element, SelectBase):
            continue
        if isinstance(element, Column) and _name(element.table) != _name(statement.table):
            raise TenantRequired("UPDATE and DELETE over several tables go through run(), or use a subquery.")
        pending.extend(element.get_children())


def _assigned(statement: Insert | Update) -> set[str]:
    names = set(statement._values or ())
    names.update(column for column, _ in getattr(statement, "_ordered_values", None) or ())
    return {str(getattr(name, "key", name)) for name in names}


def _check_upsert(statement: Insert) -> None:
    clause: Any = getattr(statement, "_post_values_clause", None)
    if clause is None:
        return
    target = getattr(clause, "inferred_target_elements", None)
    if target is not None and "tenant_id" not in {str(getattr(each, "key", each)) for each in target}:
        raise TenantRequired("ON CONFLICT needs a key that begins with tenant_id: another one finds foreign rows.")
    assigned = dict(getattr(clause, "update_values_to_set", ()))
    if "tenant_id" in {str(getattr(name, "key", name)) for name in assigned}:
        raise ForeignTenant("ON CONFLICT assigns tenant_id: rows never change their tenant.")


def _name(table: Any) -> str:
    return str(getattr(table, "name", table))
