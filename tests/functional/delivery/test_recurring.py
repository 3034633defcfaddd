"""Campaigns that are sent again and again: each run to the audience of its day, never two at once."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.db.models import Send, Timer
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign, update_campaign
from nexus_marketing.services.campaigns.runs import move_next_run
from nexus_marketing.services.segments.records import change_members
from tests.common.databases import NOW, DatabaseTime, FakeClock
from tests.common.factories import make_leads
from tests.functional.delivery.conftest import Stage

pytestmark = pytest.mark.req("FR-P2-004", "FR-P3-006", "R04")

#: The clock of the tests shows Monday, ten o'clock.
DAILY = {"cron": "0 12 * * *"}


@pytest.fixture
def weekly(stage: Stage, clock: FakeClock, database_time: DatabaseTime) -> "Days":
    database_time.set_to(NOW)
    return Days(stage, clock, database_time)


class Days:
    """A stage on which days go by."""

    def __init__(self, stage: Stage, clock: FakeClock, database_time: DatabaseTime) -> None:
        self.stage, self.clock, self.database_time = stage, clock, database_time

    def launch(self, recurrence: dict[str, Any], *channels: str, **options: Any) -> None:
        self.stage.launch(*(channels or ("push",)), recurrence=recurrence, obeys_caps=False, **options)

    def go_on(self, **delta: float) -> None:
        self.clock.advance(**delta)
        self.database_time.advance(**delta)
        self.stage.work()

    def accepted(self) -> int:
        return sum(states["accepted"] for states in self.stage.states().values())

    def next_run(self) -> str | None:
        at = self.stage.campaign().next_run_at
        return None if at is None else at.isoformat()

    def timers(self) -> int:
        with self.stage.runtime.work(self.stage.tenant_id, mode="read") as ctx:
            return ctx.session.scalar(select(func.count()).select_from(Timer).where(Timer.type == "campaign.run")) or 0


class TestRuns:
    def test_nobody_gets_it_before_its_first_day_and_then_once_a_day(self, weekly):
        weekly.launch({**DAILY, "count": 3})
        weekly.stage.work()
        assert (weekly.accepted(), weekly.next_run()) == (0, "2026-03-02T12:00:00+00:00")
        weekly.go_on(hours=2, minutes=1)
        assert (weekly.accepted(), weekly.next_run()) == (20, "2026-03-03T12:00:00+00:00")
        assert weekly.stage.campaign().status == "active"
        weekly.go_on(hours=12)
        assert weekly.accepted() == 20
        weekly.go_on(hours=12)
        assert weekly.accepted() == 40
        weekly.go_on(days=1)
        assert (weekly.accepted(), weekly.next_run(), weekly.timers()) == (60, None, 0)
        assert weekly.stage.campaign().status == "completed"
        assert weekly.stage.history() == ["created", "launch", *["run_begun"] * 3, "complete"]
        weekly.go_on(days=3)
        assert weekly.accepted() == 60

    def test_each_goes_to_the_audience_of_its_day(self, weekly, runtime, tenant):
        weekly.launch(DAILY)
        weekly.go_on(hours=3)
        more = make_leads(runtime, tenant, 5, first=500)
        with runtime.work(tenant) as ctx:
            change_members(ctx, weekly.stage.segment_id, add=more)
        weekly.go_on(days=1)
        assert weekly.accepted() == 20 + 25

    def test_over_several_channels(self, weekly):
        weekly.launch({**DAILY, "count": 2}, "email", "sms")
        weekly.go_on(hours=3)
        weekly.go_on(days=1)
        assert weekly.stage.states() == {"email": Counter(accepted=40), "sms": Counter(accepted=40)}
        assert len(weekly.stage.joined) == 2
        assert weekly.stage.campaign().status == "completed"

    def test_a_run_that_is_still_sending_is_not_overtaken(self, weekly):
        push: Any = weekly.stage.runtime.channels["push"]
        push.script = {"": [OutcomeKind.TRANSIENT] * 20 + [OutcomeKind.THROTTLED] * 400}
        weekly.launch({"cron": "0 * * * *", "count": 3})
        weekly.go_on(hours=1, minutes=1)
        weekly.go_on(hours=1)
        assert "run_skipped" in weekly.stage.history()
        with weekly.stage.runtime.work(weekly.stage.tenant_id, mode="read") as ctx:
            assert ctx.session.scalar(select(func.count()).select_from(Send)) == 1

    def test_two_workers_begin_a_run_once(self, weekly):
        weekly.launch({**DAILY, "count": 1})
        weekly.clock.advance(hours=3)
        weekly.database_time.advance(hours=3)
        for _ in range(3):
            weekly.stage.work(1)
        weekly.stage.work()
        assert weekly.accepted() == 20


class TestAPause:
    def test_what_falls_into_it_is_left_out(self, weekly):
        weekly.launch(DAILY)
        weekly.go_on(hours=3)
        weekly.stage.move("pause")
        assert (weekly.next_run(), weekly.timers()) == (None, 0)
        weekly.go_on(days=2)
        assert weekly.accepted() == 20
        weekly.stage.move("resume")
        assert weekly.next_run() == "2026-03-05T12:00:00+00:00"
        weekly.go_on(days=1)
        assert weekly.accepted() == 40

    def test_a_cancelled_campaign_waits_for_nothing(self, weekly):
        weekly.launch(DAILY)
        weekly.stage.move("cancel")
        weekly.go_on(days=2)
        assert (weekly.accepted(), weekly.timers()) == (0, 0)

    @pytest.mark.req("R13")
    def test_what_no_worker_began_in_time_waits_for_a_person(self, weekly):
        weekly.launch(DAILY)
        grace = weekly.stage.runtime.settings.grace
        weekly.clock.advance(hours=2, seconds=grace.total_seconds() + 60)
        weekly.database_time.advance(hours=2, seconds=grace.total_seconds() + 60)
        weekly.stage.work()
        campaign = weekly.stage.campaign()
        assert (weekly.accepted(), campaign.status) == (0, "paused")
        assert "missed" in campaign.status_reason
        weekly.stage.move("resume")
        weekly.stage.work()
        assert weekly.accepted() == 20


class TestAPersonsWord:
    def test_moves_the_next_run(self, weekly):
        weekly.launch(DAILY)
        with weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx:
            move_next_run(ctx, weekly.stage.campaign_id, NOW + timedelta(hours=5))
        weekly.go_on(hours=3)
        assert weekly.accepted() == 0
        weekly.go_on(hours=2, minutes=1)
        assert (weekly.accepted(), weekly.next_run()) == (20, "2026-03-03T12:00:00+00:00")

    def test_leaves_it_out(self, weekly):
        weekly.launch(DAILY)
        with weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx:
            move_next_run(ctx, weekly.stage.campaign_id, None)
        weekly.go_on(hours=3)
        assert (weekly.accepted(), weekly.next_run()) == (0, "2026-03-03T12:00:00+00:00")

    def test_leaving_out_the_last_one_ends_it(self, weekly):
        weekly.launch({**DAILY, "until": "2026-03-02"})
        with weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx:
            move_next_run(ctx, weekly.stage.campaign_id, None)
        assert weekly.stage.campaign().status == "completed"

    def test_is_not_for_what_has_passed_or_does_not_recur(self, weekly):
        weekly.launch(DAILY)
        with (
            pytest.raises(ValidationError, match="has passed"),
            weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx,
        ):
            move_next_run(ctx, weekly.stage.campaign_id, NOW - timedelta(hours=1))
        weekly.stage.move("pause")
        with (
            pytest.raises(Conflict, match="waits for no run"),
            weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx,
        ):
            move_next_run(ctx, weekly.stage.campaign_id, NOW + timedelta(hours=1))


class TestWhatCannotBe:
    def test_is_said_with_its_place(self, stage):
        for data, path in (
            ({"recurrence": {"cron": "every monday"}}, "recurrence.cron"),
            ({"recurrence": {**DAILY, "time_zone": "Mars"}}, "recurrence.time_zone"),
            ({"recurrence": DAILY, "local_start": "2026-12-01T09:00"}, "local_start"),
        ):
            with pytest.raises(ValidationError) as refused, stage.runtime.work(stage.tenant_id) as ctx:
                create_campaign(ctx, {"name": "c", **data})
            assert [each.path for each in refused.value.problems] == [path]

    def test_a_rule_that_is_over_is_not_launched(self, stage):
        with pytest.raises(ValidationError, match="no run left"):
            stage.launch("push", recurrence={**DAILY, "until": "2026-03-01"})

    def test_a_launch_says_now_what_would_keep_its_runs_from_leaving(self, stage):
        with stage.runtime.work(stage.tenant_id) as ctx:
            campaign = create_campaign(ctx, {"name": "c", "recurrence": DAILY})
            with pytest.raises(ValidationError) as refused:
                move_campaign(ctx, campaign.id, "launch")
            assert "segment_id" in [each.path for each in refused.value.problems]

    def test_a_launched_campaign_keeps_its_kind(self, weekly):
        weekly.launch(DAILY)
        weekly.stage.move("pause")
        with (
            pytest.raises(ValidationError, match="keeps its kind"),
            weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx,
        ):
            update_campaign(ctx, weekly.stage.campaign_id, {"recurrence": None})

    def test_a_paused_campaign_takes_another_rule(self, weekly):
        weekly.launch(DAILY)
        weekly.stage.move("pause")
        with weekly.stage.runtime.work(weekly.stage.tenant_id) as ctx:
            update_campaign(ctx, weekly.stage.campaign_id, {"recurrence": {"cron": "30 10 * * *"}})
        weekly.stage.move("resume")
        assert weekly.next_run() == "2026-03-02T10:30:00+00:00"
