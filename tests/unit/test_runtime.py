"""A unit of work: all or nothing, and what follows it only when it is done."""

import threading

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.events import CampaignCreated
from nexus_marketing.core.hub import EventHub
from nexus_marketing.db.models import Lead
from nexus_marketing.runtime import MemoryDoorbell
from tests.common.databases import NOW
from tests.common.factories import lead_values

pytestmark = pytest.mark.req("SR-003", "US-003")


def add_lead(ctx) -> None:
    values = lead_values(1)
    ctx.session.add(Lead(created_at=ctx.now, updated_at=ctx.now, **values))


def emails(runtime, tenant) -> list[str]:
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(Lead.email)))


def test_what_ends_well_is_kept(runtime, tenant):
    with runtime.work(tenant) as ctx:
        add_lead(ctx)
    assert emails(runtime, tenant) == ["person1@example.org"]


@pytest.mark.parametrize("error", [NexusError, RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_fails_leaves_nothing_and_is_told(runtime, tenant, error):
    followed = []
    with pytest.raises(error), runtime.work(tenant) as ctx:
        add_lead(ctx)
        ctx.session.flush()
        ctx.after_commit(lambda: followed.append(1))
        raise error
    assert emails(runtime, tenant) == []
    assert followed == []


def test_what_fails_at_commit_leaves_nothing_either(runtime, tenant):
    followed = []
    with pytest.raises(Exception, match=r"(?i)null"), runtime.work(tenant) as ctx:
        add_lead(ctx)
        ctx.session.add(Lead(email="incomplete@example.org"))
        ctx.after_commit(lambda: followed.append(1))
    assert emails(runtime, tenant) == []
    assert followed == []


def test_after_commit_others_see_what_was_done(runtime, tenant):
    seen = []
    with runtime.work(tenant) as ctx:
        add_lead(ctx)
        ctx.after_commit(lambda: seen.extend(emails(runtime, tenant)))
        assert seen == []
    assert seen == ["person1@example.org"]


def test_a_failing_action_stops_neither_the_next_nor_the_caller(runtime, tenant):
    followed = []
    with capture_logs() as logs, runtime.work(tenant) as ctx:
        add_lead(ctx)
        ctx.after_commit(lambda: 1 / 0)
        ctx.after_commit(lambda: followed.append(1))
    assert followed == [1]
    assert [line["event"] for line in logs] == ["after_commit_action_failed"]
    assert len(emails(runtime, tenant)) == 1


def test_events_reach_subscribers_after_commit_in_order(runtime, tenant):
    from dataclasses import replace

    heard = []
    hub = EventHub()
    hub.subscribe(CampaignCreated, lambda e: heard.append(("a", e.campaign_id)))
    hub.subscribe("marketing.campaign.*", lambda e: heard.append(("b", e.campaign_id)))
    listening = replace(runtime, hub=hub)
    with listening.work(tenant) as ctx:
        for number in (1, 2):
            ctx.emit(CampaignCreated(tenant, ctx.now, str(number)))
        assert heard == []
    assert heard == [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")]
    with pytest.raises(RuntimeError), listening.work(tenant) as ctx:
        ctx.emit(CampaignCreated(tenant, ctx.now, "3"))
        raise RuntimeError
    assert len(heard) == 4


def test_a_subscriber_before_the_commit_may_refuse_it(runtime, tenant):
    from dataclasses import replace

    hub = EventHub()

    def refuse(_event):
        raise PermissionError("not today")

    hub.subscribe(CampaignCreated, refuse, before_commit=True)
    with pytest.raises(PermissionError), replace(runtime, hub=hub).work(tenant) as ctx:
        add_lead(ctx)
        ctx.emit(CampaignCreated(tenant, ctx.now, "1"))
    assert emails(runtime, tenant) == []


def test_workers_are_woken_after_commit_only(runtime, tenant):
    with runtime.work(tenant) as ctx:
        ctx.ring("segments")
        assert not runtime.doorbell.wait(0)
    assert runtime.doorbell.wait(0)
    with pytest.raises(RuntimeError), runtime.work(tenant) as ctx:
        ctx.ring("segments")
        raise RuntimeError
    assert not runtime.doorbell.wait(0)


def test_work_without_a_statement_opens_no_transaction(runtime, tenant):
    before = runtime.engines.worker.pool.checkedout()
    with runtime.work(tenant) as ctx:
        assert ctx.now == NOW
        assert runtime.engines.worker.pool.checkedout() == before


def test_connections_are_given_back(runtime, tenant):
    before = runtime.engines.worker.pool.checkedout()
    for _ in range(30):
        emails(runtime, tenant)
        with pytest.raises(RuntimeError), runtime.work(tenant) as ctx:
            ctx.session.scalars(select(Lead)).all()
            raise RuntimeError
    assert runtime.engines.worker.pool.checkedout() == before


def test_each_unit_has_its_own_actor_and_request(runtime, tenant):
    with runtime.work(tenant) as first, runtime.work(tenant, Actor("key:7"), mode="read") as second:
        assert (first.actor, second.actor.label) == (SYSTEM, "key:7")
        assert first.request_id != second.request_id
        assert (first.tenant_id, second.tenant_id) == (tenant, tenant)


class TestMemoryDoorbell:
    def test_a_ring_wakes_who_waits(self):
        bell, woken = MemoryDoorbell(), []
        waiter = threading.Thread(target=lambda: woken.append(bell.wait(30)))
        waiter.start()
        bell.ring(1, "sends")
        waiter.join()
        assert woken == [True]

    def test_a_ring_is_kept_for_who_comes_later_and_rings_are_not_counted(self):
        bell = MemoryDoorbell()
        for _ in range(3):
            bell.ring(1, "sends")
        assert [bell.wait(0), bell.wait(0)] == [True, False]

    def test_nobody_rang(self):
        assert MemoryDoorbell().wait(0.001) is False
