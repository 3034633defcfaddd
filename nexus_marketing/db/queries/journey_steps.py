"""SQL of steps of runs: what is asked before it is decided on, and what is written then (``db.ahead``)."""
# ruff: noqa: S608 - the pieces put together here are our own words, never input

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from sqlalchemy import Executable, Table, bindparam, select, text
from sqlalchemy.orm import Session

from nexus_marketing.db.ahead import Question, ask, send
from nexus_marketing.db.models import JourneyRun, Tenant
from nexus_marketing.db.queries.deliveries import WITHHELD
from nexus_marketing.db.queries.journeys import IN_NO_HANDS
from nexus_marketing.db.queries.rowsets import Values, as_ids, columns_of, ids_of, of_tenant
from nexus_marketing.db.queries.segments import LEADS
from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import BigInt

_TENANT = bindparam("tenant_id", type_=BigInt)
_TENANTS = cast("Table", Tenant.__table__)
_RUNS = cast("Table", JourneyRun.__table__)
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


def lock_runs(session: Session, run_ids: Collection[int]) -> list[Any]:
    """Runs by the names of their columns, in the order of their ids; those that somebody else has locked are left out."""
    return ask(session, Question(_locking(ids_of(session)), {"ids": as_ids(run_ids)}, writes=True))()


@lru_cache(maxsize=2)
def _locking(ids: str) -> Executable:
    mine = select(_RUNS).where(_RUNS.c.tenant_id == _TENANT, text(f"id IN ({ids})"))
    return mine.order_by(_RUNS.c.id).with_for_update(skip_locked=True)


#: What of a run changes with its steps.
CHANGING: Final = {
    "state": "text",
    "node": "text",
    "visit": "bigint",
    "wake_at": "timestamptz",
    "wait_token": "bigint",
    "version": "bigint",
    "snapshot": "jsonb",
    "ended_at": "timestamptz",
    "reason": "text",
}
_CHANGE: Final = """
UPDATE marketing_journey_runs SET {changes} FROM {source}
WHERE {of_tenant} AND marketing_journey_runs.id = s.id AND marketing_journey_runs.version = s.before
RETURNING marketing_journey_runs.id
"""


def change_runs(session: Session, rows: Sequence[Values]) -> Callable[[], list[Any]]:
    """Write what runs became, each where it is of version ``before``; tells the (id,) of those. May be sent ahead.

    ``rows`` hold ``id``, ``before`` and the columns that change, moments as canonical text.
    """
    source, bound = columns_of(session, {"id": "bigint", "before": "bigint", **CHANGING}, rows)
    changes = ", ".join(f"{name} = s.{name}" for name in CHANGING)
    statement = _CHANGE.format(changes=changes, source=source, of_tenant=of_tenant(session, "marketing_journey_runs"))
    return ask(session, Question(statement, bound, writes=True))


_RECIPIENT: Final = {"place": "bigint", "lead_id": "bigint", "occurrence": "bigint"}
_WANTED = """
tenant_id = :tenant_id AND journey_id = :journey_id AND campaign_version = :version_number
  AND occurrence_key = :step AND channel = :channel
  AND campaign_id = (SELECT j.campaign_id FROM marketing_journeys j WHERE j.tenant_id = :tenant_id AND j.id = :journey_id)
"""
_GROW = f"UPDATE marketing_sends SET planned = planned + :count WHERE {_WANTED} RETURNING id"
_APPEND = f"""
INSERT INTO marketing_deliveries
  (tenant_id, send_id, seq, lead_id, channel, step, occurrence, state, reason, due_at, settled_at)
SELECT o.tenant_id, o.id, o.planned - :count + s.place, s.lead_id, o.channel, o.occurrence_key, s.occurrence,
  CASE WHEN o.is_open THEN 'planned' ELSE 'skipped' END, CASE WHEN o.is_open THEN NULL ELSE 'cancelled' END,
  CASE WHEN o.is_open THEN nexus_now() END, CASE WHEN o.is_open THEN NULL ELSE nexus_now() END
FROM (SELECT m.*, m.status IN ('running', 'paused') AS is_open FROM marketing_sends m WHERE {_WANTED}) o
CROSS JOIN {{source}}
"""


# A message whose first hand-over had no answer may be there already: it stays where it is.
_TO_PATCH = f"""
UPDATE marketing_deliveries AS d SET {WITHHELD.format(reason="'cancelled'")}, told_at = nexus_now()
WHERE d.tenant_id = :tenant_id AND d.lead_id = :lead_id AND d.occurrence = :occurrence AND d.step <> ''
  AND d.state = 'planned' AND (d.reason IS NULL OR d.reason <> 'ambiguous') AND {IN_NO_HANDS}
RETURNING channel
"""


def withdraw_to_patch(session: Session, lead_id: int, occurrence: int) -> list[str]:
    """Settle what one visit wrote and nobody has taken up, without telling its run; by which channels that was."""
    bound = {"lead_id": lead_id, "occurrence": occurrence}
    return sorted(run(session, _TO_PATCH, bound, writes=True).scalars())


def append_messages(
    session: Session, wanted: Mapping[str, Any], recipients: Sequence[tuple[int, int]]
) -> Callable[[], list[Any]]:
    """Write recipients into their send, as ones that are due, or settled at once where the send is over.

    Args:
        session: the caller's transaction, in which the send stays locked.
        wanted: which send: ``journey_id``, ``version_number``, ``step`` (the node) and ``channel``.
        recipients: lead and occurrence of each.

    Returns:
        What tells the send's id, or nothing where there is no such send and nothing was written. May be sent ahead.
    """
    counted = {**wanted, "count": len(recipients)}
    grown = ask(session, Question(_GROW, counted, writes=True))
    rows = [
        {"place": place, "lead_id": lead_id, "occurrence": occurrence}
        for place, (lead_id, occurrence) in enumerate(recipients, 1)
    ]
    source, bound = columns_of(session, _RECIPIENT, rows)
    send(session, _APPEND.format(source=source), {**counted, **bound})
    return grown
