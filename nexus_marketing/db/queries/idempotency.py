"""The end of answers that have had their time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import UtcDateTime

_PIECE = 500
_OLD = text(
    "SELECT tenant_id, key FROM marketing_idempotency_keys WHERE created_at < :before ORDER BY created_at LIMIT :piece"
).bindparams(bindparam("before", type_=UtcDateTime()))
_FORGET = "DELETE FROM marketing_idempotency_keys WHERE tenant_id = :tenant_id AND key = :key"


def answers_before(session: Session, before: datetime) -> Sequence[Row[Any]]:
    """Tenant and key of the oldest answers kept before a moment, a piece of them."""
    return run_for_all(session, _OLD, {"before": before, "piece": _PIECE}, writes=False).all()


def forget_answers_of(session: Session, keys: Sequence[str]) -> None:
    """Let go of a tenant's answers."""
    run(session, _FORGET, [{"key": key} for key in sorted(keys)], writes=True)
