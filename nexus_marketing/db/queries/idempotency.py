"""The lock under an ``Idempotency-Key`` (PostgreSQL)."""

from sqlalchemy.orm import Session

from nexus_marketing.db.tenancy import run

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(CAST(:lock AS bigint) + 0 * :tenant_id)"


def try_lock(session: Session, number: int) -> bool:
    """Take the lock of this number until the transaction ends, or answer ``False`` at once."""
    return bool(run(session, _TRY_LOCK, {"lock": number}, writes=False).scalar())
