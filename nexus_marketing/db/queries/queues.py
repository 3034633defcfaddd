"""The tables that are queues: which tenants have rows in them, and rows taken out by several workers at a time."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run_for_all

#: The timer by which a sink is told of a tenant's audit; its key is the sink's name.
SINK_DUE: Final = "audit.sink"

_WAITING = """
SELECT DISTINCT tenant_id, 'hits' AS kind FROM marketing_hits WHERE at < nexus_after(:age)
UNION ALL SELECT DISTINCT tenant_id, 'public' FROM marketing_public_events
UNION ALL SELECT DISTINCT tenant_id, 'reports' FROM marketing_provider_reports WHERE due_at <= nexus_now()
UNION ALL SELECT DISTINCT tenant_id, 'deltas' FROM marketing_engagement_deltas
UNION ALL SELECT DISTINCT u.tenant_id, 'audit' FROM ({sinks}) u WHERE
  (SELECT 1 FROM marketing_timers t WHERE t.tenant_id = u.tenant_id AND t.type = :sink_due AND t.key = u.sink) IS NULL
"""
# What waits for a sink that is away may be millions of rows: from one tenant and sink to the next, not through all of them.
_SINKS_POSTGRESQL = """
WITH RECURSIVE s AS (
  (SELECT tenant_id, sink FROM marketing_audit_untold ORDER BY tenant_id, sink LIMIT 1)
  UNION ALL SELECT n.tenant_id, n.sink FROM s CROSS JOIN LATERAL (SELECT tenant_id, sink FROM marketing_audit_untold
    WHERE (tenant_id, sink) > (s.tenant_id, s.sink) ORDER BY tenant_id, sink LIMIT 1) n
) SELECT tenant_id, sink FROM s"""
_SINKS_SQLITE = "SELECT DISTINCT tenant_id, sink FROM marketing_audit_untold"


def queued_work(session: Session, settling_seconds: float) -> list[Row[Any]]:
    """(tenant_id, kind) of what waits: ``hits`` old enough to be judged, ``public`` events, ``reports`` of providers,
    ``deltas`` to be folded, ``audit`` rows that a sink is to be told of.
    """
    statement = _WAITING.format(sinks=_SINKS_POSTGRESQL if is_postgresql(session) else _SINKS_SQLITE)
    return list(run_for_all(session, statement, {"age": -settling_seconds, "sink_due": SINK_DUE}, writes=False).all())


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
