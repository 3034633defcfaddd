"""The databases that tests run on: empty for each test, with time that moves."""

from sqlalchemy import select

from nexus_marketing.db.models import Lead, Tenant
from nexus_marketing.db.tenancy import run
from tests.common.databases import NOW
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template


def test_a_database_is_empty_and_counts_from_one(runtime, tenant, other_tenant):
    assert (tenant, other_tenant) == (1, 2)
    assert make_leads(runtime, tenant, 3) == [1, 2, 3]


def test_the_next_one_does_so_again(runtime, tenant):
    assert tenant == 1
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Lead)).all() == []
        assert ctx.session.scalars(select(Tenant.slug)).all() == ["acme"]


def test_a_test_gets_a_clock_that_stands_still(runtime):
    assert runtime.clock.now() == NOW


def test_database_time_moves_for_every_connection(runtime, tenant, database_time):
    def seconds_left(ctx, statement):
        return run(ctx.session, statement, {"limit": 30}, writes=False).scalar_one()

    statement = "SELECT nexus_now() FROM marketing_tenants WHERE id = :tenant_id AND :limit = 30"
    with runtime.work(tenant, mode="read") as ctx:
        before = seconds_left(ctx, statement)
    database_time.advance(hours=2)
    with runtime.work(tenant, mode="read", role="app") as ctx:
        after = seconds_left(ctx, statement)
    assert str(before)[:19] < str(after)[:19]


def test_factories_fill_the_whole_chain_to_a_send(runtime, tenant):
    leads = make_leads(runtime, tenant, 5)
    segment = make_segment(runtime, tenant, leads)
    template = make_template(runtime, tenant)
    campaign = make_campaign(runtime, tenant, segment_id=segment, template_id=template)
    assert make_send(runtime, tenant, campaign, template, leads) == 1
