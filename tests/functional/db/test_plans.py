"""The reader of plans finds what it is there for, and lets the rest be."""

import pytest
from sqlalchemy import select, text

from nexus_marketing.db.models import Lead
from nexus_marketing.db.queries import (
    campaigns,
    completion,
    deliveries,
    idempotency,
    journeys,
    lead_work,
    planning,
    preflights,
    queues,
    renders,
    retries,
    scoring,
    segments,
    takeovers,
    timers,
    upkeep,
)
from nexus_marketing.db.tenancy import ALL_TENANTS, run, run_for_all
from tests.common.database_fixtures import ProcessDatabase
from tests.common.databases import NOW
from tests.common.factories import make_leads, make_tenant
from tests.common.plans import SWEEPS

pytestmark = pytest.mark.req("SR-003", "S02")


@pytest.fixture
def watched(postgres_only_runtime, process_database: ProcessDatabase):
    """A runtime whose findings are the test's own business."""
    yield postgres_only_runtime, process_database.plans
    process_database.plans.take()


FAULTS = {
    "text": lambda s: s.execute(text("SELECT 1 FROM marketing_leads WHERE id = 1"), execution_options={"nexus_checked": True}),
    "a join that forgets the tenant": lambda s: run(
        s,
        "SELECT l.id FROM marketing_segment_members m JOIN marketing_leads l ON l.id = m.lead_id"
        " WHERE m.tenant_id = :tenant_id",
        writes=False,
    ),
    "a subquery that forgets the tenant": lambda s: run(
        s,
        "DELETE FROM marketing_hits WHERE tenant_id = :tenant_id AND lead_id IN (SELECT id FROM marketing_leads)",
        writes=True,
    ),
    "an update that only mentions the tenant": lambda s: run(
        s, "UPDATE marketing_leads SET score = 1 WHERE id = 2 AND CAST(:tenant_id AS bigint) > 0", writes=True
    ),
    "an orm statement over all tenants": lambda s: s.scalars(
        select(Lead.id).where(Lead.score > 98.5).execution_options(**{ALL_TENANTS: True})
    ),
    "a sweep without a name": lambda s: run_for_all(s, "SELECT id FROM marketing_sends WHERE status = 'running'", writes=False),
    "a partition read directly": lambda s: s.execute(text("SELECT 1 FROM marketing_engagements"), execution_options={"nexus_checked": True}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_statement_that_could_see_other_tenants_is_found(watched, fault):
    runtime, plans = watched
    tenant_id = make_tenant(runtime)
    make_leads(runtime, tenant_id, 2)
    with runtime.work(tenant_id) as ctx:
        fault(ctx.session)
    assert plans.take()
    plans.seen.clear()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM marketing_leads WHERE tenant_id = :tenant_id",
        """SELECT l.id FROM marketing_segment_members m JOIN marketing_leads l
           ON l.tenant_id = m.tenant_id AND l.id = m.lead_id WHERE m.tenant_id = :tenant_id""",
        "SELECT id FROM marketing_engagements WHERE tenant_id = :tenant_id AND lead_id = 5",
        """SELECT t.id FROM marketing_tenants t WHERE t.id = :tenant_id AND EXISTS
           (SELECT 1 FROM marketing_leads l WHERE l.tenant_id = t.id)""",
    ],
    ids=["one table", "join", "partitions", "correlated"],
)
def test_a_statement_of_one_tenant_is_let_be(watched, statement):
    runtime, plans = watched
    with runtime.work(make_tenant(runtime)) as ctx:
        run(ctx.session, statement, writes=False)
    assert plans.take() == []


SWEEPERS = [
    planning.sends_to_plan,
    deliveries.sends_with_work,
    retries.sends_with_due_rows,
    takeovers.expired_chunks,
    completion.sends_without_work,
    completion.cancelled_sends,
    completion.sends_to_report,
    completion.launches_to_join,
    preflights.preflights_waiting,
    lambda session: timers.dead_timers(session, 10),
    lambda session: timers.claim_timers(session, NOW, 1, lease_seconds=1, each=1, most=1),
    segments.segments_to_refresh,
    upkeep.tenants_with_marks,
    lambda session: campaigns.campaigns_to_tick(session, NOW),
    lambda session: queues.queued_work(session, 30),
    lambda session: idempotency.answers_before(session, NOW),
    lambda session: lead_work.lead_work(session, NOW),
    scoring.scoring_work,
    lambda session: renders.old_blocks(session, NOW, 10),
    journeys.messages_to_tell,
]


def test_every_sweep_reads_by_its_own_small_indexes(watched):
    runtime, plans = watched
    with runtime.work(None) as ctx:
        assert [sweep(ctx.session) for sweep in SWEEPERS] == [[]] * len(SWEEPS)
    assert [str(each) for each in plans.take()] == []


def test_the_list_of_sweeps_is_short():
    assert len(SWEEPS) == len(SWEEPERS) <= 20
