"""Send rates shared by all workers of a tenant, on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from sqlalchemy import func, select, update

from nexus_marketing.core.pacing.rates import RateLimit
from nexus_marketing.db.models import Campaign, DeliveryChunk, SendGrant, Tenant
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.queries.rates import Asker, take_grant
from nexus_marketing.delivery.patience import Patience
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.tasks.loops import WorkerLoop, plan_waiting
from tests.common.databases import DatabaseTime
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004", "FR-P2-004")

MakeScene = Callable[..., Scene]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def take(runtime: Runtime, tenant: int, limits: list[RateLimit], wanted: int, channel: str = "email") -> int:
    asker = Asker(tenant, channel, "news@acme.example", is_marketing=False)
    return take_grant(runtime.engines.worker, asker, limits, [None] * wanted).count


def limit(scene: Scene, *rates: dict[str, object]) -> None:
    with scene.runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, scene.tenant_id).settings = {"send_rates": list(rates)}


def test_a_send_keeps_to_the_rate_and_loses_nobody(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(25, chunk_size=10)
    database_time.set_to(NOON)
    limit(scene, {"count": 10, "per": "10 minutes"})
    scene.launch()
    counts = []
    for step in range(5):
        database_time.set_to(NOON + step * 11 * MINUTE)
        scene.work()
        counts.append(len(scene.channel.sent))
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            assert broken_invariants(ctx.session) == {}
    assert counts == [9, 18, 25, 25, 25]  # a tenth is left to transactional mail
    assert scene.states() == ["accepted"] * 25
    assert scene.send().status == "completed"


def test_who_waits_for_a_message_is_served_beside_marketing(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(3)
    database_time.set_to(NOON)
    limit(scene, {"count": 10, "per": "10 minutes"})
    assert take(scene.runtime, scene.tenant_id, [RateLimit(10, 10 * MINUTE)], 9) == 9
    scene.launch(message_class="transactional")
    scene.work()
    assert len(scene.channel.sent) == 1


def test_a_tenant_and_a_channel_have_their_own(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    limits = [RateLimit(5, MINUTE)]
    assert [take(runtime, tenant, limits, 3) for _ in range(3)] == [3, 2, 0]
    assert take(runtime, other_tenant, limits, 9) == take(runtime, tenant, limits, 9, "sms") == 5


def test_workers_at_once_share_one_limit(runtime: Runtime, tenant: int) -> None:
    limits, found = [RateLimit(50, timedelta(hours=1))], []
    threads = [
        Thread(target=lambda: found.extend(take(runtime, tenant, limits, 3) for _ in range(10))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 50


def test_a_long_window_stays_small_to_read(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> None:
    limits, taken = [RateLimit(300, timedelta(days=1))], 0
    for second in range(320):
        database_time.set_to(NOON + second * timedelta(seconds=2))
        taken += take(runtime, tenant, limits, 1)
    assert taken == 300
    with runtime.work(tenant, mode="read") as ctx:
        rows, total = ctx.session.execute(select(func.count(), func.sum(SendGrant.granted))).one()
    assert total == 300
    assert rows <= 201
    database_time.set_to(NOON + timedelta(days=1, minutes=20))
    assert take(runtime, tenant, limits, 500) == 300
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalar(select(func.count()).select_from(SendGrant)) == 1


def test_two_sends_take_turns(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(20, chunk_size=20)
    database_time.set_to(NOON)
    with scene.runtime.work(None, role="owner") as ctx:
        rates = [{"count": 6, "per": "10 minutes"}]
        ctx.session.get_one(Tenant, scene.tenant_id).settings = {"send_rates": rates, "frequency_caps": []}
    scene.launch()
    second = launch_again(scene)
    loop, shares = WorkerLoop(scene.runtime, lambda: False), []
    for step in range(4):
        database_time.set_to(NOON + step * 11 * MINUTE)
        rested(loop)
        for _ in range(3):
            loop.turn()
        shares.append((accepted(scene, scene.campaign_id), accepted(scene, second)))
    loop.finish()
    assert shares == [(5, 0), (5, 5), (10, 5), (10, 10)]


def test_a_send_keeps_to_its_own_rate_while_others_go_on(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(25, chunk_size=10)
    database_time.set_to(NOON)
    with scene.runtime.work(None, role="owner") as ctx:
        rates = [{"count": 1000, "per": "1 minute"}]
        ctx.session.get_one(Tenant, scene.tenant_id).settings = {"send_rates": rates, "frequency_caps": []}
    scene.launch(send_rates=[{"count": 10, "per": "10 minutes"}])
    second = launch_again(scene)
    loop, shares = WorkerLoop(scene.runtime, lambda: False), []
    for step in range(3):
        database_time.set_to(NOON + step * 11 * MINUTE)
        rested(loop)
        for _ in range(4):
            loop.turn()
        shares.append((accepted(scene, scene.campaign_id), accepted(scene, second)))
    assert shares == [(10, 25), (20, 25), (25, 25)]
    assert scene.states()[:25] == ["accepted"] * 25
    database_time.set_to(NOON + timedelta(days=33))
    third = launch_again(scene, "third", send_rates=[{"count": 5, "per": "30 days"}])
    for _ in range(4):
        loop.turn()
    loop.finish()
    assert accepted(scene, third) == 5
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        kept = ctx.session.execute(select(SendGrant.granted).where(SendGrant.send_id.is_not(None))).all()
    assert [row.granted for row in kept] == [5]  # what no window reaches is forgotten


def test_a_raised_rate_is_heeded_before_the_window_ends(make_scene: MakeScene, database_time: DatabaseTime) -> None:
    scene = make_scene(10)
    database_time.set_to(NOON)
    limit(scene, {"count": 3, "per": "30 days"})
    scene.launch()
    loop = WorkerLoop(scene.runtime, lambda: False)
    for _ in range(3):
        loop.turn()
    assert len(scene.channel.sent) == 2
    assert 0 < loop.sender.pause_seconds <= 30
    limit(scene, {"count": 1000, "per": "30 days"})
    rested(loop)
    loop.turn()
    loop.finish()
    assert len(scene.channel.sent) == 10


def test_a_chunk_may_be_taken_up_any_number_of_times(make_scene: MakeScene) -> None:
    scene = make_scene(3)
    scene.launch()
    plan_waiting(scene.runtime)
    with scene.runtime.work(scene.tenant_id) as ctx:
        ctx.session.execute(update(DeliveryChunk).values(claims=32767))
    scene.work()
    assert scene.states() == ["accepted"] * 3


def rested(loop: WorkerLoop) -> None:
    """As if half a minute had passed since it last asked."""
    loop.sender._not_before.clear()
    loop.sender._ways.patience = Patience()


def launch_again(scene: Scene, name: str = "second", **options: object) -> int:
    with scene.runtime.work(scene.tenant_id) as ctx:
        first = ctx.session.scalars(select(Campaign).where(Campaign.id == scene.campaign_id)).one()
        made = {"name": name, "segment_id": first.segment_id, "template_id": first.template_id}
        campaign = create_campaign(ctx, {**made, **options})
        move_campaign(ctx, campaign.id, "launch")
        return campaign.id


def accepted(scene: Scene, campaign_id: int) -> int:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        return int(campaign_analytics(ctx, campaign_id)["accepted"])
