"""The embedded mode: one writer at a time in order of arrival, readers that cannot write (DATABASE.md, SQLite)."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db import engines as engines_module
from nexus_marketing.db.engines import DatabaseSettings, build_engines, check_versions
from nexus_marketing.db.models import Lead
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import run
from tests.common import databases
from tests.common.factories import lead_values, make_leads, make_tenant

pytestmark = pytest.mark.req("SR-003")

COUNT = "SELECT count(*) FROM marketing_leads WHERE tenant_id = :tenant_id"
CHANGE = "UPDATE marketing_leads SET score = score + 1 WHERE tenant_id = :tenant_id"


@pytest.fixture
def runtime(sqlite_only_runtime):
    return sqlite_only_runtime


@pytest.fixture
def impatient(servers_run, tmp_path):
    """A runtime whose writers wait a tenth of a second only."""
    with databases.sqlite_runtime(servers_run, tmp_path, options={"busy_timeout_seconds": 0.1}) as built:
        yield built


def pragma(runtime, name: str, mode: str = "write"):
    with runtime.engines.app.execution_options(nexus_mode=mode).connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


@pytest.mark.parametrize(
    ("name", "mode", "value"),
    [
        ("journal_mode", "write", "wal"),
        ("foreign_keys", "write", 1),
        ("temp_store", "write", 2),
        ("trusted_schema", "write", 0),
        ("wal_autocheckpoint", "write", 1000),
        ("busy_timeout", "write", 5000),
        ("synchronous", "write", 1),
        ("synchronous", "durable", 2),
        ("query_only", "read", 1),
        ("query_only", "write", 0),
    ],
)
def test_connections_are_prepared(runtime, name, mode, value):
    assert pragma(runtime, name, mode) == value


def test_a_durable_commit_does_not_make_later_ones_slow(runtime):
    assert [pragma(runtime, "synchronous", mode) for mode in ("durable", "write", "durable")] == [2, 1, 2]


class TestReads:
    def test_a_read_cannot_write(self, runtime, tenant):
        with pytest.raises(DBAPIError, match="readonly"), runtime.work(tenant, mode="read") as ctx:
            run(ctx.session, CHANGE, writes=True)

    def test_a_read_cannot_be_made_a_write(self, runtime, tenant):
        # The upgrade that fails with BUSY_SNAPSHOT whatever the time-out is: nobody gets that far.
        make_leads(runtime, tenant)
        with runtime.work(tenant, mode="read") as reader:
            run(reader.session, COUNT, writes=False)
            with runtime.work(tenant) as writer:
                run(writer.session, CHANGE, writes=True)
            with pytest.raises(DBAPIError, match="readonly"):
                run(reader.session, CHANGE, writes=True)

    def test_the_connection_of_a_read_writes_again_afterwards(self, runtime, tenant):
        make_leads(runtime, tenant)
        for mode in ("read", "write", "read", "write"):
            with runtime.work(tenant, mode=mode) as ctx:
                run(ctx.session, COUNT if mode == "read" else CHANGE, writes=mode == "write")

    def test_readers_see_one_moment_and_do_not_wait_for_the_writer(self, runtime, tenant):
        make_leads(runtime, tenant, 3)
        with runtime.work(tenant, mode="read") as reader, runtime.work(tenant) as writer:
            before = run(reader.session, COUNT, writes=False).scalar()
            values = {"tenant_id": tenant, "created_at": writer.now, "updated_at": writer.now, **lead_values(50)}
            writer.session.execute(insert(Lead), [values])
            assert run(reader.session, COUNT, writes=False).scalar() == before == 3


class TestTheWriteLock:
    def lock(self, runtime):
        """The engine's lock, found where its events keep it."""
        owners = [getattr(listener, "__self__", None) for listener in runtime.engines.app.dispatch.begin]
        (writer,) = [owner for owner in owners if isinstance(owner, engines_module._SqliteWriter)]
        return writer.lock

    def free(self, runtime) -> bool:
        lock = self.lock(runtime)
        return not lock._held and not lock._waiting

    def test_a_second_writer_is_told_to_try_again(self, impatient):
        tenant_id = make_tenant(impatient)
        make_leads(impatient, tenant_id)
        with impatient.work(tenant_id) as first:
            run(first.session, CHANGE, writes=True)
            with pytest.raises(OperationalError, match="try again") as told, impatient.work(tenant_id) as second:
                run(second.session, CHANGE, writes=True)
            assert is_transient(told.value)
        with impatient.work(tenant_id) as third:
            run(third.session, CHANGE, writes=True)

    def test_a_full_disk_passes_when_somebody_makes_room(self, impatient):
        tenant_id = make_tenant(impatient)
        with pytest.raises(DBAPIError, match="full") as caught, impatient.work(tenant_id) as ctx:
            raw = ctx.session.connection().connection
            raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0]}")
            run(
                ctx.session,
                "UPDATE marketing_tenants SET name = :name WHERE id = :tenant_id",
                {"name": "x" * 10**6},
                writes=True,
            )
        assert is_transient(caught.value)

    def test_a_writer_of_another_process_is_waited_for_and_then_reported_as_passing(self, impatient):
        tenant_id = make_tenant(impatient)
        make_leads(impatient, tenant_id)
        other = sqlite3.connect(impatient.engines.app.url.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DBAPIError, match="locked") as caught, impatient.work(tenant_id) as ctx:
            run(ctx.session, CHANGE, writes=True)
        assert is_transient(caught.value)
        assert self.free(impatient)
        other.execute("COMMIT")
        other.close()
        with impatient.work(tenant_id) as ctx:
            run(ctx.session, CHANGE, writes=True)

    @pytest.mark.parametrize(
        "fault",
        [
            lambda ctx: 1 / 0,
            lambda ctx: run(ctx.session, "SELECT nonsense(:tenant_id)", writes=False),
            lambda ctx: run(
                ctx.session,
                "INSERT INTO marketing_segments (tenant_id, name, kind, created_at, updated_at)"
                " SELECT :tenant_id, NULL, 'x', 'x', 'x'",
                writes=True,
            ),
            lambda ctx: ctx.session.add(Lead(tenant_id=99)),
            lambda ctx: ctx.session.connection().invalidate(),
            lambda ctx: ctx.session.close(),
        ],
        ids=["exception", "wrong statement", "constraint", "flush", "lost connection", "closed"],
    )
    def test_it_is_let_go_whatever_happens(self, runtime, tenant, fault):
        make_leads(runtime, tenant)
        for _ in range(3):
            try:
                with runtime.work(tenant) as ctx:
                    run(ctx.session, CHANGE, writes=True)
                    fault(ctx)
            except Exception:
                pass
            assert self.free(runtime)
        with runtime.work(tenant) as ctx:
            run(ctx.session, CHANGE, writes=True)

    def test_it_is_let_go_at_check_in_and_not_before_the_commit(self, runtime, tenant):
        make_leads(runtime, tenant)
        held_at_commit = []
        event.listen(runtime.engines.app, "commit", lambda _: held_at_commit.append(not self.free(runtime)))
        with runtime.work(tenant) as ctx:
            run(ctx.session, CHANGE, writes=True)
            assert not self.free(runtime)
        assert held_at_commit == [True]
        assert self.free(runtime)

    def test_a_refused_write_releases_nothing_that_others_hold(self, impatient):
        tenant_id = make_tenant(impatient)
        make_leads(impatient, tenant_id)
        with impatient.work(tenant_id) as first:
            run(first.session, CHANGE, writes=True)
            for _ in range(3):
                with pytest.raises(OperationalError), impatient.work(tenant_id) as second:
                    run(second.session, CHANGE, writes=True)
            assert not self.free(impatient)

    def test_small_writers_get_their_turn_between_the_pieces_of_two_bulk_writers(self, runtime, tenant):
        grants, lock = [], self.lock(runtime)
        start = threading.Event()

        def rows(first: int) -> list[dict]:
            now = runtime.clock.now()
            times = {"tenant_id": tenant, "created_at": now, "updated_at": now}
            return [{**times, **lead_values(first + n)} for n in range(2000)]

        def bulk(name: str, first: int) -> None:
            for piece in range(3):
                prepared = rows(first + piece * 2000)
                with runtime.work(tenant) as ctx:
                    ctx.session.connection()  # the lock is held from here on
                    grants.append(name)
                    ctx.session.execute(insert(Lead), prepared)

        def small(number: int) -> None:
            with runtime.work(tenant) as ctx:
                run(ctx.session, CHANGE + " AND id = 1", writes=True)
                grants.append(f"small {number}")

        def queue_up(pool, length, task, *values):
            pool.submit(task, *values)
            for _ in range(5000):
                if len(lock._waiting) >= length:
                    return
                start.wait(0.001)
            pytest.fail("nobody queued up")

        lock.acquire(5)
        with ThreadPoolExecutor(6) as pool:
            queue_up(pool, 1, bulk, "a", 0)
            queue_up(pool, 2, bulk, "b", 100_000)
            for number in range(4):
                queue_up(pool, 3 + number, small, number)
            lock.release()
        assert grants[:6] == ["a", "b", "small 0", "small 1", "small 2", "small 3"]
        assert sorted(grants[6:]) == ["a", "a", "b", "b"]
        with runtime.work(tenant, mode="read") as ctx:
            assert run(ctx.session, COUNT, writes=False).scalar() == 12_000


def test_a_database_in_memory_is_refused():
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigurationError, match="name a file"):
            build_engines(DatabaseSettings(url, url, url))


def test_versions_are_named(runtime):
    assert check_versions(runtime.engines) == f"SQLite {sqlite3.sqlite_version}"


@pytest.mark.parametrize(("name", "value"), [("MIN_SQLITE", (99, 0, 0)), ("MIN_POSTGRESQL", 990000)])
def test_an_old_database_is_refused_with_the_remedy(request, monkeypatch, name, value):
    monkeypatch.setattr(engines_module, name, value)
    fixture = "sqlite_engines" if name == "MIN_SQLITE" else "postgres_engines"
    with pytest.raises(ConfigurationError, match=r"too old: use PostgreSQL 15 or SQLite 3\.39 or newer"):
        check_versions(request.getfixturevalue(fixture))


def test_ids_are_not_used_again_after_their_row_is_gone(runtime, tenant):
    first = make_leads(runtime, tenant, 3)
    with runtime.work(tenant) as ctx:
        run(ctx.session, "DELETE FROM marketing_leads WHERE tenant_id = :tenant_id", writes=True)
    assert make_leads(runtime, tenant) == [max(first) + 1]


def test_moments_come_back_as_they_were_written(runtime, tenant):
    make_leads(runtime, tenant)
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Lead.created_at)).one() == runtime.clock.now()
        stored = run(ctx.session, "SELECT created_at FROM marketing_leads WHERE tenant_id = :tenant_id", writes=False)
        assert stored.scalar() == "2026-03-02T10:00:00.000000Z"


def test_the_file_survives_a_writer_that_was_killed(runtime, tenant):
    make_leads(runtime, tenant, 3)
    path = Path(runtime.engines.app.url.database)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM marketing_leads")
    other.close()  # without COMMIT
    with runtime.work(tenant, mode="read") as ctx:
        assert run(ctx.session, COUNT, writes=False).scalar() == 3
        assert ctx.session.connection().execute(text("PRAGMA integrity_check")).scalar() == "ok"
