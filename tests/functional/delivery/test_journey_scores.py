"""Scores that cross a threshold, and plugins, bring leads into journeys: once an occurrence, and nobody whom nothing says."""

from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import AuditEntry, JourneyArrival, Score, Timer
from nexus_marketing.plugin import Firing, OccasionKind
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys.entrances import EntranceCall, open_entrance, receive_entrance
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from nexus_marketing.services.scores.records import create_score, publish_score, remove_score
from nexus_marketing.services.scores.setting import set_score
from tests.common.plugins import Bell, bells_plugin, with_plugins
from tests.functional.delivery.journeys import Way

pytestmark = pytest.mark.req("US-020", "FR-P3-004", "FR-EXT-004", "BR-013")

BYE = {"bye": {"type": "exit", "reason": "seen"}}
ALWAYS = {"reentry": {"policy": "always"}}


def score(way: Way, number: int, points: float) -> None:
    with way.runtime.work(way.tenant) as ctx:
        set_score(ctx, way.stage.lead_ids[number - 1], points, "test")
    way.work()


def came(way: Way) -> list[int]:
    return [way.stage.lead_ids.index(run.lead_id) + 1 for run in way.runs()]


def test_crossing_brings_a_lead_in_each_time_and_staying_above_does_not(way):
    way.publish(BYE, entry={"triggers": [{"on": "score", "threshold": 80}], **ALWAYS})
    score(way, 2, 79)
    assert came(way) == []
    score(way, 1, 80)
    score(way, 1, 95)
    assert came(way) == [1]
    way.go_on(hours=1)
    score(way, 1, 20)
    score(way, 1, 90)
    score(way, 2, 81)
    assert came(way) == [1, 1, 2]
    with way.runtime.work(way.tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Timer)).all() == []


class TestScores:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_a_named_score_falls_under_a_threshold_of_its_rules_as_time_goes_by(self, way):
        rule = {"key": "visit", "event": "visit", "points": 50, "counts": "per_occurrence"}
        ages = {"steps": [{"after": "1 day", "keep": 0.1}]}
        rules = {"rules": [{**rule, "decay": ages}], "thresholds": [{"key": "warm", "up": 40, "down": 10}]}
        with way.runtime.work(way.tenant) as ctx:
            made = create_score(ctx, {"name": "heat", "draft": rules})
            publish_score(ctx, made.id)
        way.work()
        cold = {"on": "score", "score": "heat", "threshold": "warm", "direction": "down", "where": "metadata.after < 9"}
        way.publish(BYE, entry={"triggers": [cold]})
        way.event(3, "visit")
        way.work()
        assert came(way) == []
        way.go_on(days=1, minutes=5)
        way.work()
        assert came(way) == [3]
        with pytest.raises(Conflict, match="journey"), way.runtime.work(way.tenant) as ctx:
            remove_score(ctx, ctx.session.scalars(select(Score.id).where(Score.name == "heat")).one())

    def test_new_rules_that_make_something_else_of_the_past_bring_nobody_in(self, way):
        way.publish(BYE, entry={"triggers": [{"on": "score", "threshold": 80}]})
        way.event(1, "visit")
        with way.runtime.work(way.tenant) as ctx:
            rule = {"key": "visit", "event": "visit", "points": 90, "counts": "per_occurrence"}
            made = create_score(ctx, {"name": "score", "draft": {"rules": [rule]}})
            publish_score(ctx, made.id)
        way.work()
        assert came(way) == []
        way.event(2, "visit")
        way.work()
        assert came(way) == [2]

    @pytest.mark.parametrize(
        ("trigger", "code"),
        [({"score": "nothing", "threshold": 8}, "unknown_score"), ({"threshold": "hot"}, "unknown_threshold")],
    )
    def test_what_no_score_has_refuses_publication(self, way, trigger, code):
        with pytest.raises(ValidationError) as raised:
            way.publish(BYE, entry={"triggers": [{"on": "score", **trigger}]})
        assert [each.code for each in raised.value.problems] == [code]

    def test_the_cooldown_of_the_journey_holds(self, way):
        way.publish(BYE, entry={"triggers": [{"on": "score", "threshold": 80}], **ALWAYS, "cooldown": "1 day"})
        for points in (80, 10, 80):
            score(way, 1, points)
        assert came(way) == [1]


class TestPlugins:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """One database: nothing here is put another way in SQL."""
        return sqlite_only_runtime

    @pytest.fixture
    def bell(self, way: Way) -> Bell:
        bell = Bell("big_purchase", frozenset(OccasionKind))
        way.runtime = with_plugins(way.runtime, bells_plugin(bell, Bell("daily", frozenset({"scheduled"}))))
        way.stage.runtime = way.runtime
        with way.runtime.work(way.tenant) as ctx:
            switch_on(ctx, "nexus-bells", {"pages": 3})
        return bell

    def ask(self, way: Way, **about: Any) -> None:
        trigger = {"on": "plugin", "trigger": "big_purchase", **(about or {"event": "purchase"})}
        way.publish(BYE, entry={"triggers": [trigger], **ALWAYS})

    def test_it_is_asked_about_the_event_and_lets_in_whom_it_names(self, way, bell):
        first, second = way.stage.lead_ids[:2]
        bell.script = [[Firing("a", first, {"amount": 9}), Firing("a", second), Firing("b", second), Firing("c")], []]
        self.ask(way)
        way.event(1, "visit")
        way.event(1, "purchase", properties={"amount_minor": 900})
        way.work()
        (occasion,) = bell.asked
        assert (occasion.kind, occasion.name, occasion.settings) == (OccasionKind.EVENT, "purchase", {"pages": 3})
        assert (occasion.data["lead_id"], occasion.data["amount_minor"]) == (first, 900)
        assert came(way) == [1, 2]
        assert [run.snapshot["event"]["metadata"] for run in way.runs(1)] == [{"amount": 9}]

    def test_a_key_counts_once_and_a_plugin_that_raises_is_asked_again(self, way, bell):
        lead = way.stage.lead_ids[0]
        bell.script = [OSError("away"), ["nonsense"], [Firing("a", lead)], [Firing("a", lead), Firing("b", 10**9)]]
        self.ask(way)
        way.event(1, "purchase")
        way.work()
        assert came(way) == []
        for _ in range(3):
            way.go_on(hours=1)
        way.event(2, "purchase")
        way.work()
        assert len({each.key for each in bell.asked}) == 2
        assert came(way) == [1]

    def test_where_it_never_answers_the_audit_says_so(self, way, bell):
        bell.script = [OSError("away")] * 99
        self.ask(way)
        way.event(1, "purchase")
        for _ in range(14):
            way.go_on(hours=6)
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert "trigger.given_up" in ctx.session.scalars(select(AuditEntry.action)).all()
            assert ctx.session.scalars(select(Timer)).all() == []

    def test_nobody_is_asked_where_the_tenant_has_it_off(self, way, bell):
        self.ask(way)
        with way.runtime.work(way.tenant) as ctx:
            switch_off(ctx, "nexus-bells")
        way.event(1, "purchase")
        way.work()
        assert bell.asked == []
        with pytest.raises(ValidationError, match="plugins enable nexus-bells"):
            self.ask(way)

    def test_the_clock_asks_too(self, way, bell):
        bell.script = [[Firing("monday", way.stage.lead_ids[1])]]
        self.ask(way, recurrence={"cron": "0 9 * * *", "count": 1})
        way.go_on(days=1)
        assert [each.kind for each in bell.asked] == [OccasionKind.SCHEDULED]
        assert came(way) == [2]
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert ctx.session.scalars(select(JourneyArrival.occurrence)).all() == ["plugin:big_purchase:monday"]

    def test_a_program_calls_and_the_plugin_says_who_comes(self, way, bell):
        bell.script = [[Firing("17", way.stage.lead_ids[2])], [Firing("17", way.stage.lead_ids[2])], OSError("away")]
        self.ask(way, webhook=True)
        with way.runtime.work(way.tenant) as ctx:
            token = open_entrance(ctx, way.journey).rpartition("/")[2]
        called = EntranceCall(token, {}, b'{"id": "17", "data": {"basket": 4}}')
        assert [each.outcome for each in receive_entrance(way.runtime, called)] == ["entered"]
        assert [each.outcome for each in receive_entrance(way.runtime, called)] == ["duplicate"]
        assert bell.asked[0].data == {"basket": 4}
        with pytest.raises(Exception, match="call again"):
            receive_entrance(way.runtime, called)

    @pytest.mark.parametrize(
        ("trigger", "path", "code"),
        [
            ({"trigger": "big_purchases", "event": "purchase"}, "trigger", "unknown_trigger"),
            ({"trigger": "daily", "event": "purchase"}, "event", "not_asked"),
        ],
    )
    def test_what_no_plugin_is_asked_refuses_publication(self, way, bell, trigger, path, code):
        with pytest.raises(ValidationError) as raised:
            self.ask(way, **trigger)
        problem = raised.value.problems[0]
        assert (problem.path, problem.code) == (f"draft.entry.triggers.0.{path}", code)

    def test_a_stopped_journey_asks_nobody(self, way, bell):
        self.ask(way, recurrence={"cron": "0 9 * * *"})
        way.move(JourneyMove.STOP)
        way.go_on(days=2)
        assert bell.asked == []
