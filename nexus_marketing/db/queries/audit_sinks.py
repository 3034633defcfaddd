"""SQL of what sinks are still to be told of the audit."""
# ruff: noqa: S608 - the pieces put together here are our own, never input

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.queues import SINK_DUE
from nexus_marketing.db.queries.rowsets import as_ids, ids_of, is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import Json, UtcDateTime

# A change may be a letter long or hold a whole template: as many as fit, one at least.
_FIRST = """
SELECT * FROM (
  SELECT u.id, e.id AS audit_id, e.at, e.actor, e.action, e.subject_type, e.subject_id, e.request_id, e.body, e.body_hash,
    row_number() OVER (ORDER BY u.id) AS place, sum(length(CAST(e.body AS text))) OVER (ORDER BY u.id) AS size
  FROM (SELECT id, at, audit_id FROM marketing_audit_untold
      WHERE tenant_id = :tenant_id AND sink = :sink ORDER BY id LIMIT :piece) u
  LEFT JOIN marketing_audit e ON e.tenant_id = :tenant_id AND e.at = u.at AND e.id = u.audit_id
) f WHERE f.place = 1 OR coalesce(f.size, 0) <= :most ORDER BY f.id
"""
_BEHIND_PG = "EXTRACT(EPOCH FROM nexus_now() - min(u.at))"
_BEHIND_SQLITE = "(julianday(nexus_now()) - julianday(min(u.at))) * 86400"
_BEHIND = """
SELECT t.slug, u.sink, count(*) AS rows, {age} AS seconds FROM marketing_audit_untold u
JOIN marketing_tenants t ON t.id = u.tenant_id GROUP BY t.slug, u.sink HAVING {age} > :seconds ORDER BY 4 DESC LIMIT 20
"""


def first_untold(session: Session, sink: str, piece: int, most: int) -> list[Row[Any]]:
    """The tenant's audit rows that a sink is to be told of next, in the order of their writing.

    At most so many, with bodies of at most ``most`` characters together; ``audit_id`` is nothing where somebody removed the row.
    """
    statement = text(_FIRST).columns(body=Json, at=UtcDateTime())
    return list(run(session, statement, {"sink": sink, "piece": piece, "most": most}, writes=False))


def forget_untold(session: Session, ids: Collection[int]) -> None:
    """These were told."""
    statement = f"DELETE FROM marketing_audit_untold WHERE tenant_id = :tenant_id AND id IN ({ids_of(session)})"
    run(session, statement, {"ids": as_ids(ids)}, writes=True)


def forget_sink(session: Session, sink: str, before: datetime | None = None) -> int:
    """What waits for this sink, or was written before a moment, is not told any more; how much that was."""
    mine = "DELETE FROM marketing_audit_untold WHERE tenant_id = :tenant_id AND sink = :sink"
    if before is None:
        return int(run(session, mine, {"sink": sink}, writes=True).rowcount)  # type: ignore[attr-defined]
    old = text(f"{mine} AND at < :before").bindparams(bindparam("before", type_=UtcDateTime()))
    return int(run(session, old, {"sink": sink, "before": before}, writes=True).rowcount)  # type: ignore[attr-defined]


def waits_for(session: Session, sink: str) -> bool:
    """Whether anything of the tenant waits for this sink."""
    statement = "SELECT 1 FROM marketing_audit_untold WHERE tenant_id = :tenant_id AND sink = :sink LIMIT 1"
    return run(session, statement, {"sink": sink}, writes=False).first() is not None


def sinks_to_wake(session: Session) -> list[str]:
    """The sinks that the tenant's rows wait for, and that no timer is set for."""
    statement = (
        "SELECT DISTINCT u.sink FROM marketing_audit_untold u WHERE u.tenant_id = :tenant_id AND NOT EXISTS"
        " (SELECT 1 FROM marketing_timers t WHERE t.tenant_id = :tenant_id AND t.type = :type AND t.key = u.sink)"
    )
    return [row.sink for row in run(session, statement, {"type": SINK_DUE}, writes=False)]


def sinks_behind(session: Session, seconds: float) -> list[Row[Any]]:
    """Sinks that were not told for so long, over all tenants: ``slug``, ``sink``, ``rows``, ``seconds``; for ``doctor``."""
    statement = _BEHIND.format(age=_BEHIND_PG if is_postgresql(session) else _BEHIND_SQLITE)
    return list(run_for_all(session, statement, {"seconds": seconds}, writes=False))
