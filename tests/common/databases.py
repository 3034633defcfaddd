"""Databases at the schema of the models: migrated once per run, then copied. And a runtime on each.

Everything here is a plain function or context manager, so that benchmarks and the chaos suite use it too;
``tests/common/database_fixtures.py`` makes fixtures of them.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.engines import DatabaseSettings, Engines, build_engines
from nexus_marketing.db.roles import APP, OWNER, WORKER
from nexus_marketing.db.upgrade import upgrade
from nexus_marketing.keys import Keys
from nexus_marketing.runtime import Runtime
from nexus_marketing.settings import Settings
from tests.common.servers import PostgresCluster, Run

TEMPLATE = "migrated"
#: Where the clocks of tests stand: a Monday, with partitions made around it.
NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
SEED = 20260302
SECRET_KEY = "tests-only-0123456789abcdefghijklmnopqrstuvwxyz"


def postgres_settings(cluster: PostgresCluster, database: str, **options: Any) -> DatabaseSettings:
    """The URLs of the three roles for a database of the cluster."""
    return DatabaseSettings(
        app_url=cluster.dsn(APP, database),
        worker_url=cluster.dsn(WORKER, database),
        owner_url=cluster.dsn(OWNER, database),
        **options,
    )


def sqlite_settings(path: Path, **options: Any) -> DatabaseSettings:
    """The one URL of an SQLite file, three times."""
    url = f"sqlite:///{path}"
    return DatabaseSettings(app_url=url, worker_url=url, owner_url=url, **options)


@dataclass(slots=True)
class DatabaseTime:
    """Database time that a test moves forward: what leases and retries are measured by.

    On SQLite it is given to the engine; on PostgreSQL :meth:`advance` replaces ``nexus_now()``.
    """

    offset: timedelta = field(default_factory=timedelta)
    owner: Engine | None = None

    def now(self) -> datetime:
        """This machine's time and what it was moved by."""
        return datetime.now(UTC) + self.offset

    def advance(self, **delta: float) -> None:
        """Move database time forward by ``timedelta(**delta)`` for every connection."""
        self._move_to(self.offset + timedelta(**delta))

    def set_to(self, moment: datetime) -> None:
        """Let database time be this moment, and go on from there."""
        self._move_to(moment - datetime.now(UTC))

    def reset(self) -> None:
        """Back to this machine's time."""
        if self.offset:
            self._move_to(timedelta())

    def _move_to(self, offset: timedelta) -> None:
        self.offset = offset
        if self.owner is None or self.owner.dialect.name != "postgresql":
            return
        shift = f" + interval '{offset.total_seconds()} seconds'" if offset else ""
        with self.owner.begin() as connection:
            connection.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION nexus_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE"
                f" AS $$SELECT clock_timestamp(){shift}$$"
            )


@contextmanager
def opened(settings: DatabaseSettings, time: DatabaseTime | None = None) -> Iterator[Engines]:
    """Engines that let go of their database at the end, so that it can be dropped."""
    engines = build_engines(settings, (time or DatabaseTime()).now)
    try:
        yield engines
    finally:
        engines.dispose()


def postgres_template(cluster: PostgresCluster) -> str:
    """The full name of the migrated template database of this run."""

    def build(database: str) -> None:
        with opened(postgres_settings(cluster, database)) as engines:
            upgrade(engines)
            with engines.owner.begin() as connection:
                connection.execute(text("SELECT nexus_create_partitions(:day)"), {"day": NOW.date()})

    return cluster.template(TEMPLATE, build)


def postgres_copy(cluster: PostgresCluster, name: str | None = None) -> str:
    """A new database at the current schema; answers its full name."""
    return cluster.create_database(name, template=postgres_template(cluster), owner=OWNER)


def sqlite_copy(run: Run, path: Path) -> Path:
    """A new SQLite file at the current schema, copied from the one migrated for this run."""
    with run.started_once("sqlite") as (folder, facts):
        if not facts:
            run.guard(folder)
            with opened(sqlite_settings(folder / "template.db")) as engines:
                upgrade(engines)
            facts["template"] = str(folder / "template.db")
    shutil.copyfile(facts["template"], path)
    return path


def build_runtime(settings: DatabaseSettings, engines: Engines, state_dir: Path, **parts: Any) -> Runtime:
    """A runtime on these engines, with a clock that stands still and randomness that repeats.

    ``parts`` replace fields of :class:`Runtime` (``channels``, ``clock``, ``telemetry``, …).
    """
    parsed = Settings.parse(
        {
            "nexus.database_url": settings.app_url,
            "nexus.database_worker_url": settings.worker_url,
            "nexus.database_owner_url": settings.owner_url,
            "nexus.secret_key": SECRET_KEY,
            "nexus.state_dir": str(state_dir),
        }
    )
    defaults: dict[str, Any] = {
        "settings": parsed,
        "keys": Keys(parsed.secret_keys),
        "channels": {},
        "clock": FakeClock(NOW),
        "rng": random.Random(SEED),
    }
    return Runtime(engines=engines, **(defaults | parts))


@contextmanager
def postgres_runtime(cluster: PostgresCluster, state_dir: Path, **parts: Any) -> Iterator[Runtime]:
    """A runtime on a PostgreSQL database of its own, dropped at the end."""
    database = postgres_copy(cluster)
    settings = postgres_settings(cluster, database)
    try:
        with opened(settings) as engines:
            yield build_runtime(settings, engines, state_dir, **parts)
    finally:
        cluster.drop_database(database)


@contextmanager
def sqlite_runtime(
    run: Run, folder: Path, time: DatabaseTime | None = None, options: dict[str, Any] | None = None, **parts: Any
) -> Iterator[Runtime]:
    """A runtime on an SQLite file of its own in ``folder``; ``options`` are of :class:`DatabaseSettings`."""
    settings = sqlite_settings(sqlite_copy(run, folder / "nexus.db"), **(options or {}))
    with opened(settings, time) as engines:
        yield build_runtime(settings, engines, folder, **parts)


_TABLES = """
SELECT c.oid::regclass::text AS name, array_remove(array_agg(s.oid::regclass::text), NULL) AS sequences
FROM pg_class c
LEFT JOIN pg_depend d ON d.refobjid = c.oid AND d.deptype IN ('a', 'i') AND d.classid = 'pg_class'::regclass
LEFT JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relnamespace = current_schema()::regnamespace AND c.relname <> 'alembic_version'
GROUP BY c.oid ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Emptier:
    """Empties a PostgreSQL database between two tests: only what the last one touched, ids from 1 again.

    A transaction that a test left open makes it fail with a lock timeout instead of waiting.
    """

    engine: Engine
    probe: str
    tables: tuple[str, ...]

    @classmethod
    def of(cls, owner: Engine) -> "Emptier":
        """Read the tables and sequences of the schema once."""
        with owner.connect() as connection:
            found = connection.exec_driver_sql(_TABLES).all()
        probes = []
        for name, sequences in found:
            used = [f"EXISTS (SELECT FROM {name})", *(f"(SELECT is_called FROM {each})" for each in sequences)]
            probes.append(" OR ".join(used))
        return cls(owner, f"SELECT {', '.join(probes)}", tuple(name for name, _ in found))

    def empty(self) -> None:
        """Remove every row."""
        with self.engine.begin() as connection:
            touched = connection.exec_driver_sql(self.probe).one()
            names = [name for name, used in zip(self.tables, touched, strict=True) if used]
            if names:
                connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
                connection.exec_driver_sql(f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE")
