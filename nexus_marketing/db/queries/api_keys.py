"""The one look-up that happens before a tenant is known: a key by its public id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from nexus_marketing.db.tenancy import open_session, run_for_all
from nexus_marketing.db.types import from_text, read_json

#: On PostgreSQL a SECURITY DEFINER function: the web role sees no key of any tenant by itself.
_POSTGRESQL = "SELECT * FROM nexus_find_api_key(:key_id)"
_SQLITE = """
SELECT k.tenant_id, k.id, k.secret_hash, k.scopes, k.member_id, k.expires_at, k.revoked_at, t.suspended_at
FROM marketing_api_keys k JOIN marketing_tenants t ON t.id = k.tenant_id
WHERE k.key_id = :key_id
"""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A stored key; ``secret_hash`` is the SHA-256 of its secret."""

    tenant_id: int
    id: int
    secret_hash: bytes
    scopes: Sequence[str]
    member_id: int | None
    expires_at: datetime | None
    revoked_at: datetime | None
    suspended_at: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Neither revoked nor expired, and its tenant not suspended."""
        expired = self.expires_at is not None and self.expires_at <= now
        return not expired and self.revoked_at is None and self.suspended_at is None


def find_api_key(engine: Engine, key_id: str) -> KeyRow | None:
    """The key with this public id, whichever tenant it belongs to."""
    statement = _POSTGRESQL if engine.dialect.name == "postgresql" else _SQLITE
    with open_session(engine, tenant_id=None, mode="read") as session:
        row = run_for_all(session, statement, {"key_id": key_id}, writes=False).one_or_none()
    if row is None:
        return None
    scopes = read_json(row.scopes)
    moments = (_moment(value) for value in (row.expires_at, row.revoked_at, row.suspended_at))
    return KeyRow(row.tenant_id, row.id, bytes(row.secret_hash), tuple(scopes), row.member_id, *moments)


def _moment(value: Any) -> datetime | None:
    return from_text(value) if isinstance(value, str) else value
