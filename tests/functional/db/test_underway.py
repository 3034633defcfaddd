"""A transaction that is under way is committed by the server, whether or not somebody waits for it already."""

import psycopg
import pytest
from sqlalchemy import text

from nexus_marketing.core.errors import TenantRequired
from nexus_marketing.db.underway import DurableStatement
from tests.common.factories import make_leads, make_tenant

pytestmark = pytest.mark.req("REL-001", "SR-003")

SCORED = "UPDATE marketing_leads SET score = :score WHERE tenant_id = :tenant_id RETURNING id"


def scores(runtime):
    with runtime.engines.owner.connect() as connection:
        return set(connection.execute(text("SELECT score FROM marketing_leads")).scalars())


@pytest.fixture
def scored(postgres_only_runtime):
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    leads = make_leads(runtime, tenant_id, 3)

    def send(statement=SCORED, **values):
        return DurableStatement(runtime.engines.worker, statement, {"score": 7} | values, tenant_id=tenant_id)

    return runtime, send, leads


def lent(runtime):
    return runtime.engines.worker.pool.checkedout()


def test_it_is_committed_before_anybody_asks(scored):
    runtime, send, leads = scored
    with send() as under_way:
        assert any(scores(runtime) == {7} for _ in range(10_000))
        assert lent(runtime) == 1
        assert sorted(row[0] for row in under_way.rows()) == sorted(leads)
        assert lent(runtime) == 0


def test_many_follow_each_other_on_one_connection(scored):
    runtime, send, _ = scored
    runtime.engines.worker.dispose()  # what earlier work opened
    pids = set()
    for number in range(20):
        with send("SELECT pg_backend_pid(), :score WHERE :tenant_id > 0", score=number) as under_way:
            ((pid, answer),) = under_way.rows()
            assert int(answer) == number
            pids.add(pid)
    assert len(pids) == 1
    assert lent(runtime) == 0


def test_whoever_does_not_wait_keeps_no_connection(scored):
    runtime, send, _ = scored
    with send():
        pass
    assert lent(runtime) == 0
    with send(score=8) as under_way:
        under_way.rows()
    assert scores(runtime) == {8}


@pytest.mark.parametrize(
    "statement", ["UPDATE marketing_leads SET score = 1 / 0 WHERE tenant_id = :tenant_id", "no :tenant_id"]
)
def test_what_fails_says_so_and_changes_nothing(scored, statement):
    runtime, send, _ = scored
    before = scores(runtime)
    with pytest.raises(psycopg.Error), send(statement) as under_way:
        under_way.rows()
    assert lent(runtime) == 0
    assert scores(runtime) == before


def test_a_connection_that_was_lost_is_not_lent_again(scored):
    runtime, send, _ = scored
    with pytest.raises(psycopg.Error), send("SELECT pg_terminate_backend(pg_backend_pid()), :tenant_id") as under_way:
        under_way.rows()
    assert lent(runtime) == 0
    with send() as under_way:
        assert len(under_way.rows()) == 3


def test_a_statement_that_names_no_tenant_is_refused(scored):
    runtime, send, _ = scored
    with pytest.raises(TenantRequired):
        send("SELECT 1")
    assert lent(runtime) == 0


def test_reading_leaves_prepared_statements_to_those_who_come_after(postgres_only_runtime):
    """After ROLLBACK the driver throws all of them away, and sessions that only read end without a commit."""
    runtime = postgres_only_runtime
    tenant_id = make_tenant(runtime)
    statement = text("SELECT score FROM marketing_leads WHERE tenant_id = :tenant_id AND id = :id")
    kept = False
    for _ in range(10):
        with runtime.work(tenant_id, mode="read") as ctx:
            connection = ctx.session.connection()
            connection.execute(statement, {"tenant_id": tenant_id, "id": 1})
            prepared = connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements").scalars().all()
            kept = kept or any("marketing_leads" in each for each in prepared)
    assert kept
