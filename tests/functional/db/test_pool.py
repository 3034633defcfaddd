"""A pooled connection carries nothing from one tenant to the next (S03), and needs no session of its own."""

import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from nexus_marketing.db.engines import Engines
from nexus_marketing.db.retry import DATABASE_ERRORS, cause_of, is_transient
from tests.common import databases
from tests.common.factories import make_leads, make_tenant

pytestmark = pytest.mark.req("SR-003", "S03")

#: S03 asks for 100,000; every ordinary run does a fifth of them.
TRANSACTIONS = int(os.environ.get("NEXUS_S03_TRANSACTIONS", "20000"))
THREADS = 4
TENANTS = 8

SEEN = text("SELECT tenant_id FROM marketing_leads UNION ALL SELECT id FROM marketing_tenants")


@contextmanager
def small_pool(process_database, **options):
    """Engines whose pools are smaller than the threads that want them."""
    name = process_database.engines.app.url.database
    settings = databases.DatabaseSettings(
        app_url=process_database.settings.app_url,
        worker_url=process_database.settings.worker_url,
        owner_url=process_database.settings.owner_url,
        pool_size=1,
        **options,
    )
    with databases.opened(settings) as engines:
        assert engines.app.url.database == name
        yield engines


class Traffic:
    """One thread's transactions; ``foreign`` counts rows of other tenants, ``stale`` settings that stayed."""

    def __init__(self, engines: Engines, tenants: list[int], seed: int) -> None:
        self.engines = engines
        self.tenants = tenants
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.kinds = [self.read, self.write, self.abort, self.fail, self.savepoint, self.without_tenant]

    def run(self, count: int) -> Counter[str]:
        for number in range(count):
            kind = self.rng.choice(self.kinds)
            if number % 200 == 50:
                kind = self.time_out
            elif number % 200 == 150:
                kind = self.cancel
            elif number % 1000 == 999:
                kind = self.lose_connection
            self.counts[kind.__name__] += 1
            kind()
        return self.counts

    @contextmanager
    def transaction(self, tenant_id: int | None, mode: str = "write"):
        options = {"nexus_mode": mode} | ({} if tenant_id is None else {"nexus_tenant": tenant_id})
        with self.engines.app.execution_options(**options).connect() as connection, connection.begin():
            yield connection

    def look(self, connection, tenant_id: int | None) -> None:
        found = connection.execute(SEEN).scalars().all()
        if tenant_id is None:
            self.counts["foreign"] += len(found)
            return
        self.counts["rows"] += len(found)
        self.counts["foreign"] += sum(each != tenant_id for each in found)

    def read(self) -> None:
        tenant_id = self.rng.choice(self.tenants)
        with self.transaction(tenant_id, "read") as connection:
            self.look(connection, tenant_id)

    def write(self) -> None:
        tenant_id = self.rng.choice(self.tenants)
        with self.transaction(tenant_id) as connection:
            connection.execute(text("UPDATE marketing_leads SET score = score + 1 WHERE id % 3 = 0"))
            self.look(connection, tenant_id)

    def abort(self) -> None:
        tenant_id = self.rng.choice(self.tenants)
        with suppress(ZeroDivisionError), self.transaction(tenant_id) as connection:
            self.look(connection, tenant_id)
            raise ZeroDivisionError

    def fail(self) -> None:
        with pytest.raises(DBAPIError), self.transaction(self.rng.choice(self.tenants)) as connection:
            connection.execute(text("SELECT 1 / (SELECT 0)"))

    def savepoint(self) -> None:
        tenant_id = self.rng.choice(self.tenants)
        with self.transaction(tenant_id) as connection:
            with suppress(DBAPIError), connection.begin_nested():
                connection.execute(text("SELECT 1 / (SELECT 0)"))
            self.look(connection, tenant_id)

    def without_tenant(self) -> None:
        with self.transaction(None) as connection:
            self.look(connection, None)

    def time_out(self) -> None:
        with (
            pytest.raises(DBAPIError, match="statement timeout"),
            self.transaction(self.rng.choice(self.tenants)) as connection,
        ):
            connection.execute(text("SET LOCAL statement_timeout = 1"))
            connection.execute(text("SELECT pg_sleep(5)"))

    def cancel(self) -> None:
        with (
            pytest.raises(DBAPIError, match="user request"),
            self.transaction(self.rng.choice(self.tenants)) as connection,
        ):
            raw, done = connection.connection.dbapi_connection, threading.Event()

            def keep_cancelling() -> None:
                # A request that comes before the statement does nothing, so one is not enough.
                while not done.wait(0.005):
                    raw.cancel()

            canceller = threading.Thread(target=keep_cancelling)
            canceller.start()
            try:
                connection.execute(text("SELECT pg_sleep(30)"))
            finally:
                done.set()
                canceller.join()

    def lose_connection(self) -> None:
        with suppress(DBAPIError), self.transaction(self.rng.choice(self.tenants)) as connection:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.slow
def test_no_transaction_sees_another_tenants_rows(postgres_only_runtime, process_database):
    runtime = postgres_only_runtime
    tenants = [make_tenant(runtime, f"tenant-{n}") for n in range(TENANTS)]
    for tenant_id in tenants:
        make_leads(runtime, tenant_id, 5)
    stale: list[str] = []
    with small_pool(process_database) as engines:
        checkouts = iter(range(10**9))

        @event.listens_for(engines.app, "checkout")
        def look_for_settings(dbapi, _record, _proxy):
            if next(checkouts) % 20 == 0 and not dbapi.closed:
                with suppress(psycopg.OperationalError):  # a terminated backend is noticed here first
                    stale.extend(_session_state(dbapi))

        traffic = [Traffic(engines, tenants, seed) for seed in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            counts = sum(pool.map(lambda each: each.run(TRANSACTIONS // THREADS), traffic), Counter())
        assert engines.app.pool.checkedout() == 0
    assert counts["foreign"] == 0
    assert stale == []
    assert counts["rows"] > TRANSACTIONS
    assert min(counts[kind] for kind in ("time_out", "cancel", "lose_connection", "fail")) > 0


def _session_state(dbapi) -> list[str]:
    """What a connection outside of any transaction still holds; a pooler in transaction mode would leak it."""
    with dbapi.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('app.tenant', true), '')", prepare=False)
        (tenant,) = cursor.fetchone()
    return [tenant] if tenant else []


def test_a_connection_without_a_tenant_sees_nothing(postgres_only_runtime):
    runtime = postgres_only_runtime
    make_leads(runtime, make_tenant(runtime), 5)
    with runtime.engines.app.connect() as connection:
        for _ in range(2):  # the second transaction finds '' and not NULL
            with connection.begin():
                assert connection.execute(SEEN).all() == []
                assert connection.execute(text("UPDATE marketing_leads SET score = 1")).rowcount == 0
                assert connection.execute(text("DELETE FROM marketing_leads")).rowcount == 0
    with runtime.engines.app.execution_options(nexus_tenant=1).connect() as connection:
        assert len(connection.execute(SEEN).all()) == 6
    with runtime.engines.app.connect() as connection:
        assert connection.execute(SEEN).all() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("mode", ["read", "write", "durable"])
def test_nothing_stays_on_a_connection(postgres_only_runtime, process_database, mode, end):
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    with small_pool(process_database, prepared_statements=False) as engines:
        options = {"nexus_mode": mode, "nexus_tenant": tenant_id}
        for _ in range(8):
            with engines.app.execution_options(**options).connect() as connection:
                transaction = connection.begin()
                connection.execute(SEEN)
                getattr(transaction, end)()
        with engines.app.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert _session_state(raw) == []
            assert raw.execute(HELD).fetchone() == (0, 0, 0, 0)
            settings = {name for (name,) in raw.execute("SELECT name FROM pg_settings WHERE source = 'session'")}
    assert settings - FROM_CONNECTING == set()


HELD = """
SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
       (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
       (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
"""
#: What the driver sets once per connection, the same for everybody.
FROM_CONNECTING = {"client_encoding"}


def test_a_partition_cannot_be_read_directly(postgres_only_runtime):
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    for engine in (runtime.engines.app, runtime.engines.worker):
        for partition in (
            "marketing_engagements_2026_03",
            "marketing_engagements_default",
            "marketing_event_seen_default",
        ):
            with (
                pytest.raises(DBAPIError, match="permission denied"),
                engine.execution_options(nexus_tenant=tenant_id).begin() as connection,
            ):
                connection.execute(text(f"SELECT * FROM {partition}"))


def test_a_partition_made_later_cannot_be_read_directly_either(postgres_engines):
    with postgres_engines.worker.begin() as connection:
        connection.execute(text("SELECT nexus_create_partitions(DATE '2028-01-01')"))
    with pytest.raises(DBAPIError, match="permission denied"), postgres_engines.app.begin() as connection:
        connection.execute(text("SELECT * FROM marketing_engagements_2028_01"))


@pytest.mark.parametrize("mode", ["read", "write"])
def test_the_tenant_travels_with_begin(postgres_only_runtime, mode):
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    engine = runtime.engines.app.execution_options(nexus_tenant=tenant_id, nexus_mode=mode)
    with engine.connect() as connection, connection.begin():
        raw = connection.connection.dbapi_connection
        assert raw.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert raw.execute("SHOW transaction_read_only").fetchone() == ("on" if mode == "read" else "off",)
        assert raw.execute("SHOW app.tenant").fetchone() == (str(tenant_id),)


def test_a_read_cannot_write(runtime, tenant):
    with pytest.raises(DBAPIError, match=r"read.?only"), runtime.work(tenant, mode="read", role="app") as ctx:
        from nexus_marketing.db.tenancy import run

        run(ctx.session, "UPDATE marketing_leads SET score = 1 WHERE tenant_id = :tenant_id", writes=True)


@pytest.mark.parametrize("tenant_id", ["1; DROP TABLE marketing_leads", "1'", None])
def test_a_tenant_that_is_no_number_never_reaches_the_database(postgres_only_runtime, tenant_id):
    engine = postgres_only_runtime.engines.app.execution_options(nexus_tenant=tenant_id)
    if tenant_id is None:
        with engine.connect() as connection:
            assert connection.execute(SEEN).all() == []
        return
    with pytest.raises(ValueError, match="invalid literal"), engine.connect() as connection:
        connection.execute(SEEN)


def test_connections_that_died_in_the_pool_are_noticed_at_begin_and_all_replaced(
    postgres_only_runtime, process_database, cluster
):
    tenant_id = make_tenant(postgres_only_runtime)
    with small_pool(process_database) as engines, ExitStack() as stack:
        engine = engines.app.execution_options(nexus_tenant=tenant_id)
        kept = [stack.enter_context(engine.connect()) for _ in range(2)]
        pids = [each.execute(text("SELECT pg_backend_pid()")).scalar() for each in kept]
        stack.close()
        with cluster.connect() as superuser:
            for pid in pids:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
            connection.execute(SEEN)
        assert caught.value.connection_invalidated
        assert is_transient(caught.value)
        for _ in range(4):
            with engine.connect() as connection:
                assert connection.execute(SEEN).scalars().all() == [tenant_id]


def test_a_pool_that_lends_no_more_is_waited_for(process_database) -> None:
    with small_pool(process_database) as engines, ExitStack() as lent:
        if engines.dialect != "postgresql":
            pytest.skip("every thread has a file of its own")
        engines.app.pool._timeout = 0.05  # type: ignore[attr-defined]
        for _ in range(2):
            lent.enter_context(engines.app.connect())
        with pytest.raises(DATABASE_ERRORS) as caught:
            engines.app.connect()
        assert is_transient(caught.value)
        assert cause_of(caught.value) is caught.value
