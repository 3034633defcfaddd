"""Runs that failed are put back where they stood: one or many, and nothing that was done is done again."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select, update

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.core.timers import MAX_CRASHES
from nexus_marketing.db.models import AuditEntry, JourneyStep, Send, TakenAction, Timer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys import reviving as journey_reviving
from nexus_marketing.services.journeys.reviving import revive_runs
from nexus_marketing.services.plugins.enabling import switch_on
from tests.common.plugins import Deed, deeds_plugin, with_plugins
from tests.functional.delivery.journeys import API, Way, message

pytestmark = pytest.mark.req("US-020", "FR-P3-011")

LATER = {"type": "delay", "for": "9 days"}
WHY = "the disk is larger now"


def die(way: Way, *numbers: int) -> None:
    """The workers that fire the timers of these leads' runs end, again and again."""
    keys = [str(run.id) for number in numbers for run in way.runs(number)]
    with way.runtime.work(way.tenant) as ctx:
        dying = {"crashes": MAX_CRASHES, "trigger_at": ctx.now}
        ctx.session.execute(update(Timer).where(Timer.type == "journey.run", Timer.key.in_(keys)).values(**dying))
    way.work()


def revive(way: Way, **wish: Any) -> dict[tuple[str, str, str], int]:
    with way.runtime.work(way.tenant, Actor("key:ann")) as ctx:
        found = revive_runs(ctx, way.journey, {"why": WHY, **wish})
    way.work()
    return {(each["node"], each["reason"], each["what"]): each["runs"] for each in found["nodes"]}


def history(way: Way, number: int) -> list[JourneyStep]:
    (run,) = way.runs(number)
    with way.runtime.work(way.tenant, mode="read") as ctx:
        return list(
            ctx.session.scalars(select(JourneyStep).where(JourneyStep.run_id == run.id).order_by(JourneyStep.id))
        )


def test_whoever_waited_waits_on_and_the_history_says_who_put_them_back(way, monkeypatch):
    monkeypatch.setattr(journey_reviving, "_PIECE", 1)
    way.publish({"wait": LATER})
    way.enter(1, 2, 3)
    way.work()
    die(way, 1, 2)
    way.go_on(days=2)
    dead = {("wait", "timer_dead", "revived"): 2}
    assert revive(way, dry_run=True) == dead
    assert way.where()["waiting:wait"] == 1
    assert revive(way, reason="timer_dead", node="wait") == dead
    assert way.where() == {"waiting:wait": 3}
    line = history(way, 1)[-1]
    assert (line.said, line.detail["by"], line.detail["why"]) == ("revived", "key:ann", WHY)
    assert line.detail["failed"].startswith("timer_dead: ")
    assert revive(way) == {}
    way.go_on(days=7, minutes=1)
    assert way.where() == {"done:end": 3}
    assert way.is_sound()
    with way.runtime.work(way.tenant, mode="read") as ctx:
        noted = ctx.session.scalars(select(AuditEntry).where(AuditEntry.action == "journey.revived")).all()
        assert [each.body["runs"]["after"] for each in noted] == [2, 0]
        assert ctx.session.scalars(select(Timer)).all() == []


class TestOnOneDatabase:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """Nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_what_was_sent_is_not_sent_again_and_what_became_of_it_counts(self, way):
        way.publish({"hello": message(next="wait", on={"skipped": "no"}), "wait": LATER, "no": {"type": "exit"}})
        with way.runtime.work(way.tenant) as ctx:
            ctx.session.execute(update(Send).values(status="paused"))
        way.enter(1, 2)
        way.work()
        die(way, 1)
        assert way.where() == {"failed:" + way.runs(1)[0].reason: 1, "sending:hello": 1}
        with way.runtime.work(way.tenant) as ctx:
            ctx.session.execute(update(Send).values(status="running"))
        way.work()
        # A run that failed wants nothing any more: what waited for its turn was not handed over.
        assert Counter(row.state for row in way.ledger()) == {"accepted": 1, "skipped": 1}
        revive(way)
        assert way.where() == {"exited:exit": 1, "waiting:wait": 1}
        assert len(way.ledger()) == 2
        assert way.is_sound()

    def test_an_action_that_was_asked_for_is_not_asked_for_again(self, way):
        deed = Deed("send_to_sales_team")
        way.runtime = way.stage.runtime = with_plugins(way.runtime, deeds_plugin(deed))
        with way.runtime.work(way.tenant) as ctx:
            switch_on(ctx, "nexus-deeds", {"station": "west"})
        tell = {"type": "action", "action": "send_to_sales_team", "next": "wait"}
        way.publish({"tell": tell, "wait": {"type": "delay", "for": "1 hour"}})
        way.enter(1)
        way.work()
        die(way, 1)
        revive(way)
        way.go_on(hours=2)
        assert (way.where(), len(deed.calls)) == ({"done:end": 1}, 1)
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert len(ctx.session.scalars(select(TakenAction)).all()) == 1

    def test_it_needs_a_reason_and_a_journey_that_goes_on(self, way):
        way.publish({"wait": LATER})
        with pytest.raises(ValidationError) as raised:
            revive(way, why=" ")
        assert [each.path for each in raised.value.problems] == ["why"]
        way.move(JourneyMove.STOP)
        with pytest.raises(Conflict, match="stopped"):
            revive(way)

    def test_whoever_is_inside_again_is_left_alone_and_one_can_be_named(self, way):
        way.publish({"wait": LATER}, entry={**API["entry"], "reentry": {"policy": "always"}})
        way.enter(1, 2)
        way.work()
        die(way, 1, 2)
        way.go_on(hours=1)
        way.enter(1)
        way.work()
        runs = {run.id: run for run in way.runs(2)}
        assert revive(way, dry_run=True) == {
            ("wait", "timer_dead", "already_inside"): 1,
            ("wait", "timer_dead", "revived"): 1,
        }
        assert revive(way, run_ids=[str(each) for each in runs]) == {("wait", "timer_dead", "revived"): 1}
        assert [run.state for run in way.runs(1)] == ["failed", "waiting"]
        named = [str(run.id) for run in way.runs(2)]
        assert revive(way, run_ids=named, dry_run=True) == {("wait", "", "not_failed"): 1}
        assert revive(way, node="elsewhere") == revive(way, reason="other") == {}
