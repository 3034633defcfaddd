"""Frequency caps, quiet hours and who goes first, on both databases (BEHAVIOUR.md 5.1, R16)."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, text, update

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.models import Campaign, Delivery, Lead, Send, Tenant
from nexus_marketing.db.queries.caps import lock_caps
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.forms import FROM_DEFINITION
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.explanations import explain_lead
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads, make_tenant
from tests.functional.delivery.conftest import Scene

pytestmark = pytest.mark.req("BR-001", "FR-P2-004")

MakeScene = Callable[..., Scene]
#: Of R16, which asks for 1,000.
LEADS = int(os.environ.get("NEXUS_R16_LEADS", "60"))
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def make_scene(make_scene: MakeScene, database_time: DatabaseTime) -> MakeScene:
    """As of the folder, at midday of the database, so that no test runs over midnight."""
    database_time.set_to(NOON)
    return make_scene


def settings(scene: Scene, **values: Any) -> None:
    with scene.runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, scene.tenant_id).settings = values


def another(scene: Scene, name: str, **options: Any) -> int:
    """Launch one more campaign to the same people with the same message; answers its id."""
    with scene.runtime.work(scene.tenant_id) as ctx:
        first = ctx.session.scalars(select(Campaign).where(Campaign.id == scene.campaign_id)).one()
        campaign = create_campaign(
            ctx, {"name": name, "segment_id": first.segment_id, "template_id": first.template_id, **options}
        )
        move_campaign(ctx, campaign.id, "launch")
        return campaign.id


def states(scene: Scene, campaign_id: int) -> list[str]:
    with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
        rows = ctx.session.scalars(
            select(Delivery)
            .join(Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id))
            .where(Send.campaign_id == campaign_id)
            .order_by(Delivery.seq)
        ).all()
    return [row.state if row.reason is None else f"{row.state}({row.reason})" for row in rows]


def sent(scene: Scene) -> Counter[str]:
    return Counter(each.address for each in scene.channel.sent)


class TestCaps:
    def test_nobody_is_written_to_twice_a_day(self, make_scene: MakeScene) -> None:
        scene = make_scene(12)
        scene.launch()
        scene.work()
        second = another(scene, "second")
        scene.work()
        assert states(scene, second) == ["skipped(cap)"] * 12
        assert set(sent(scene).values()) == {1}
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            assert "enough messages" in explain_lead(ctx, scene.lead_ids[0], second)["sentence"]

    def test_the_next_day_begins_where_the_lead_lives(self, make_scene: MakeScene, database_time: DatabaseTime) -> None:
        scene = make_scene(2)
        with scene.runtime.work(scene.tenant_id) as ctx:
            ctx.session.execute(update(Lead).where(Lead.id == scene.lead_ids[0]).values(time_zone="Pacific/Auckland"))
        database_time.set_to(datetime(2026, 3, 2, 9, tzinfo=UTC))  # 22:00 in Auckland
        scene.launch()
        scene.work()
        database_time.set_to(datetime(2026, 3, 2, 11, 30, tzinfo=UTC))  # past midnight there, not here
        second = another(scene, "second")
        scene.work()
        assert states(scene, second) == ["accepted", "skipped(cap)"]

    def test_what_failed_and_what_was_left_out_is_no_use(self, make_scene: MakeScene) -> None:
        gone = [OutcomeKind.PERMANENT_RECIPIENT]
        scene = make_scene(4, script={"person1@example.org": gone, "person2@example.org": [OutcomeKind.UNKNOWN]})
        scene.suppress(3)
        scene.launch()
        scene.work()
        assert scene.states() == ["failed(permanent_recipient)", "unknown", "skipped(suppressed)", "accepted"]
        second = another(scene, "second")
        scene.work()
        assert states(scene, second) == ["accepted", "skipped(cap)", "skipped(suppressed)", "skipped(cap)"]

    def test_transactional_mail_is_neither_held_nor_counted(self, make_scene: MakeScene) -> None:
        scene = make_scene(3)
        scene.launch(message_class="transactional")
        scene.work()
        marketing = another(scene, "marketing")
        scene.work()
        receipt = another(scene, "receipt", message_class="transactional")
        scene.work()
        assert states(scene, marketing) == states(scene, receipt) == ["accepted"] * 3

    def test_a_campaign_may_stand_outside(self, make_scene: MakeScene) -> None:
        scene = make_scene(3)
        scene.launch(counts_toward_caps=False)
        scene.work()
        counted = another(scene, "counted")
        scene.work()
        free = another(scene, "free", obeys_caps=False)
        scene.work()
        assert states(scene, counted) == states(scene, free) == ["accepted"] * 3

    def test_a_tenant_may_switch_them_off(self, make_scene: MakeScene) -> None:
        scene = make_scene(3)
        settings(scene, frequency_caps=[])
        scene.launch()
        scene.work()
        second = another(scene, "second")
        scene.work()
        assert states(scene, second) == ["accepted"] * 3

    def test_what_may_wait_leaves_when_there_is_room(self, make_scene: MakeScene, database_time: DatabaseTime) -> None:
        scene = make_scene(5, chunk_size=2)
        settings(scene, frequency_caps=[{"window": "24 hours", "on_cap": "defer"}])
        scene.launch()
        scene.work()
        second = another(scene, "second")
        scene.work()
        assert states(scene, second) == ["planned(cap)"] * 5
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            assert "waits for room until 2026-03-03T12:" in explain_lead(ctx, scene.lead_ids[0], second)["sentence"]
            assert broken_invariants(ctx.session) == {}
        database_time.set_to(NOON + timedelta(hours=23, minutes=50))
        scene.work()
        assert len(scene.channel.sent) == 5
        database_time.set_to(NOON + timedelta(hours=24, minutes=10))
        scene.work()
        assert states(scene, second) == ["accepted"] * 5
        assert set(sent(scene).values()) == {2}

    def test_another_tenants_messages_do_not_count(self, make_scene: MakeScene, other_tenant: int) -> None:
        scene = make_scene(3)
        scene.launch()
        scene.work()
        stranger = Scene(scene.runtime, other_tenant, scene.channel, [])

        stranger.lead_ids = make_leads(scene.runtime, other_tenant, 3)
        stranger.launch()
        stranger.work()
        assert states(stranger, stranger.campaign_id) == ["accepted"] * 3

    def test_ten_campaigns_at_once_share_one_slot_a_day(
        self, make_scene: MakeScene, database_time: DatabaseTime
    ) -> None:
        """R16, with three workers at once and a midnight in between."""
        scene = make_scene(LEADS, chunk_size=LEADS // 6)
        database_time.set_to(datetime(2026, 3, 2, 23, 58, tzinfo=UTC))
        scene.launch()
        campaigns = [scene.campaign_id, *(another(scene, f"c{number}") for number in range(4))]
        work_at_once(scene)
        assert sent(scene) == dict.fromkeys(sent(scene), 1)
        assert len(scene.channel.sent) == LEADS
        database_time.set_to(datetime(2026, 3, 3, 0, 1, tzinfo=UTC))
        campaigns += [another(scene, f"d{number}") for number in range(5)]
        work_at_once(scene)
        assert len(scene.channel.sent) == 2 * LEADS
        assert set(sent(scene).values()) == {2}
        found = Counter(state for campaign in campaigns for state in states(scene, campaign))
        assert found["accepted"] == 2 * LEADS
        assert found["accepted"] + found["skipped(cap)"] + found["planned(outranked)"] == 10 * LEADS


def work_at_once(scene: Scene) -> None:
    """Three workers, until nothing but waiting is left."""

    def work() -> None:
        loop = WorkerLoop(scene.runtime, lambda: False)
        for _ in range(12):
            loop.turn()
        loop.finish()

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_who_decides_by_the_caps_waits_for_whoever_is_deciding(
    postgres_only_runtime: Runtime, make_scene_on: Callable[[Runtime], Scene]
) -> None:
    """Two workers never share the last slot: the second sees what the first took."""
    scene = make_scene_on(postgres_only_runtime)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with open_session(scene.runtime.engines.worker, tenant_id=scene.tenant_id) as session:
        with session.begin():
            lock_caps(session)
            scene.launch()
            worker = Thread(target=scene.work)
            worker.start()
            with scene.runtime.engines.owner.connect() as watching:
                while not watching.scalar(text(waiting)):
                    assert worker.is_alive()
            assert scene.channel.sent == []
        worker.join()
    assert scene.states() == ["accepted"] * 3


@pytest.fixture
def make_scene_on() -> Callable[[Runtime], Scene]:
    """A scene of three leads on a runtime."""

    def build(runtime: Runtime) -> Scene:
        channel = RecordingChannel({})
        tenant_id = make_tenant(runtime)
        return Scene(
            replace(runtime, channels={"email": channel}), tenant_id, channel, make_leads(runtime, tenant_id, 3)
        )

    return build


class TestArbitration:
    def test_the_higher_priority_gets_the_slot(self, make_scene: MakeScene, database_time: DatabaseTime) -> None:
        scene = make_scene(6, chunk_size=3)
        scene.launch(priority=10)
        better = another(scene, "better", priority=90)
        scene.work(turns=2)
        assert states(scene, better) == ["accepted"] * 6
        assert set(states(scene, scene.campaign_id)) <= {"planned(outranked)", "skipped(cap)"}
        database_time.set_to(NOON + timedelta(minutes=5))
        scene.work()
        assert states(scene, scene.campaign_id) == ["skipped(cap)"] * 6
        assert set(sent(scene).values()) == {1}

    def test_who_waits_for_another_is_told_for_whom(self, make_scene: MakeScene) -> None:
        scene = make_scene(2)
        scene.launch(priority=10)
        other = another(scene, "better", priority=90)
        scene.work(turns=2)
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            waits = explain_lead(ctx, scene.lead_ids[0], scene.campaign_id)["sentence"]
            send = ctx.session.scalars(select(Send.id).where(Send.campaign_id == other)).one()
        assert f"send {send} is due for the same lead and goes first" in waits

    def test_a_paused_send_stands_in_nobodys_way(self, make_scene: MakeScene) -> None:
        scene = make_scene(3)
        scene.launch(priority=90)
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "pause")
        other = another(scene, "other", priority=10)
        scene.work()
        assert states(scene, other) == ["accepted"] * 3


class TestQuietHours:
    def test_a_message_waits_until_the_morning_of_its_lead(
        self, make_scene: MakeScene, database_time: DatabaseTime
    ) -> None:
        scene = make_scene(3)
        settings(scene, quiet_hours=[{"from": "21:00", "to": "08:00", "spread": "1 minutes"}])
        zones = ("Asia/Tokyo", "Europe/Berlin", "America/New_York")
        for lead_id, zone in zip(scene.lead_ids, zones, strict=True):
            with scene.runtime.work(scene.tenant_id) as ctx:
                ctx.session.execute(update(Lead).where(Lead.id == lead_id).values(time_zone=zone))
        scene.launch()
        scene.work()
        assert scene.states() == ["planned(quiet_hours)", "accepted", "planned(quiet_hours)"]  # 21:00, 13:00, 07:00
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            found = explain_lead(ctx, scene.lead_ids[2], scene.campaign_id)["sentence"]
            assert "held for quiet hours until 2026-03-02T13:0" in found
            assert broken_invariants(ctx.session) == {}
        database_time.set_to(NOON + timedelta(hours=1, minutes=3))
        scene.work()
        assert scene.states() == ["planned(quiet_hours)", "accepted", "accepted"]
        database_time.set_to(NOON + timedelta(hours=11, minutes=5))
        scene.work()
        assert scene.states() == ["accepted"] * 3
        assert scene.send().status == "completed"

    def test_they_do_not_hold_what_somebody_asked_for(self, make_scene: MakeScene) -> None:
        scene = make_scene(2)
        settings(scene, quiet_hours=[{"from": "00:00", "to": "23:59"}])
        scene.launch(message_class="transactional")
        scene.work()
        assert scene.states() == ["accepted"] * 2

    def test_what_may_not_wait_is_left_out_with_the_reason(self, make_scene: MakeScene) -> None:
        scene = make_scene(2)
        settings(scene, quiet_hours=[{"from": "10:00", "to": "14:00", "on_quiet": "skip"}])
        scene.launch()
        scene.work()
        assert scene.states() == ["skipped(quiet_expired)"] * 2

    def test_consent_is_asked_for_again_after_the_wait(
        self, make_scene: MakeScene, database_time: DatabaseTime
    ) -> None:
        scene = make_scene(2)
        settings(scene, quiet_hours=[{"from": "10:00", "to": "14:00", "spread": "1 minutes"}])
        scene.launch()
        scene.work()
        scene.suppress(1)
        database_time.set_to(NOON + timedelta(hours=3))
        scene.work()
        assert scene.states() == ["skipped(suppressed)", "accepted"]

    def test_a_cancelled_campaign_leaves_nobody_waiting(self, make_scene: MakeScene) -> None:
        scene = make_scene(3)
        settings(scene, quiet_hours=[{"from": "10:00", "to": "14:00"}])
        scene.launch()
        scene.work()
        with scene.runtime.work(scene.tenant_id) as ctx:
            move_campaign(ctx, scene.campaign_id, "cancel")
        scene.work()
        assert scene.states() == ["skipped(cancelled)"] * 3


class TestLocalStart:
    def test_everybody_gets_it_at_nine_by_the_own_clock(
        self, make_scene: MakeScene, database_time: DatabaseTime
    ) -> None:
        scene = make_scene(4)
        zones = ("Pacific/Auckland", "Europe/Berlin", None, "America/Los_Angeles")
        for lead_id, zone in zip(scene.lead_ids, zones, strict=True):
            with scene.runtime.work(scene.tenant_id) as ctx:
                ctx.session.execute(update(Lead).where(Lead.id == lead_id).values(time_zone=zone))
        settings(scene, default_time_zone="Europe/Lisbon")
        scene.launch(local_start="2026-03-04T09:00")
        scene.work()
        assert scene.states() == ["planned(local_start)"] * 4
        with scene.runtime.work(scene.tenant_id, mode="read") as ctx:
            found = explain_lead(ctx, scene.lead_ids[1], scene.campaign_id)["sentence"]
            assert "by the lead's own clock, it waits until 2026-03-04T08:00:" in found
        counts = []
        for moment in ("03T19:55", "03T20:05", "04T08:05", "04T09:05", "04T17:05"):
            database_time.set_to(datetime.fromisoformat(f"2026-03-{moment}+00:00"))
            scene.work()
            counts.append([each.address for each in scene.channel.sent])
        assert [len(each) for each in counts] == [0, 1, 2, 3, 4]
        assert counts[-1] == [scene.address(number) for number in range(1, 5)]
        assert scene.send().status == "completed"

    def test_whose_hour_is_past_gets_it_at_once(self, make_scene: MakeScene) -> None:
        scene = make_scene(2)
        scene.launch(local_start="2026-03-02T11:59", message_class="transactional")
        scene.work()
        assert scene.states() == ["accepted"] * 2

    @pytest.mark.parametrize(
        "wrong", ["2026-03-02T11:59Z", "2026-03-02", "tomorrow", "2026-02-30T09:00", "2026-03-02T25:00"]
    )
    def test_what_is_no_local_time_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValidationError, match="without an offset"):
            FROM_DEFINITION.check({"name": "x", "local_start": wrong})
