"""Rows taken out of the tables that are queues, by several workers at a time."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql

# The choice stands in a WITH that is computed once. Inside IN (...) PostgreSQL may compute it once for each row of the
# table: what was deleted a moment ago is skipped then, the next is locked instead, and the limit means nothing.
_TAKE = """
WITH taken AS MATERIALIZED (
    SELECT id FROM {table} WHERE tenant_id = :tenant_id{only} ORDER BY {order} LIMIT :piece{lock})
DELETE FROM {table} WHERE tenant_id = :tenant_id AND id IN (SELECT id FROM taken) RETURNING {columns}
"""


def taking(session: Session, table: str, columns: str, *, only: str = "", order: str = "id") -> str:
    """A statement that takes up to ``:piece`` rows of the tenant out of a table; they are gone when it commits.

    Args:
        session: of which database.
        table: with a column ``id``.
        columns: what is answered.
        only: a condition, where not every row may be taken.
        order: which come first; answers come in any order.
    """
    names: Mapping[str, Any] = {"table": table, "columns": columns, "order": order}
    lock = " FOR UPDATE SKIP LOCKED" if is_postgresql(session) else ""
    return _TAKE.format(**names, only=f" AND {only}" if only else "", lock=lock)
