"""Locks on a tenant's work, held until the transaction ends."""

from hashlib import blake2b

from sqlalchemy.orm import Session

from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, tenant_of

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(CAST(:lock AS bigint) + 0 * :tenant_id)"


def try_lock(session: Session, number: int) -> bool:
    """Take the lock of this number until the transaction ends, or answer ``False`` at once."""
    return bool(run(session, _TRY_LOCK, {"lock": number}, writes=False).scalar())


_WAIT_LOCK = "SELECT pg_advisory_xact_lock(CAST(:lock AS bigint) + 0 * :tenant_id)"


def wait_alone(session: Session, work: str) -> None:
    """Until the transaction ends nobody else does this kind of work for the session's tenant; on SQLite nobody can."""
    if is_postgresql(session):
        run(session, _WAIT_LOCK, {"lock": _number(session, work)}, writes=False)


def try_alone(session: Session, work: str) -> bool:
    """Whether nobody else does this kind of work for the session's tenant; on SQLite the single writer is alone."""
    if not is_postgresql(session):
        return True
    return try_lock(session, _number(session, work))


def _number(session: Session, work: str) -> int:
    digest = blake2b(f"{work}:{tenant_of(session)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
