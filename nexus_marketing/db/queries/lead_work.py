"""What waits for a worker of a tenant's leads: removals, imports, and what imports have left behind."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run_for_all
from nexus_marketing.db.types import to_text


class LeadWork(StrEnum):
    """A merged or erased lead that others still refer to; an import that nobody holds; an uploaded file, and
    what it takes to undo an import, that have outlived their time.
    """

    REMOVAL = "removal"
    IMPORT = "import"
    UPLOAD = "upload"
    TRACES = "traces"


_AT_WORK = "status IN ('checking', 'running', 'undoing')"
#: The order in which they wait, and which do.
_QUEUES = {
    LeadWork.REMOVAL: "marketing_lead_removals WHERE finished_at IS NULL ORDER BY tenant_id, id",
    LeadWork.IMPORT: (
        f"marketing_lead_imports WHERE {_AT_WORK} AND (blob_key IS NOT NULL OR status = 'undoing')"
        " AND (leased_until IS NULL OR leased_until < :now) ORDER BY tenant_id, id"
    ),
    **{
        kind: (
            f"marketing_lead_imports WHERE {kind}_until IS NOT NULL AND {kind}_until < :now AND NOT {_AT_WORK}"
            f" ORDER BY {kind}_until, tenant_id"
        )
        for kind in (LeadWork.UPLOAD, LeadWork.TRACES)
    },
}
_EACH = "SELECT * FROM (SELECT '{kind}' AS kind, tenant_id, id FROM {queue} LIMIT 100) AS {kind}s"


def lead_work(session: Session, now: datetime, kinds: Sequence[LeadWork] = tuple(LeadWork)) -> list[Row[Any]]:
    """(kind, tenant_id, id) of what waits, at most a hundred of each kind."""
    statement = " UNION ALL ".join(_EACH.format(kind=kind, queue=_QUEUES[kind]) for kind in kinds)
    bound = {"now": now if is_postgresql(session) else to_text(now)} if ":now" in statement else {}
    return list(run_for_all(session, statement, bound, writes=False))
