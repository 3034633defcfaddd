"""SQL of taking back what a send has handed over: its recipients from the last to the first."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.deliveries import TAKEN, DeliveryState
from nexus_marketing.db.queries.deliveries import ADDRESSES
from nexus_marketing.db.tenancy import run

_TAKEN_BACK = (*map(str, TAKEN), str(DeliveryState.UNKNOWN))
_ROWS = """
SELECT d.seq, d.provider_code, {address} FROM marketing_deliveries d
LEFT JOIN marketing_leads l ON l.tenant_id = :tenant_id AND l.id = d.lead_id
WHERE d.tenant_id = :tenant_id AND d.send_id = :send_id AND d.seq < :before AND d.state IN :states
ORDER BY d.seq DESC LIMIT :size
"""


def handed_over_before(session: Session, send_id: int, kind: AddressKind, before: int, size: int) -> Sequence[Row[Any]]:
    """(seq, provider_code, address …) of messages that were taken, or may have been; the last first."""
    statement = text(_ROWS.format(address=ADDRESSES[kind])).bindparams(bindparam("states", expanding=True))
    values = {"send_id": send_id, "before": before, "size": size, "states": list(_TAKEN_BACK)}
    return run(session, statement, values, writes=False).all()
