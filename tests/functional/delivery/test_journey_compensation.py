"""What runs of journeys did is taken back: in reverse order, each once, wherever a worker dies (BR-004)."""

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import JourneyStep, TakenAction, Timer
from nexus_marketing.plugin import ActionOutcome, ActionResult
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.requests import retry_action
from nexus_marketing.services.journeys.records import move_journey
from nexus_marketing.services.journeys.reviving import revive_runs
from nexus_marketing.services.plugins.enabling import switch_on
from tests.common.plugins import Deed, deeds_plugin, with_plugins
from tests.functional.delivery.journeys import Way, message
from tests.functional.delivery.test_journey_reviving import die

pytestmark = pytest.mark.req("US-020", "US-023", "FR-P3-004", "FR-P3-011", "BR-004")

REFUSED = ActionOutcome(ActionResult.PERMANENT, "no such account")
BUSY = ActionOutcome(ActionResult.TRANSIENT, "busy")
#: Two tickets, a message and a field, and then a long wait.
NODES: dict[str, dict[str, Any]] = {
    "open": {"type": "action", "action": "open_ticket", "with": {"n": 1}, "compensate": "undo", "next": "mark"},
    "mark": {"type": "update_lead", "set": {"locale": "de"}, "compensate": "undo", "next": "quiet"},
    "quiet": {"type": "action", "action": "open_ticket", "with": {"n": 2}, "next": "hello"},
    "hello": message(next="rest", compensate="undo"),
    "rest": {"type": "delay", "for": "9 days"},
}


class Crash(BaseException):
    """What a worker dies of."""


class World:
    """A journey whose steps can be taken back."""

    def __init__(self, way: Way) -> None:
        self.way, self.doing, self.undoing = way, Deed("open_ticket"), Deed("undo")
        way.runtime = way.stage.runtime = with_plugins(way.runtime, deeds_plugin(self.doing, self.undoing))
        with way.runtime.work(way.tenant) as ctx:
            switch_on(ctx, "nexus-deeds", {"station": "west"})

    def begin(self, *numbers: int, nodes: dict[str, Any] = NODES, **document: Any) -> None:
        self.way.publish(nodes, **document)
        self.way.enter(*numbers)
        self.way.work()

    def stop(self) -> None:
        with self.way.runtime.work(self.way.tenant) as ctx:
            move_journey(ctx, self.way.journey, JourneyMove.STOP, compensate=True)
        self.way.work()

    def undone(self) -> list[str]:
        """The nodes whose effects were taken back, in order, once for a key."""
        keys = [each.key for each in self.undoing.calls]
        return [self.undoing.calls[keys.index(key)].data["of"]["node"] for key in self.undoing.done]

    def said(self, number: int) -> list[dict[str, Any]]:
        (run,) = self.way.runs(number)
        with self.way.runtime.work(self.way.tenant, mode="read") as ctx:
            wanted = (JourneyStep.run_id == run.id, JourneyStep.said == "compensated")
            return list(ctx.session.scalars(select(JourneyStep.detail).where(*wanted)))


@pytest.fixture
def world(way: Way) -> World:
    return World(way)


def test_a_run_that_fails_is_taken_back_in_reverse_order(world):
    world.begin(1, 2)
    die(world.way, 1)
    assert world.undone() == ["hello", "mark", "open"]
    (run,) = world.way.runs(1)
    of = [call.data["of"] for call in world.undoing.calls]
    assert (of[0]["type"], of[2]["action"], of[2]["data"]) == ("message", "open_ticket", {"n": 1})
    assert {call.lead_id for call in world.undoing.calls} == {run.lead_id}
    assert world.said(1) == [{"done": 3, "failed": 0}]
    assert world.said(2) == []
    with world.way.runtime.work(world.way.tenant, mode="read") as ctx:
        taken = {
            each.key: each for each in ctx.session.scalars(select(TakenAction).where(TakenAction.run_id == run.id))
        }
        undo = taken[f"undo:journey:{run.id}:1"]
        assert (undo.undoes, taken[f"journey:{run.id}:1"].compensation) == (taken[f"journey:{run.id}:1"].id, "undo")
    with world.way.runtime.work(world.way.tenant) as ctx:
        found = revive_runs(ctx, world.way.journey, {"dry_run": True})["nodes"]
    assert [each["what"] for each in found] == ["taken_back"]
    assert world.way.is_sound()


class TestOnOneDatabase:
    @pytest.fixture
    def runtime(self, sqlite_only_runtime: Runtime) -> Runtime:
        """Nothing here is put another way in SQL."""
        return sqlite_only_runtime

    def test_stopping_takes_back_what_those_inside_did_if_asked(self, world):
        world.begin(1, 2)
        world.stop()
        assert sorted(world.undone()) == ["hello", "hello", "mark", "mark", "open", "open"]
        assert world.said(1) == world.said(2) == [{"done": 3, "failed": 0}]
        assert world.way.where() == {"exited:stopped": 2}

    def test_stopping_takes_nothing_back_unasked(self, world):
        world.begin(1)
        world.way.move(JourneyMove.STOP)
        world.way.work()
        assert world.undone() == []

    @pytest.mark.parametrize("point", ["actions.called", "actions.settling"])
    def test_wherever_a_worker_dies_each_is_taken_back_once(self, world, point, monkeypatch):
        world.begin(1)
        telemetry, left = world.way.runtime.telemetry, [2]

        def at(name: str) -> None:
            if name == point and left:
                left.pop()
                raise Crash

        monkeypatch.setattr(type(telemetry), "point", lambda _self, name: at(name))
        with suppress(Crash):
            die(world.way, 1)
        for _ in range(4):
            with suppress(Crash):
                world.way.go_on(minutes=10)
        assert not left
        assert world.undone() == ["hello", "mark", "open"]
        assert world.said(1) == [{"done": 3, "failed": 0}]

    def test_what_cannot_be_taken_back_keeps_nothing_else_from_it_and_can_be_tried_again(self, world):
        world.undoing.script = [REFUSED]
        world.begin(1)
        world.stop()
        assert world.undone() == ["mark", "open"]
        with world.way.runtime.work(world.way.tenant) as ctx:
            failed = ctx.session.scalars(select(TakenAction).where(TakenAction.state == "failed")).one()
            retry_action(ctx, failed.id)
        world.way.work()
        assert world.undone() == ["mark", "open", "hello"]
        assert world.said(1) == [{"done": 2, "failed": 1}, {"done": 3, "failed": 0}]

    def test_an_action_under_way_is_waited_for_and_one_that_never_was_done_is_left(self, world):
        world.doing.script = [BUSY]
        world.begin(1)
        world.doing.script = [BUSY]
        world.stop()
        assert world.undone() == ["hello", "mark"]
        with world.way.runtime.work(world.way.tenant) as ctx:
            first = ctx.session.scalars(select(TakenAction).order_by(TakenAction.id)).first()
            assert (first.state, first.reason) == ("failed", "taken_back")
            with pytest.raises(Conflict, match="taken back"):
                retry_action(ctx, first.id)
            assert ctx.session.scalars(select(Timer)).all() == []

    def test_a_message_that_never_left_is_not_taken_back(self, world):
        quiet = {"quiet_hours": [{"from": "09:00", "to": "12:00", "spread": "1 minute"}]}
        nodes = {**NODES, "hello": message(obeys_quiet_hours=True, compensate="undo", next="rest")}
        world.begin(1, nodes=nodes, **quiet)
        assert [row.state for row in world.way.ledger()] == ["planned"]
        die(world.way, 1)
        world.way.go_on(seconds=3)
        assert world.undone() == ["mark", "open"]
        assert [row.state for row in world.way.ledger()] == ["skipped"]

    def test_only_what_does_something_says_how_it_is_taken_back_and_by_what_there_is(self, world):
        nodes = {**NODES, "rest": {**NODES["rest"], "compensate": "undo"}}
        nodes["mark"] = {**nodes["mark"], "compensate": "undoo"}
        with pytest.raises(ValidationError) as raised:
            world.way.publish(nodes)
        assert {(each.path, each.code) for each in raised.value.problems} == {
            ("draft.nodes.rest.compensate", "not_allowed"),
            ("draft.nodes.mark.compensate", "unknown_action"),
        }
