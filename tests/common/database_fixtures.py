"""Fixtures on databases: a ``runtime`` on SQLite and on PostgreSQL, tenants, and time that moves."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.engines import DatabaseSettings, Engines
from nexus_marketing.runtime import Runtime
from tests.common import databases, servers
from tests.common.databases import DatabaseTime, Emptier
from tests.common.factories import make_tenant
from tests.common.plans import PlanWatch


@dataclass(frozen=True, slots=True)
class ProcessDatabase:
    """The PostgreSQL database of this test process: used by one test after the other."""

    settings: DatabaseSettings
    engines: Engines
    emptier: Emptier
    plans: PlanWatch


@pytest.fixture(scope="session")
def process_database(cluster: servers.PostgresCluster) -> Iterator[ProcessDatabase]:
    """A copy of the migrated template for this test process."""
    name = databases.postgres_copy(cluster)
    settings = databases.postgres_settings(cluster, name)
    with databases.opened(settings) as engines:
        yield ProcessDatabase(settings, engines, Emptier.of(engines.owner), PlanWatch.on(engines.worker, engines.owner))
    cluster.drop_database(name)


@pytest.fixture
def database_time() -> DatabaseTime:
    """Database time of the test's runtime: ``advance(seconds=40)`` lets leases run out."""
    return DatabaseTime()


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """On which database the test runs."""
    return str(request.param)


@pytest.fixture
def runtime(
    dialect: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: FakeClock,
    rng: random.Random,
    database_time: DatabaseTime,
) -> Iterator[Runtime]:
    """A runtime on an empty database, once on SQLite and once on PostgreSQL."""
    opener = _on_sqlite if dialect == "sqlite" else _on_postgresql
    with opener(request, tmp_path, database_time, clock=clock, rng=rng) as built:
        yield built


@pytest.fixture
def postgres_only_runtime(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, rng: random.Random, database_time: DatabaseTime
) -> Iterator[Runtime]:
    """A runtime on an empty PostgreSQL database: for what SQLite does not have."""
    with _on_postgresql(request, tmp_path, database_time, clock=clock, rng=rng) as built:
        yield built


@pytest.fixture
def sqlite_only_runtime(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, rng: random.Random, database_time: DatabaseTime
) -> Iterator[Runtime]:
    """A runtime on an empty SQLite file: for what PostgreSQL does not have."""
    with _on_sqlite(request, tmp_path, database_time, clock=clock, rng=rng) as built:
        yield built


@contextmanager
def _on_sqlite(request: pytest.FixtureRequest, folder: Path, time: DatabaseTime, **parts: Any) -> Iterator[Runtime]:
    run = request.getfixturevalue("servers_run")
    with databases.sqlite_runtime(run, folder, time, **parts) as built:
        yield built


@contextmanager
def _on_postgresql(request: pytest.FixtureRequest, folder: Path, time: DatabaseTime, **parts: Any) -> Iterator[Runtime]:
    database: ProcessDatabase = request.getfixturevalue("process_database")
    # Before the test, not after it: a test that was interrupted leaves rows behind.
    database.emptier.empty()
    time.owner = database.engines.owner
    try:
        yield databases.build_runtime(database.settings, database.engines, folder, **parts)
    finally:
        time.reset()
        findings = database.plans.take()
    assert not findings, "\n".join(["worker statements see other tenants:", *map(str, findings)])


@pytest.fixture
def tenant(runtime: Runtime) -> int:
    """The id of a tenant."""
    return make_tenant(runtime, "acme")


@pytest.fixture
def other_tenant(runtime: Runtime, tenant: int) -> int:
    """The id of another tenant, whose rows ``tenant`` must never see."""
    del tenant
    return make_tenant(runtime, "globex")
