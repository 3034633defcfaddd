"""Bring a database to the schema this version needs, and see whether it is there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from nexus_marketing import migrations
from nexus_marketing.core.errors import ConfigurationError, Conflict
from nexus_marketing.db.base import Base
from nexus_marketing.db.engines import Engines
from nexus_marketing.db.files import refuse_network_file
from nexus_marketing.db.queries.reactions import INDEXED_HANDLES

if os.name == "posix":
    import fcntl


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations shipped in this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(engines: Engines, revision: str = "head") -> None:
    """Run the migrations that are missing, as the owner.

    Raises:
        Conflict: a server holds the SQLite file; stop it first.
    """
    with _alone(engines.owner), owner_connection(engines.owner) as connection:
        command.upgrade(alembic_config(connection), revision)


def downgrade(engines: Engines, revision: str) -> None:
    """Take migrations back, as the owner.

    Raises:
        Conflict: a server holds the SQLite file; stop it first.
    """
    with _alone(engines.owner), owner_connection(engines.owner) as connection:
        command.downgrade(alembic_config(connection), revision)


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    lock = lock_file(engine)
    if lock is None:
        yield
        return
    try:
        lock.hold_alone()
        yield
    finally:
        lock.release()


def owner_connection(engine: Engine) -> Connection:
    """A connection in a write transaction that commits when the block ends well."""
    return engine.connect().execution_options(nexus_mode="write")


def current_revision(engines: Engines) -> str | None:
    """The revision the database is at; ``None`` for an empty one."""
    with engines.worker.connect().execution_options(nexus_mode="read") as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """The revision this version of the product needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None  # there is at least one migration
    return head


def require_current(engines: Engines) -> None:
    """Refuse to run on another schema than ours.

    Raises:
        ConfigurationError: names both revisions and the command that mends it.
    """
    found, wanted = current_revision(engines), head_revision()
    if found != wanted:
        raise ConfigurationError(
            f"The database is at revision {found or 'none'}, this version needs {wanted}: "
            "run `nexus-marketing db upgrade`."
        )


def differences(connection: Connection) -> list[object]:
    """What the models say and the database does not, or the other way round."""
    options = {"compare_type": True, "include_name": _is_ours}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    if kind == "index":
        return name not in _POSTGRESQL_ONLY
    # Partitions and search indexes are made by the database for their parents and are in no model.
    return kind != "table" or name in Base.metadata.tables or not str(name).startswith(_PARTITIONED)


#: Kinds of index that SQLite does not have or cannot be asked about, so that no model can say them for both.
_POSTGRESQL_ONLY = frozenset(
    {
        "ix_marketing_engagements_words",
        "ix_marketing_engagements_id",
        *(f"ix_marketing_leads_{network}_handle" for network in INDEXED_HANDLES),
    }
)
_PARTITIONED = ("marketing_engagements_", "marketing_event_seen_")


def lock_file(engine: Engine) -> "ServerLock | None":
    """The lock that a server on an SQLite file holds; ``None`` on PostgreSQL.

    Raises:
        ConfigurationError: the file is on a network file system.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = Path(str(engine.url.database))
    refuse_network_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return ServerLock(Path(f"{path}.lock"))


class ServerLock:
    """Held by a serving process: migrations wait outside, a second server may share it.

    Raises:
        Conflict: on :meth:`hold_alone`, when a server is running.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a")

    def hold_shared(self) -> None:
        """A server is running on this file until this process ends."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def hold_alone(self) -> None:
        """Nobody else may serve this file."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"A server is running on {self._path.with_suffix('')}: stop it, then run the command again."
            ) from None

    def release(self) -> None:
        """Let go."""
        self._file.close()
