"""SQL of pre-flights: pieces of an audience as a send would meet it, without a ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.db.queries.deliveries import ADDRESSES, LEAD_COLUMNS, Recipient
from nexus_marketing.db.queries.planning import EXCLUDED
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all

_MEMBERS = {"members": "marketing_segment_members", "of": "segment_id"}
_PIECE = """
SELECT {excluded} AS excluded, row_number() OVER (ORDER BY m.lead_id) AS seq, m.lead_id, 0 AS attempts, NULL AS mark,
  {address}, l.country, l.time_zone{columns}
FROM ({who}) AS m
{lead}
ORDER BY m.lead_id
"""
_NEXT = """
SELECT lead_id FROM marketing_segment_members
WHERE tenant_id = :tenant_id AND segment_id = :source AND lead_id > :cursor ORDER BY lead_id LIMIT :size
"""
_ONE = "SELECT CAST(:lead_id AS bigint) AS lead_id"
_LEAD_PG = """CROSS JOIN LATERAL (
  SELECT e.* FROM marketing_leads e WHERE e.tenant_id = :tenant_id AND e.id = m.lead_id OFFSET 0) AS l"""
_LEAD_SQLITE = "CROSS JOIN marketing_leads l ON l.tenant_id = :tenant_id AND l.id = m.lead_id"


def audience_piece(
    session: Session, segment_id: int, kind: AddressKind, cursor: int, size: int, columns: Sequence[str]
) -> list[tuple[str | None, Recipient]]:
    """The next members after a lead: why planning would leave each out, or nothing; and the recipient it would be."""
    return _recipients(session, _NEXT, kind, columns, {"source": segment_id, "cursor": cursor, "size": size})


def one_of_audience(
    session: Session, segment_id: int, kind: AddressKind, lead_id: int, columns: Sequence[str]
) -> tuple[str | None, Recipient]:
    """The same of one lead, a member or not."""
    values = {"source": segment_id, "lead_id": lead_id}
    return _recipients(session, _ONE, kind, columns, values)[0]


def _recipients(
    session: Session, who: str, kind: AddressKind, columns: Sequence[str], values: Mapping[str, Any]
) -> list[tuple[str | None, Recipient]]:
    wanted = "".join(f", {LEAD_COLUMNS[name]} AS x_{name}" for name in columns)
    statement = _PIECE.format(
        who=who,
        excluded=EXCLUDED[kind].format(**_MEMBERS),
        address=ADDRESSES[kind],
        columns=wanted,
        lead=_LEAD_PG if is_postgresql(session) else _LEAD_SQLITE,
    )
    own = len(Recipient._fields)
    return [
        (row[0], Recipient._make((*row[1:own], row[own:]))) for row in run(session, statement, values, writes=False)
    ]


def preflights_waiting(session: Session) -> list[Row[Any]]:
    """(tenant_id, id, segment_id, cursor) of pre-flights that are not done, oldest first."""
    statement = (
        "SELECT p.tenant_id, p.id, p.cursor, (SELECT c.segment_id FROM marketing_campaigns c"
        " WHERE c.tenant_id = p.tenant_id AND c.id = p.campaign_id) AS segment_id"
        " FROM marketing_preflights p WHERE p.status = 'waiting' ORDER BY p.id LIMIT 20"
    )
    return list(run_for_all(session, statement, writes=False))


def fail_preflight(session: Session, preflight_id: int, error: str) -> None:
    """Give a pre-flight up, with the reason shown to people."""
    statement = (
        "UPDATE marketing_preflights SET status = 'failed', error = :error, finished_at = nexus_now()"
        " WHERE tenant_id = :tenant_id AND id = :preflight_id AND status = 'waiting'"
    )
    run(session, statement, {"preflight_id": preflight_id, "error": error[:500]}, writes=True)
