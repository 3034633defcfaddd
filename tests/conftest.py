"""What every test may ask for: servers, databases, time, randomness and ports."""

import gc
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
import redis as redis_client
from hypothesis import HealthCheck, settings

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.engines import Engines
from tests.common import databases, servers
from tests.common.network import refuse_other_machines
from tests.common.servers.versions import postgres_line, redis_line

pytest_plugins = ["tests.common.requirements_report", "tests.common.database_fixtures"]

RUN = pytest.StashKey[servers.Run]()

# A shared, busy machine is slow at times without being wrong.
# CI looks at fewer examples (NEXUS_EXAMPLES), and at the same ones each time.
settings.register_profile(
    "nexus",
    deadline=None,
    max_examples=int(os.environ.get("NEXUS_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("nexus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage is measured on one database and in every other functional test: tracing takes longer than most of them.

    Both databases run the same code, and what one of these tests alone reaches is little.
    """
    for item in items:
        on_sqlite = getattr(getattr(item, "callspec", None), "params", {}).get("dialect") == "sqlite"
        if on_sqlite or ("tests/functional/" in item.nodeid and crc32(item.nodeid.encode()) % 2):
            item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay until the end: no collection of garbage is to walk through them each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_configure(config: pytest.Config) -> None:
    """Open the run, or join the one of the controller when this is an xdist worker."""
    address = getattr(config, "workerinput", {}).get("nexus_run")
    config.stash[RUN] = servers.Run.join(address) if address else servers.Run.open()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell an xdist worker which run it belongs to."""
    node.workerinput["nexus_run"] = node.config.stash[RUN].address()  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers of the run once its workers are gone."""
    if not hasattr(config, "workerinput"):
        config.stash[RUN].close()


def pytest_report_header() -> list[str]:
    """Name the versions the results belong to."""
    return [f"SQLite {sqlite3.sqlite_version}", postgres_line(), redis_line()]


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_machines(monkeypatch)


@pytest.fixture(scope="session")
def servers_run(pytestconfig: pytest.Config) -> servers.Run:
    """The run that owns the servers."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def cluster(servers_run: servers.Run) -> servers.PostgresCluster:
    """The PostgreSQL cluster of the run, with the three roles."""
    return servers.start_postgres(servers_run)


@pytest.fixture
def postgres_url(cluster: servers.PostgresCluster) -> Iterator[str]:
    """A new, empty database as its superuser: ``postgresql+psycopg://…``."""
    name = cluster.create_database()
    yield cluster.dsn(database=name)
    cluster.drop_database(name)


@pytest.fixture
def postgres_engines(cluster: servers.PostgresCluster) -> Iterator[Engines]:
    """Engines of the three roles on a new PostgreSQL database at the current schema."""
    name = databases.postgres_copy(cluster)
    with databases.opened(databases.postgres_settings(cluster, name)) as engines:
        yield engines
    cluster.drop_database(name)


@pytest.fixture
def sqlite_engines(servers_run: servers.Run, tmp_path: Path) -> Iterator[Engines]:
    """Engines on a new SQLite file at the current schema."""
    path = databases.sqlite_copy(servers_run, tmp_path / "nexus.db")
    with databases.opened(databases.sqlite_settings(path)) as engines:
        yield engines


@pytest.fixture(params=["sqlite", "postgresql"])
def engines(request: pytest.FixtureRequest) -> Engines:
    """A new database at the current schema, once on SQLite and once on PostgreSQL."""
    name = "sqlite_engines" if request.param == "sqlite" else "postgres_engines"
    found: Engines = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="session")
def redis_server(servers_run: servers.Run) -> servers.RedisServer:
    """The Redis or Valkey server of the run."""
    return servers.start_redis(servers_run)


@pytest.fixture
def redis_url(redis_server: servers.RedisServer, worker_number: int) -> str:
    """An emptied database of this test process."""
    url = redis_server.database(worker_number)
    with redis_client.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def worker_number(pytestconfig: pytest.Config) -> int:
    """0 without xdist, else 1 for ``gw0`` and so on."""
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "")
    return int(worker.removeprefix("gw")) + 1 if worker else 0


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    return servers.free_port()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at ten o'clock UTC on a Monday, where partitions exist."""
    return FakeClock(databases.NOW)


@pytest.fixture
def rng() -> random.Random:
    """Randomness that is the same in every run."""
    return random.Random(databases.SEED)
