"""Which database errors go away by themselves, and which say that a statement took too long.

zope.sqlalchemy marks only serialization failures as retryable; a busy SQLite file, a PostgreSQL that restarts
or drops the connection, a disk that is full and a pool whose connections are all lent are just as transient
(DATABASE.md, SQLite, Retry).
"""

from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from nexus_marketing.telemetry import scrub

#: serialization_failure, deadlock_detected, admin_shutdown, crash_shutdown, cannot_connect_now, the class 53 (disk or
#: memory full, too many connections: until somebody makes room), and the class 08 (connection exceptions).
_SQLSTATES = ("40001", "40P01", "57P01", "57P02", "57P03", "53", "08")
_CONFLICTS = ("40001", "40P01")
#: Somebody else writes or opens the file at the same moment, or the disk or the memory is full.
_SQLITE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_PROTOCOL",
    "SQLITE_FULL",
    "SQLITE_IOERR_WRITE",
    "SQLITE_IOERR_SHMSIZE",
    "SQLITE_NOMEM",
    "SQLITE_IOERR_NOMEM",
)
#: query_canceled, which a statement's timeout is, and what SQLite's progress handler leads to.
_TIMEOUTS = ("57014", "SQLITE_INTERRUPT")


#: What the database itself is behind, and not what was asked of it; a pool that lends no more belongs to it.
DATABASE_ERRORS = (DBAPIError, PoolTimeout)


def cause_of(error: BaseException) -> BaseException:
    """The driver's error behind one of SQLAlchemy's; the error itself where there is none."""
    return getattr(error, "orig", None) or error


def is_timeout(error: BaseException) -> bool:
    """Whether the database gave a statement up because its time was over (``nexus_timeout_seconds``)."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", "")
    return state in _TIMEOUTS


def reason_of(error: BaseException) -> str:
    """What may be kept of an error beside what failed: no address, no key, and nothing of what a statement was about.

    PostgreSQL says whole rows in the detail of an error; of it the kind and the constraint are kept.
    """
    if not isinstance(error, DBAPIError):
        return scrub(str(error)) or type(error).__name__
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or "no code"
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return f"{type(error.orig).__name__} ({state})" + (f": {constraint}" if constraint else "")


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions were in each other's way and this one gave way: nothing is wrong with the connection."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def is_transient(error: BaseException) -> bool:
    """Whether the same work may well succeed when it is simply done again."""
    if isinstance(error, DisconnectionError | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_SQLSTATES)
    name = getattr(error.orig, "sqlite_errorname", "")
    if name:
        return name.startswith(_SQLITE)
    # psycopg gives no SQLSTATE when the connection itself is gone or refused.
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
