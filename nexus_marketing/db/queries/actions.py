"""SQL of named actions: written once for an occurrence."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run
from nexus_marketing.db.types import BigInt, Json, UtcDateTime

_ADD = text("""
INSERT INTO marketing_actions
  (tenant_id, key, name, source, campaign_id, lead_id, data, compensation, undoes, run_id, state, created_at)
VALUES (:tenant_id, :key, :name, :source, :campaign_id, :lead_id, :data, :compensation, :undoes, :run_id, 'waiting', :now)
ON CONFLICT (tenant_id, key) DO NOTHING RETURNING id
""").bindparams(
    bindparam("now", type_=UtcDateTime()),
    bindparam("data", type_=Json),
    *(bindparam(name, type_=BigInt) for name in ("campaign_id", "lead_id", "undoes", "run_id")),
)
_FIND = "SELECT id FROM marketing_actions WHERE tenant_id = :tenant_id AND key = :key"


def add_action(session: Session, values: Mapping[str, Any]) -> tuple[int, bool]:
    """Write down that something is asked for: its id, and whether it is new."""
    found = run(session, _ADD, values, writes=True).scalar()
    if found is not None:
        return int(found), True
    return int(run(session, _FIND, {"key": values["key"]}, writes=False).scalar_one()), False
