"""Partitions made ahead of time (DATABASE.md, Partitions)."""

from datetime import date

from sqlalchemy import Connection, Engine, text

from nexus_marketing.db.engines import Engines

_PARTITIONS = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " JOIN pg_class p ON p.oid = i.inhparent WHERE p.relnamespace = current_schema()::regnamespace ORDER BY 1"
)


def make_partitions(engines: Engines, today: date) -> list[str]:
    """Make what is missing around a day, as the owner; answers the new partitions. SQLite has none."""
    if engines.dialect != "postgresql":
        return []
    with engines.owner.begin() as connection:
        before = _names(connection)
        connection.execute(text("SELECT nexus_create_partitions(:today)"), {"today": today})
        return sorted(_names(connection) - before)


def keep_ahead(worker: Engine, today: date) -> None:
    """Make what is missing around a day, as the worker: the function runs with its owner's rights."""
    if worker.dialect.name == "postgresql":
        with worker.begin() as connection:
            connection.execute(text("SELECT nexus_create_partitions(:today)"), {"today": today})


def _names(connection: Connection) -> set[str]:
    return set(connection.execute(_PARTITIONS).scalars())
