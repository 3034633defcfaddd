"""Operators' moves: migrations between versions and what a pause made late; and what holds messages back at the last moment."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select, update

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.journeys.statuses import JourneyMove, ResumePolicy
from nexus_marketing.db.models import JourneyStep, Lead, Send
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys import moves as journey_moves
from nexus_marketing.services.journeys.moves import migrate_runs
from nexus_marketing.services.journeys.records import move_journey, publish_journey, update_journey
from tests.functional.delivery.journeys import API, Way, message

pytestmark = pytest.mark.req("US-020", "FR-P3-011")


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime) -> Runtime:
    """One database: nothing here is put another way in SQL."""
    return sqlite_only_runtime


def delay(length: str, following: str) -> dict[str, Any]:
    return {"type": "delay", "for": length, "next": following}


def bye(reason: str) -> dict[str, Any]:
    return {"type": "exit", "reason": reason}


def publish_again(way: Way, nodes: dict[str, Any]) -> None:
    with way.runtime.work(way.tenant) as ctx:
        update_journey(ctx, way.journey, {"draft": {"id": "way", **API, "nodes": nodes}})
        publish_journey(ctx, way.journey)


def migrate(way: Way, **wish: Any) -> dict[str, tuple[int, str | None, str]]:
    with way.runtime.work(way.tenant) as ctx:
        found = migrate_runs(ctx, way.journey, wish)
    way.work()
    return {each["node"]: (each["runs"], each["to"], each["what"]) for each in found["nodes"]}


def resume(way: Way, policy: ResumePolicy) -> None:
    with way.runtime.work(way.tenant) as ctx:
        move_journey(ctx, way.journey, JourneyMove.RESUME, policy=policy)
    way.work()


class TestMigrations:
    @pytest.fixture
    def halfway(self, way: Way) -> Way:
        """Two at the first wait, three at the second, for a day; and a new version in which that is called otherwise."""
        way.publish({"one": delay("1 day", "two"), "two": delay("2 days", "old"), "old": bye("old")})
        way.enter(1, 2, 3)
        way.work()
        way.go_on(days=1)
        way.enter(4, 5)
        way.work()
        ways = [{"weight": 50, "to": to, "name": to} for to in ("one", "last")]
        nodes = {"one": delay("4 days", "new"), "last": delay("3 days", "new"), "new": bye("new")}
        publish_again(way, {"start": {"type": "split", "ways": ways}, **nodes})
        return way

    def test_a_dry_run_counts_and_moves_nobody(self, halfway):
        assert migrate(halfway, dry_run=True) == {"one": (2, "one", "moves"), "two": (3, None, "stays")}
        for _ in range(2):
            halfway.go_on(days=2)
        assert halfway.where() == {"exited:old": 5}

    def test_runs_wait_on_as_if_they_had_arrived_there(self, halfway):
        assert migrate(halfway, map={"two": "last"}) == {"one": (2, "one", "moves"), "two": (3, "last", "moves")}
        assert {run.version_number for run in halfway.runs()} == {2}
        halfway.go_on(days=2)
        assert halfway.where() == {"waiting:last": 3, "waiting:one": 2}
        halfway.go_on(days=1, minutes=1)
        assert halfway.where() == {"exited:new": 3, "waiting:one": 2}
        halfway.go_on(days=1)
        assert halfway.where() == {"exited:new": 5}
        assert halfway.is_sound()

    def test_those_without_a_place_leave_or_are_held_until_somebody_says(self, halfway):
        assert migrate(halfway, unmapped="hold")["two"] == (3, None, "held")
        halfway.go_on(days=30)
        assert halfway.where() == {"exited:new": 2, "migrating:two": 3}
        assert halfway.is_sound()
        migrate(halfway, map={"two": "last"})
        assert halfway.where() == {"exited:new": 5}

    def test_whoever_is_to_leave_leaves(self, halfway):
        migrate(halfway, unmapped="exit")
        assert halfway.where() == {"exited:migrated": 3, "waiting:one": 2}

    def test_a_map_names_what_there_is(self, halfway):
        with pytest.raises(ValidationError) as raised:
            migrate(halfway, map={"twoo": "last", "one": "nowhere"})
        assert {each.path for each in raised.value.problems} == {"map.twoo", "map.one"}


class TestPauses:
    @pytest.fixture
    def held(self, way: Way, monkeypatch: pytest.MonkeyPatch) -> Way:
        """Two wait for a message that was due an hour after the pause began, which lasted two days."""
        monkeypatch.setattr(journey_moves, "_PIECE", 1)
        nodes = {"wait": delay("1 hour", "hello"), "hello": message(next="rest"), "rest": delay("1 day", "last")}
        way.publish({**nodes, "last": message(next="end")})
        way.enter(1, 2)
        way.work()
        way.move(JourneyMove.PAUSE)
        way.go_on(days=2)
        return way

    def sent(self, way: Way) -> Counter[str]:
        return Counter(row.step for row in way.ledger() if row.state == "accepted")

    def test_what_was_due_happens_late(self, held):
        resume(held, ResumePolicy.CATCH_UP)
        assert self.sent(held) == {"hello": 2}

    def test_run_after_run_as_long_as_it_is_not_paused_again(self, held, monkeypatch):
        monkeypatch.setattr(journey_moves, "_HURRIED", 1)
        held.move(JourneyMove.RESUME)
        held.move(JourneyMove.PAUSE)
        held.work()
        assert self.sent(held) == {}
        resume(held, ResumePolicy.CATCH_UP)
        assert self.sent(held) == {"hello": 2}

    def test_or_its_messages_are_left_out(self, held):
        resume(held, ResumePolicy.SKIP_MESSAGE)
        assert self.sent(held) == {}
        assert held.where() == {"waiting:rest": 2}
        held.go_on(days=2)
        assert self.sent(held) == {"last": 2}
        assert held.is_sound()

    def test_or_everything_comes_later_by_the_length_of_the_pause(self, held):
        resume(held, ResumePolicy.SHIFT)
        assert held.where() == {"waiting:wait": 2}
        held.go_on(minutes=59)
        assert self.sent(held) == {}
        held.go_on(minutes=2)
        assert self.sent(held) == {"hello": 2}
        assert held.is_sound()

    def test_who_is_resumed_already_is_not_resumed_twice(self, held):
        with held.runtime.work(held.tenant) as ctx:
            move_journey(ctx, held.journey, JourneyMove.RESUME, policy=ResumePolicy.SHIFT)
        with pytest.raises(Conflict, match="already"):
            resume(held, ResumePolicy.CATCH_UP)
        held.work()
        held.go_on(minutes=61)
        assert self.sent(held) == {"hello": 2}


class TestTheLastMoment:
    def test_quiet_hours_of_a_journey_hold_what_says_so(self, way):
        quiet = {"quiet_hours": [{"from": "09:00", "to": "12:00", "spread": "1 minute"}]}
        loud = message(obeys_quiet_hours=False)
        way.publish({"hello": message(obeys_quiet_hours=True, next="again"), "again": loud}, **quiet)
        way.enter(1)
        way.work()
        assert [(row.step, row.state, row.reason) for row in way.ledger()] == [("hello", "planned", "quiet_hours")]
        way.go_on(hours=2, minutes=5)
        assert [(row.step, row.state) for row in way.ledger()] == [("hello", "accepted"), ("again", "accepted")]

    def test_whoever_meets_an_exit_criterion_unseen_is_not_written_to(self, way):
        way.publish({"hello": message(next="wait"), "wait": delay("9 days", "end")}, exit=[{"when": "country == 'FR'"}])
        with way.runtime.work(way.tenant) as ctx:
            ctx.session.execute(update(Send).values(status="paused"))
        way.enter(1, 2)
        way.work()
        with way.runtime.work(way.tenant) as ctx:  # as somebody would who writes past the services
            ctx.session.execute(update(Lead).where(Lead.id == way.stage.lead_ids[0]).values(country="FR"))
            ctx.session.execute(update(Send).values(status="running"))
        way.work()
        assert Counter((row.state, row.reason) for row in way.ledger()) == {
            ("skipped", "cancelled"): 1,
            ("accepted", None): 1,
        }
        assert way.where() == {"exited:exit": 1, "waiting:wait": 1}

    def test_a_node_is_come_to_so_often_and_no_more(self, way):
        nodes = {
            "hello": message(next="wait", visits={"most": 2, "to": "enough"}),
            "wait": delay("1 day", "hello"),
            "enough": bye("enough"),
        }
        way.publish(nodes)
        way.enter(1)
        for _ in range(4):
            way.go_on(days=1)
        assert [row.step for row in way.ledger()] == ["hello", "hello"]
        assert way.where() == {"exited:enough": 1}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            said = ctx.session.scalars(select(JourneyStep.detail).where(JourneyStep.node == "hello"))
            assert {"edge": "visits", "to": "enough", "most": 2} in list(said)
