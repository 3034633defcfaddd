"""Engines: three roles on PostgreSQL, one file with a fair writer on SQLite.

Transactions begin with our own statement, so that the tenant travels in the round trip of BEGIN
(measured: 425 against 668 us a transaction) and SQLite never upgrades a read to a write.
Execution options of the connection say what kind of transaction it is:

* ``nexus_mode``: ``read``, ``write`` or ``durable`` (a write whose commit must survive a power cut);
* ``nexus_tenant``: the tenant for row-level security, absent for the worker and owner roles;
* ``nexus_timeout_seconds``: when the database gives a statement up. PostgreSQL counts for each statement,
  SQLite from the beginning of the transaction; how it shows is ``db.retry.is_timeout``;
* ``nexus_by_index``: PostgreSQL plans by indexes alone (``db.by_index``).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db.locks import FairLock
from nexus_marketing.db.types import to_text

MIN_POSTGRESQL = 150000
MIN_SQLITE = (3, 39, 0)
#: See above, and ``db.by_index``.
BY_INDEX = "nexus_by_index"
#: Where a connection keeps how its next transaction begins, and how long its statements may take.
_BEGIN = "nexus_begin"
_TIMEOUT = "nexus_timeout_seconds"
_BEGIN_READING = "BEGIN READ ONLY"
#: Steps of SQLite's machine between two looks at the clock: about a tenth of a millisecond.
_STEPS_PER_LOOK = 10_000


@dataclass(frozen=True, slots=True)
class Engines:
    """The doors to the database. On SQLite all three are the same engine."""

    app: Engine
    worker: Engine
    owner: Engine

    @property
    def dialect(self) -> str:
        """``postgresql`` or ``sqlite``."""
        return self.app.dialect.name

    def dispose(self) -> None:
        """Close every pooled connection."""
        for engine in (self.app, self.worker, self.owner):
            engine.dispose()


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is. On SQLite the three URLs are the same file."""

    app_url: str
    worker_url: str
    owner_url: str
    pool_size: int = 10
    busy_timeout_seconds: float = 5.0
    prepared_statements: bool = True


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def build_engines(settings: DatabaseSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Engines:
    """Open the engines; no connection is made yet.

    Args:
        settings: the URLs.
        now: database time on SQLite (``nexus_now()``); PostgreSQL has its own clock.
    """
    url = make_url(settings.app_url)
    if url.get_backend_name() == "sqlite":
        engine = _sqlite_engine(url, settings, now)
        return Engines(engine, engine, engine)
    urls = (settings.app_url, settings.worker_url, settings.owner_url)
    return Engines(*(_postgresql_engine(make_url(each), settings) for each in urls))


def _postgresql_engine(url: URL, settings: DatabaseSettings) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=settings.pool_size,
        max_overflow=settings.pool_size,
        pool_pre_ping=False,
        pool_reset_on_return="rollback",
        # An error ends in logs and beside what failed, where no erasure finds what a statement was about.
        hide_parameters=True,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
        connect_args={
            "autocommit": True,
            "prepare_threshold": 5 if settings.prepared_statements else None,
            "connect_timeout": 5,
            "application_name": "nexus-marketing",
        },
    )

    event.listen(engine, "begin", _choose_begin)
    event.listen(engine, "rollback", _end_reading)
    engine.dialect.do_begin = _send_begin  # type: ignore[assignment, method-assign]
    return engine


# Two steps, because only the event knows the execution options and only errors of ``do_begin`` are treated
# as database errors: BEGIN is where a connection that died in the pool shows, and then all of them go.
def _choose_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    mode = options.get("nexus_mode", "write")
    statement = _BEGIN_READING if mode == "read" else "BEGIN"
    tenant = options.get("nexus_tenant")
    if tenant is not None:
        statement += f"; SET LOCAL app.tenant = '{int(tenant)}'"
    timeout = options.get(_TIMEOUT)
    if timeout is not None:
        statement += f"; SET LOCAL statement_timeout = {round(timeout * 1000)}"
    if mode == "durable":
        statement += "; SET LOCAL synchronous_commit = on"
    if options.get(BY_INDEX):
        statement += "; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"
    connection.connection.info[_BEGIN] = statement


def _send_begin(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(connection.info[_BEGIN], prepare=False)


def _end_reading(connection: Connection) -> None:
    """Where nothing was written COMMIT does the same, and the driver keeps the statements that it has prepared.

    The rollback that follows finds nothing to do, or the same error.
    """
    if not connection.invalidated and connection.connection.info.get(_BEGIN, "").startswith(_BEGIN_READING):
        with suppress(connection.dialect.loaded_dbapi.Error):
            connection.connection.commit()


def _sqlite_engine(url: URL, settings: DatabaseSettings, now: Callable[[], datetime]) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "nexus.database_url: an in-memory SQLite database cannot be shared by threads; name a file, "
            "for example sqlite:///var/nexus.db."
        )
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_size,
        hide_parameters=True,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": settings.busy_timeout_seconds},
    )
    lock = FairLock()
    writer = _SqliteWriter(lock, settings.busy_timeout_seconds)
    event.listen(engine, "connect", lambda dbapi, _record: _prepare_sqlite(dbapi, now))
    event.listen(engine, "begin", writer.choose_mode)
    engine.dialect.do_begin = writer.begin  # type: ignore[assignment, method-assign]
    event.listen(engine, "checkin", writer.checkin)
    event.listen(engine, "invalidate", lambda dbapi, record, _error: writer.checkin(dbapi, record))
    return engine


def _prepare_sqlite(dbapi: Any, now: Callable[[], datetime]) -> None:
    from nexus_marketing.db.conditions import register_sqlite_functions  # noqa: PLC0415 - loads re2

    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=NORMAL",
        "temp_store=MEMORY",
        "wal_autocheckpoint=1000",
        "trusted_schema=OFF",
    ):
        dbapi.execute(f"PRAGMA {pragma}")
    # trusted_schema=OFF keeps functions out of defaults and triggers: nexus_now is used in statements only.
    dbapi.create_function("nexus_now", 0, lambda: to_text(now()))
    dbapi.create_function("nexus_after", 1, lambda seconds: to_text(now() + timedelta(seconds=seconds)))
    register_sqlite_functions(dbapi)


@dataclass(slots=True)
class _SqliteWriter:
    """Begins transactions and holds the write lock from BEGIN IMMEDIATE to the end of the transaction."""

    lock: FairLock
    timeout_seconds: float
    holders: set[int] = field(default_factory=set)

    def choose_mode(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        mode = options.get("nexus_mode", "write")
        connection.connection.info.update({_BEGIN: mode, _TIMEOUT: options.get(_TIMEOUT)})

    # The turn is taken here and not in the event before it: only errors of ``do_begin`` become database errors, and
    # whoever waits for this process's other writers in vain is in no other position than who waits for another process.
    def begin(self, connection: Any) -> None:
        mode, dbapi = connection.info[_BEGIN], connection.dbapi_connection
        _limit(dbapi, connection.info[_TIMEOUT])
        if mode == "read":
            dbapi.execute("PRAGMA query_only=ON")
            dbapi.execute("BEGIN")
            return
        # A connection that writes again before it is given back (one migration after another) still has its turn.
        if id(dbapi) not in self.holders:
            if not self.lock.acquire(self.timeout_seconds):
                raise _busy()
            self.holders.add(id(dbapi))
        try:
            dbapi.execute("PRAGMA query_only=OFF")
            dbapi.execute(f"PRAGMA synchronous={'FULL' if mode == 'durable' else 'NORMAL'}")
            dbapi.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._release(dbapi)
            raise

    def checkin(self, dbapi: Any, _record: Any) -> None:
        # "commit" and "rollback" events run before their statement; the lock must outlive it, so only
        # the return to the pool lets go. Sessions give their connection back at each commit.
        self._release(dbapi)

    def _release(self, dbapi: Any) -> None:
        if id(dbapi) in self.holders:
            self.holders.discard(id(dbapi))
            self.lock.release()


def _busy() -> Exception:
    """What SQLite itself says where another process writes for too long."""
    import sqlite3  # noqa: PLC0415

    error = sqlite3.OperationalError("database is busy writing: nothing was changed, try again")
    error.sqlite_errorname = "SQLITE_BUSY"
    return error


def _limit(dbapi: Any, seconds: float | None) -> None:
    """Interrupt what the connection does once the time is over, or let it be."""
    if seconds is None:
        dbapi.set_progress_handler(None, 0)
        return
    end = monotonic() + seconds
    dbapi.set_progress_handler(lambda: monotonic() > end, _STEPS_PER_LOOK)


def check_versions(engines: Engines) -> str:
    """Refuse servers older than what row-level security and our SQL need; answer the version.

    Raises:
        ConfigurationError: names the version found and the remedy.
    """
    with engines.worker.connect().execution_options(nexus_mode="read") as connection:
        dbapi = connection.connection.dbapi_connection
        if engines.dialect == "postgresql":
            found = dbapi.info.server_version  # type: ignore[union-attr]
            text = f"PostgreSQL {found // 10000}.{found % 10000}"
            too_old = found < MIN_POSTGRESQL
        else:
            import sqlite3  # noqa: PLC0415

            text = f"SQLite {sqlite3.sqlite_version}"
            too_old = sqlite3.sqlite_version_info < MIN_SQLITE
    if too_old:
        raise ConfigurationError(f"{text} is too old: use PostgreSQL 15 or SQLite 3.39 or newer.")
    return text
