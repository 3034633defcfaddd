"""What brings leads into journeys besides events and segments: dates, schedules, other journeys, programs; and cooldown."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import AuditEntry, JourneyArrival, LeadField, Timer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.leads.records import update_lead
from tests.common.databases import NOW
from tests.common.factories import make_segment
from tests.functional.delivery.journeys import API, Way

pytestmark = pytest.mark.req("US-020", "FR-P3-004")

BYE = {"bye": {"type": "exit", "reason": "seen"}}


def born(way: Way, number: int, day: str | None, zone: str = "UTC") -> None:
    with way.runtime.work(way.tenant) as ctx:
        update_lead(ctx, way.stage.lead_ids[number - 1], {"metadata": {"born": day}, "time_zone": zone})


def entered(way: Way) -> dict[int, datetime]:
    """When each lead came in, by its number."""
    return {way.stage.lead_ids.index(run.lead_id) + 1: run.entered_at for run in way.runs()}


class TestDates:
    @pytest.fixture
    def birthday(self, way: Way) -> Way:
        with way.runtime.work(way.tenant) as ctx:
            ctx.session.add(LeadField(name="born", type="date", created_at=ctx.now, updated_at=ctx.now))
        born(way, 1, "1990-03-05")
        born(way, 2, "1985-03-05", "America/New_York")
        self.publish(way)
        return way

    def publish(self, way: Way, **more: Any) -> None:
        trigger = {"on": "date", "field": "born", "at": "09:00", "every": "year", **more}
        way.publish(BYE, entry={"triggers": [trigger], "reentry": {"policy": "always"}})
        way.work()

    def test_everybody_comes_by_the_own_clock_every_year(self, birthday):
        for _ in range(8):
            birthday.go_on(hours=12)
        first = entered(birthday)
        assert first[1] >= datetime(2026, 3, 5, 9, tzinfo=UTC)
        assert first[2] >= datetime(2026, 3, 5, 14, tzinfo=UTC)
        assert first.keys() == {1, 2}
        birthday.go_on(days=350)
        assert len(birthday.runs()) == 2
        for _ in range(3):
            birthday.go_on(days=7)
        assert len(birthday.runs()) == 4

    def test_a_date_that_moves_is_waited_for_anew(self, birthday):
        born(birthday, 1, "1990-03-04")
        born(birthday, 2, None)
        born(birthday, 3, "2000-03-04")
        birthday.work()
        birthday.go_on(days=2)
        assert entered(birthday).keys() == {1, 3}
        birthday.go_on(days=3)
        assert entered(birthday).keys() == {1, 3}

    def test_days_before_are_days_and_an_occurrence_counts_once(self, birthday):
        self.publish(birthday, offset="-2 days")
        birthday.go_on(days=1, hours=2)
        second = birthday.journey
        with birthday.runtime.work(birthday.tenant, mode="read") as ctx:
            names = ctx.session.execute(select(JourneyArrival.journey_id, JourneyArrival.occurrence)).all()
        assert [tuple(each) for each in names] == [(second, "date:born:-172800:2026-03-05")]
        born(birthday, 1, "1990-03-05")
        birthday.go_on(hours=1)
        assert Counter(run.journey_id for run in birthday.runs())[second] == 1

    def test_stopping_ends_it(self, birthday):
        birthday.move(JourneyMove.STOP)
        birthday.go_on(days=5)
        assert birthday.runs() == []


class TestSchedules:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_the_members_of_the_moment_come_each_time(self, way):
        make_segment(way.runtime, way.tenant, way.stage.lead_ids[:3], name="Weekly")
        rule = {"cron": "0 9 * * tue", "time_zone": "Europe/Berlin", "count": 2}
        trigger = {"on": "schedule", "segment": "Weekly", "recurrence": rule}
        way.publish(BYE, entry={"triggers": [trigger], "reentry": {"policy": "always"}})
        way.work()
        assert way.runs() == []
        way.go_on(seconds=(datetime(2026, 3, 3, 8, 30, tzinfo=UTC) - NOW).total_seconds())
        assert way.where() == {"exited:seen": 3}
        for _ in range(2):
            way.go_on(days=7)
        assert way.where() == {"exited:seen": 6}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            found = set(ctx.session.scalars(select(JourneyArrival.occurrence)))
            assert ctx.session.scalars(select(Timer)).all() == []
        assert found == {f"schedule:0:2026-03-{day}T08:00:00.000000Z" for day in ("03", "10")}

    def test_a_round_that_nobody_began_in_time_is_missed(self, way):
        make_segment(way.runtime, way.tenant, way.stage.lead_ids[:3], name="Weekly")
        trigger = {"on": "schedule", "segment": "Weekly", "recurrence": {"cron": "0 9 * * tue"}}
        way.publish(BYE, entry={"triggers": [trigger]})
        way.go_on(days=4)
        assert way.runs() == []
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert "journey.round_missed" in ctx.session.scalars(select(AuditEntry.action)).all()
            assert ctx.session.scalars(select(Timer.trigger_at)).one() == datetime(2026, 3, 10, 9, tzinfo=UTC)

    def test_a_rule_that_is_none_refuses_publication(self, way):
        make_segment(way.runtime, way.tenant, [], name="Weekly")
        trigger = {"on": "schedule", "segment": "Weekly", "recurrence": {"cron": "* * * * *"}}
        with pytest.raises(ValidationError) as raised:
            way.publish(BYE, entry={"triggers": [trigger]})
        assert [each.path for each in raised.value.problems] == ["draft.entry.triggers.0.recurrence.cron"]


class TestOtherJourneys:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_one_begins_where_another_ended_as_is_said(self, way):
        nodes = {
            "which": {
                "type": "branch",
                "branches": [{"when": "country == 'DE'", "to": "bye"}],
                "else": "end",
            },
            **BYE,
        }
        first = way.publish(nodes)
        with way.runtime.work(way.tenant) as ctx:
            entry = {"triggers": [{"on": "journey", "journey": str(first), "ended": ["exited"]}]}
            seen = {"when": "event.reason == 'seen'", "to": "yes"}
            then = {
                "which": {"type": "branch", "branches": [seen], "else": "end"},
                "yes": {"type": "exit", "reason": "followed"},
            }
            second = create_journey(ctx, {"name": "then", "draft": {"id": "then", "entry": entry, "nodes": then}})
            publish_journey(ctx, second.id)
            update_lead(ctx, way.stage.lead_ids[0], {"country": "DE"})
        way.enter(1, 2)
        way.work()
        assert way.where() == {"exited:seen": 1, "done:end": 1, "exited:followed": 1}

    def test_no_journey_begins_after_one_that_there_is_not(self, way):
        with pytest.raises(ValidationError) as raised:
            way.publish(BYE, entry={"triggers": [{"on": "journey", "journey": "nothing"}]})
        assert [each.code for each in raised.value.problems] == ["unknown_journey"]


def test_nobody_comes_again_before_the_cooldown_is_over(way):
    way.publish(BYE, entry={**API["entry"], "reentry": {"policy": "always"}, "cooldown": "1 day"})
    assert way.enter(1) == ["entered"]
    way.go_on(hours=23)
    assert way.enter(1) == ["cooldown"]
    way.go_on(hours=2)
    assert way.enter(1) == ["entered"]
