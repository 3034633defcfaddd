"""SQL of one step of a run: what is asked before it is decided on, and what is written then (``db.ahead``)."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Final, cast

from sqlalchemy import Executable, Table, bindparam, select, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, ask, send
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.rowsets import as_ids, ids_of
from nexus_marketing.db.queries.segments import LEADS
from nexus_marketing.db.types import BigInt, Json, UtcDateTime

_TENANT = bindparam("tenant_id", type_=BigInt)
_TENANTS = cast("Table", Tenant.__table__)
_SETTINGS = select(_TENANTS.c.settings).where(_TENANTS.c.id == _TENANT)
_STANDING = """
SELECT j.status, v.digest FROM marketing_journeys j JOIN marketing_journey_versions v
  ON v.tenant_id = :tenant_id AND v.journey_id = j.id AND v.number = :number
WHERE j.tenant_id = :tenant_id AND j.id = :journey_id
"""


def standing_of(journey_id: int, number: int) -> Question:
    """(status of a journey, digest of one of its versions)."""
    return Question(_STANDING, {"journey_id": journey_id, "number": number})


def tenant_settings() -> Question:
    """(settings,) of the tenant."""
    return Question(_SETTINGS, {})


def records_of(session: Session, lead_ids: Collection[int]) -> Question:
    """Leads by the names of their columns; those that are gone are left out."""
    return Question(_records(ids_of(session)), {"ids": as_ids(lead_ids)})


def segments_of(session: Session, lead_ids: Collection[int]) -> Question:
    """(lead_id, segment_id) of leads."""
    statement = (
        "SELECT lead_id, segment_id FROM marketing_segment_members"
        f" WHERE tenant_id = :tenant_id AND lead_id IN ({ids_of(session)})"
    )
    return Question(statement, {"ids": as_ids(lead_ids)})


@lru_cache(maxsize=2)
def _records(ids: str) -> Executable:
    return select(LEADS).where(LEADS.c.tenant_id == _TENANT, text(f"id IN ({ids})"), LEADS.c.gone_at.is_(None))


_CHANGED: Final = text("""
UPDATE marketing_journey_runs SET state = :state, node = :node, visit = :visit, wake_at = :wake_at,
  wait_token = :wait_token, version = :version, snapshot = :snapshot, ended_at = :ended_at, reason = :reason
WHERE tenant_id = :tenant_id AND id = :id AND version = :before RETURNING id
""").bindparams(
    bindparam("wake_at", type_=UtcDateTime()),
    bindparam("ended_at", type_=UtcDateTime()),
    bindparam("snapshot", type_=Json),
)


def change_run(session: Session, run_id: int, before: int, values: Mapping[str, Any]) -> Callable[[], list[Any]]:
    """Write what a run became where it is of version ``before``; tells the row, or none. May be sent ahead."""
    return ask(session, Question(_CHANGED, {**values, "id": run_id, "before": before}, writes=True))


_WANTED = """
tenant_id = :tenant_id AND journey_id = :journey_id AND campaign_version = :version_number
  AND occurrence_key = :step AND channel = :channel
  AND campaign_id = (SELECT j.campaign_id FROM marketing_journeys j WHERE j.tenant_id = :tenant_id AND j.id = :journey_id)
"""
_GROW = f"UPDATE marketing_sends SET planned = planned + 1 WHERE {_WANTED} RETURNING id"
_APPEND = f"""
INSERT INTO marketing_deliveries
  (tenant_id, send_id, seq, lead_id, channel, step, occurrence, state, reason, due_at, settled_at)
SELECT s.tenant_id, s.id, s.planned, :lead_id, s.channel, s.occurrence_key, :occurrence,
  CASE WHEN s.is_open THEN 'planned' ELSE 'skipped' END, CASE WHEN s.is_open THEN NULL ELSE 'cancelled' END,
  CASE WHEN s.is_open THEN nexus_now() END, CASE WHEN s.is_open THEN NULL ELSE nexus_now() END
FROM (SELECT m.*, m.status IN ('running', 'paused') AS is_open FROM marketing_sends m WHERE {_WANTED}) s
"""


def append_message(session: Session, message: Mapping[str, Any]) -> Callable[[], list[Any]]:
    """Write a recipient into its send, as one that is due, or settled at once where the send is over.

    Args:
        session: the caller's transaction, in which the send stays locked.
        message: ``journey_id``, ``version_number``, ``step`` (the node), ``channel``, ``lead_id`` and ``occurrence``.

    Returns:
        What tells the send's id, or nothing where there is no such send and nothing was written. May be sent ahead.
    """
    names = ("journey_id", "version_number", "step", "channel")
    wanted = {name: message[name] for name in names}
    grown = ask(session, Question(_GROW, wanted, writes=True))
    send(session, _APPEND, message)
    return grown
