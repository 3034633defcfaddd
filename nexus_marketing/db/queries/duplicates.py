"""SQL of the search for duplicates: keys of one window of leads, and who had the same before them."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run

Key = tuple[int, str, bytes]
_RANGE = "tenant_id = :tenant_id AND lead_id > :after AND lead_id <= :last"
_KEYS = f"SELECT lead_id, kind, key_hash FROM marketing_lead_keys WHERE {_RANGE}"  # noqa: S608 - our own words
_FORGET = (
    "DELETE FROM marketing_lead_keys WHERE tenant_id = :tenant_id"
    " AND lead_id = :lead_id AND kind = :kind AND key_hash = :key_hash"
)
_ADD = (
    "INSERT INTO marketing_lead_keys (tenant_id, lead_id, kind, key_hash)"
    " VALUES (:tenant_id, :lead_id, :kind, :key_hash) ON CONFLICT DO NOTHING"
)


def keep_keys(session: Session, after: int, last: int, keys: Collection[Key]) -> None:
    """Bring the keys of the leads of a window to these; where nothing has changed, nothing is written."""
    known = {
        (row.lead_id, row.kind, bytes(row.key_hash))
        for row in run(session, _KEYS, {"after": after, "last": last}, writes=False)
    }
    for statement, rows in ((_FORGET, known - {*keys}), (_ADD, {*keys} - known)):
        if rows:
            bound = [{"lead_id": lead, "kind": kind, "key_hash": hashed} for lead, kind, hashed in sorted(rows)]
            run(session, statement, bound, writes=True)


_EARLIER = """
SELECT k.lead_id, k.kind, (
    SELECT max(o.lead_id) FROM marketing_lead_keys o WHERE o.tenant_id = :tenant_id AND o.kind = k.kind
    AND o.key_hash = k.key_hash AND o.lead_id < k.lead_id) AS other_id
FROM marketing_lead_keys k WHERE k.tenant_id = :tenant_id AND k.lead_id > :after AND k.lead_id <= :last
ORDER BY k.lead_id, k.kind
"""


def earlier_leads(session: Session, after: int, last: int) -> list[Row[Any]]:
    """(lead_id, kind, other_id): for each key of the window the nearest lead before that has it too, if any."""
    found = run(session, _EARLIER, {"after": after, "last": last}, writes=False)
    return [row for row in found if row.other_id is not None]
