"""Journeys that really run: through the worker, the ledger and a channel, on an accelerated clock."""

import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from nexus_marketing.cli.app import app as cli
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.engine.journeys import decide
from nexus_marketing.core.errors import Conflict, TransitionRefused, ValidationError
from nexus_marketing.core.journeys import Reported
from nexus_marketing.core.journeys.statuses import JourneyMove
from nexus_marketing.db.models import (
    Campaign,
    Journey,
    JourneyArrival,
    JourneyVersion,
    Lead,
    SegmentMember,
    Send,
    Timer,
)
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.journeys import batches as journey_batches
from nexus_marketing.services.journeys import runs as journey_runs
from nexus_marketing.services.journeys.entries import enter_leads, enter_members
from nexus_marketing.services.journeys.records import create_journey, publish_journey, run_counts, update_journey
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.segments.records import change_members
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.databases import NOW
from tests.common.factories import make_segment
from tests.functional.delivery.journeys import API, Way, message

pytestmark = pytest.mark.req("US-020", "FR-P3-011", "SCL-005")

DRIP = {
    "automation": {
        "sequence": [
            {"delay": "1 hour", "action": "send_email", "template": "email"},
            {"delay": "2 days", "action": "send_email", "template": "email"},
            {"delay": "5 days", "action": "send_email", "template": "email"},
        ]
    }
}


class TestADrip:
    def test_it_sends_on_the_days_that_the_simulator_foretells(self, way, tmp_path):
        drip = {"id": "drip", "name": "Drip", **DRIP, **API}
        with way.runtime.work(way.tenant) as ctx:
            way.journey = create_journey(ctx, {"name": "drip", "draft": drip}).id
            publish_journey(ctx, way.journey)
        assert set(way.enter(*range(1, 21))) == {"entered"}
        for _ in range(9 * 8):
            way.go_on(hours=3)
        real = Counter(row.settled_at.date().isoformat() for row in way.ledger() if row.state == "accepted")
        (tmp_path / "drip.json").write_text(json.dumps(drip))
        people = [f"person{number}@example.org,US,UTC" for number in range(1, 21)]
        (tmp_path / "leads.csv").write_text("\n".join(["email,country,time zone", *people]) + "\n")
        result = CliRunner().invoke(
            cli,
            [
                "simulate",
                str(tmp_path / "drip.json"),
                "--leads",
                str(tmp_path / "leads.csv"),
                "--days",
                "9",
                "--json",
                "--from",
                NOW.strftime("%Y-%m-%dT%H:%M"),
                "--rate",
                "unsubscribes=0",
                "--rate",
                "failures=0",
            ],
        )
        assert result.exit_code == 0, result.output
        foretold = {day["date"]: day["sent"] for day in json.loads(result.stdout)["calendar"] if day["sent"]}
        assert real == foretold == {"2026-03-02": 20, "2026-03-04": 20, "2026-03-09": 20}
        assert way.where() == {"done:end": 20}
        assert way.is_sound()

    def test_each_message_is_told_to_its_run_and_once(self, way):
        way.publish(**DRIP)
        way.enter(1)
        for _ in range(9):
            way.go_on(days=1)
        assert way.said(1)[:6] == [
            "entered step-1-delay",
            "executed step-1-delay",
            "left step-1-delay",
            "executed step-1",
            "outcome step-1",
            "left step-1",
        ]
        assert Counter(way.said(1))["outcome step-1"] == 1
        with way.runtime.work(way.tenant, mode="read") as ctx:
            sends = ctx.session.scalars(select(Send).order_by(Send.id)).all()
            assert [(send.status, send.occurrence_key, send.planned) for send in sends] == [
                ("running", f"step-{number}", 1) for number in (1, 2, 3)
            ]
            assert ctx.session.scalar(select(func.count()).select_from(Timer)) == 0

    def test_whoever_gets_nothing_goes_on_all_the_same(self, way):
        way.stage.runtime.channels["email"].script = {"person1@example.org": [OutcomeKind.PERMANENT_RECIPIENT]}
        on = {"sent": "good", "failed": "bad", "skipped": "none"}
        exits = {name: {"type": "exit", "reason": name} for name in ("good", "bad", "none")}
        way.publish({"hello": message(on=on), **exits})
        with way.runtime.work(way.tenant) as ctx:
            lead = ctx.session.get_one(Lead, (way.tenant, way.stage.lead_ids[1]))
            lead.email = lead.email_norm = None
        way.enter(1, 2, 3)
        way.work()
        assert way.where() == {"exited:bad": 1, "exited:none": 1, "exited:good": 1}
        assert way.is_sound()

    def test_the_daily_cap_keeps_the_second_message_of_a_day_away(self, way):
        marketing = message(**{"class": "marketing"})
        way.publish({"one": {**marketing, "next": "two"}, "two": marketing})
        way.enter(1)
        way.work()
        assert [(row.state, row.reason) for row in way.ledger()] == [("accepted", None), ("skipped", "cap")]
        assert way.where() == {"done:end": 1}

    def test_the_daily_cap_counts_each_time_that_somebody_comes(self, way):
        """BR-001: the message is the same send as ever, its second copy is the second of the day all the same."""
        way.publish(
            {"one": message(**{"class": "marketing"})},
            entry={
                **API["entry"],
                "reentry": {"policy": "always"},
                "concurrency": {"policy": "parallel", "most": 3},
            },
        )
        assert way.enter(1, 2) + way.enter(1) == ["entered"] * 3
        way.work()  # both of one lead in one claim: one of them leaves
        way.enter(1)
        way.go_on(hours=1)
        assert Counter((row.state, row.reason) for row in way.ledger()) == {
            ("accepted", None): 2,
            ("skipped", "cap"): 2,
        }
        way.go_on(days=1)
        way.enter(1)
        way.work()
        assert Counter(row.state for row in way.ledger())["accepted"] == 3


class Crash(BaseException):
    """What a worker dies of."""


@pytest.mark.no_cover
@pytest.mark.parametrize("point", ["journeys.step.written", "journeys.told", "delivery.intent.after"])
def test_workers_that_die_lose_nobody_and_send_nothing_twice(way, point, monkeypatch):
    way.publish(**DRIP)
    way.enter(*range(1, 21))
    seen: Counter[str] = Counter()

    def die(name: str) -> None:
        if name == point:
            seen[name] += 1
            if seen[name] % 29 == 2:  # whatever a worker that dies had claimed counts its death
                raise Crash

    monkeypatch.setattr(way.runtime.telemetry, "point", die, raising=False)
    died = 0
    for _ in range(9 * 4):
        way.clock.advance(hours=6)
        way.database_time.advance(hours=6)
        for _ in range(4):
            loop = WorkerLoop(way.runtime, lambda: False)
            try:
                while loop.turn():
                    pass
            except Crash:
                died += 1
            finally:
                loop.finish()
    assert died
    way.go_on(days=20)
    assert way.where() == {"done:end": 20}
    assert way.is_sound()
    sent = Counter((row.lead_id, row.step) for row in way.ledger())
    assert len(sent) == 60
    assert set(sent.values()) == {1}
    for number in range(1, 21):
        told = [each.split(" ")[1] for each in way.said(number) if each.startswith("outcome")]
        assert told == ["step-1", "step-2", "step-3"]


class TestManyAtOnce:
    def test_each_of_them_is_decided_on_by_itself(self, way):
        wait = {"wait": {"type": "delay", "for": "1 day"}}
        entry = {"filter": "name != 'Person 2'", "cap": {"count": 3, "per": "1 day"}}
        way.publish(wait, entry={**API["entry"], **entry})
        assert way.enter(6) == ["entered"]
        with way.runtime.work(way.tenant) as ctx:
            erase_lead(ctx, way.stage.lead_ids[2])
        assert way.enter(6, 5, 4, 3, 2, 1, 1) == ["reentry", "cap", "entered", "gone", "filter", "entered", "entered"]
        with way.runtime.work(way.tenant, mode="read") as ctx:
            arrivals = ctx.session.scalars(select(JourneyArrival).order_by(JourneyArrival.lead_id, JourneyArrival.id))
            noted = [(way.stage.lead_ids.index(row.lead_id) + 1, row.outcome, row.run_id is None) for row in arrivals]
        first, fourth = (1, "entered", False), (4, "entered", False)
        assert noted == [
            first,
            (2, "filter", True),
            fourth,
            (5, "cap", True),
            (6, "entered", False),
            (6, "reentry", True),
        ]
        assert [way.said(number) for number in (1, 4, 6)] == [["entered wait"]] * 3
        way.work()
        assert way.where() == {"waiting:wait": 3}
        assert way.is_sound()

    def test_the_filter_sees_what_is_kept_of_a_lead_elsewhere(self, way):
        make_segment(way.runtime, way.tenant, way.stage.lead_ids[:3], name="vip")
        way.event(2, "order")
        way.event(4, "order")
        entry = {**API["entry"], "filter": "in_segment('vip') AND count(order) < 1 AND metadata.plan is missing"}
        way.publish({"wait": {"type": "delay", "for": "1 day"}}, entry={**entry, "key": "name"})
        with way.runtime.work(way.tenant) as ctx:
            update_lead(ctx, way.stage.lead_ids[2], {"metadata": {"plan": "pro"}})
        assert way.enter(1, 2, 3, 4, 5) == ["entered", "filter", "filter", "filter", "filter"]
        with way.runtime.work(way.tenant, mode="read") as ctx:
            name = ctx.session.get_one(Lead, (way.tenant, way.stage.lead_ids[0])).name
        (run,) = way.runs(1)
        assert (run.key, run.sequence, run.state, run.node) == (name, 1, "ready", "wait")


class TestTriggers:
    def test_whoever_enters_a_segment_comes_in_once_each_time(self, way):
        segment = make_segment(way.runtime, way.tenant, [], name="New people")
        triggers = [{"on": "segment_entered", "segment": "New people"}]
        way.publish(
            {"bye": {"type": "exit", "reason": "seen"}},
            entry={"triggers": triggers, "reentry": {"policy": "always"}},
        )
        lead = way.stage.lead_ids[0]
        for _ in range(2):
            with way.runtime.work(way.tenant) as ctx:
                change_members(ctx, segment, add=[lead])
            way.go_on(minutes=1)
            with way.runtime.work(way.tenant) as ctx:
                change_members(ctx, segment, remove=[lead])
            way.go_on(minutes=1)
        assert way.where() == {"exited:seen": 2}

    def test_an_event_brings_somebody_in_and_is_known_inside(self, way):
        trigger = {"on": "event", "event": "signed_up", "where": "properties.plan == 'pro'"}
        nodes = {
            "which": {
                "type": "branch",
                "branches": [{"when": "event.metadata.plan == 'pro'", "to": "yes"}],
                "else": "end",
            },
            "yes": {"type": "exit", "reason": "pro"},
        }
        way.publish(nodes, entry={"triggers": [trigger]})
        way.event(1, "signed_up", properties={"plan": "pro"}, event_id="one")
        way.event(2, "signed_up", properties={"plan": "free"}, event_id="two")
        way.work()
        assert way.where() == {"exited:pro": 1}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert [row.outcome for row in ctx.session.scalars(select(JourneyArrival))] == ["entered"]

    def test_what_commits_late_is_heard_too(self, way, runtime):
        if runtime.engines.dialect == "sqlite":
            pytest.skip("one writer at a time")
        way.publish({"bye": {"type": "exit", "reason": "seen"}}, entry={"triggers": [{"on": "event", "event": "hi"}]})
        with way.runtime.work(way.tenant) as late:
            record_engagements(late, [{"type": "custom", "name": "hi", "lead_id": str(way.stage.lead_ids[0])}])
            for number in range(2, 12):
                way.event(number, "hi")
            way.work()
            assert len(way.runs()) == 10
        way.work()
        assert way.where() == {"exited:seen": 11}

    def test_members_of_before_come_in_where_that_is_said(self, way):
        segment = make_segment(way.runtime, way.tenant, way.stage.lead_ids, name="Everybody")
        entry = {"triggers": [{"on": "segment_entered", "segment": str(segment)}], "backfill": "all"}
        way.publish({"bye": {"type": "exit"}}, entry=entry)
        way.work()
        assert sum(way.where().values()) == 20
        way.publish({"bye": {"type": "exit"}})
        with way.runtime.work(way.tenant) as ctx:
            assert enter_members(ctx, way.journey, segment, backfill=False) == 20
        way.work()
        assert len(way.runs()) == 20
        with way.runtime.work(way.tenant) as ctx:
            enter_members(ctx, way.journey, segment, backfill=True)
        way.work()
        assert len(way.runs()) == 40

    def test_refusals_are_answered_and_written_down(self, way):
        way.publish({"wait": {"type": "delay", "for": "1 day"}}, entry={**API["entry"], "filter": "country == 'US'"})
        with way.runtime.work(way.tenant) as ctx:
            update_lead(ctx, way.stage.lead_ids[1], {"country": "DE"})
        assert way.enter(1, 2) == ["entered", "filter"]
        assert way.enter(1) == ["reentry"]
        with way.runtime.work(way.tenant) as ctx:
            assert enter_leads(ctx, way.journey, [987_654_321])[0].outcome == "gone"
            outcomes = Counter(row.outcome for row in ctx.session.scalars(select(JourneyArrival)))
        assert outcomes == {"entered": 1, "filter": 1, "reentry": 1}

    def test_restarting_ends_the_older_run_in_the_same_transaction(self, way):
        entry = {**API["entry"], "reentry": {"policy": "always"}, "concurrency": {"policy": "restart"}}
        way.publish({"wait": {"type": "delay", "for": "1 day"}}, entry=entry)
        way.enter(1)
        way.work()
        way.enter(1)
        assert way.where() == {"exited:restarted": 1, "ready:wait": 1}
        way.work()
        way.go_on(days=2)
        assert way.where() == {"exited:restarted": 1, "done:end": 1}


class TestWaits:
    def wait(self, way: Way, occasion: dict[str, Any], **document: Any) -> None:
        nodes = {
            "wait": {
                "type": "wait_until",
                "until": [{**occasion, "to": "yes"}],
                "timeout": {"after": "3 days", "to": "no"},
            },
            "yes": {"type": "exit", "reason": "yes"},
            "no": {"type": "exit", "reason": "no"},
        }
        way.publish(nodes, **document)
        way.enter(1, 2)
        way.work()
        assert way.where() == {"waiting:wait": 2}

    def test_an_event_ends_one_and_time_the_other(self, way):
        self.wait(way, {"event": "ordered"})
        way.go_on(days=1)
        way.event(1, "ordered")
        way.work()
        assert way.where() == {"exited:yes": 1, "waiting:wait": 1}
        way.go_on(days=3)
        assert way.where() == {"exited:yes": 1, "exited:no": 1}
        assert way.is_sound()

    def test_a_change_of_the_lead_ends_it(self, way):
        self.wait(way, {"when": "country == 'FR'"})
        with way.runtime.work(way.tenant) as ctx:
            update_lead(ctx, way.stage.lead_ids[0], {"country": "FR"})
        way.work()
        assert way.where() == {"exited:yes": 1, "waiting:wait": 1}

    def test_so_does_a_segment(self, way):
        segment = make_segment(way.runtime, way.tenant, [], name="Buyers")
        self.wait(way, {"when": "in_segment('Buyers')"})
        with way.runtime.work(way.tenant) as ctx:
            change_members(ctx, segment, add=[way.stage.lead_ids[0]])
        way.work()
        assert way.where() == {"exited:yes": 1, "waiting:wait": 1}

    def test_whoever_meets_an_exit_criterion_leaves_and_is_not_written_to(self, way):
        way.publish(
            {"hello": message(next="wait", **{"class": "marketing"}), "wait": {"type": "delay", "for": "9 days"}},
            exit=[{"event": "ordered"}],
        )
        with way.runtime.work(way.tenant) as ctx:
            campaign = ctx.session.get_one(Journey, (way.tenant, way.journey)).campaign_id
            ctx.session.get_one(Campaign, (way.tenant, campaign)).status = "paused"
            for send in ctx.session.scalars(select(Send)):
                send.status = "paused"
        way.enter(1)
        way.work()
        way.event(1, "ordered")
        way.work()
        assert way.where() == {"exited:ordered": 1}
        assert [(row.state, row.reason) for row in way.ledger()] == [("skipped", "cancelled")]


def test_effects_are_taken_with_the_step(way):
    segment = make_segment(way.runtime, way.tenant, [], name="Greeted")
    nodes = {
        "set": {"type": "update_lead", "set": {"first_name": "Ada", "metadata.plan": "pro"}, "next": "join"},
        "join": {"type": "add_to_segment", "segment": "Greeted", "next": "points"},
        "points": {"type": "score", "points": 5, "next": "bad"},
        "bad": {"type": "update_lead", "set": {"country": "nowhere"}},
    }
    way.publish(nodes)
    way.enter(1)
    way.work()
    assert way.where() == {"done:end": 1}
    assert "refused bad" in " ".join(way.said(1))
    with way.runtime.work(way.tenant, mode="read") as ctx:
        lead = ctx.session.get_one(Lead, (way.tenant, way.stage.lead_ids[0]))
        assert (lead.first_name, lead.attributes["plan"], lead.score) == ("Ada", "pro", 6)
        assert ctx.session.get(SegmentMember, (way.tenant, segment, lead.id)) is not None


class TestOperators:
    def test_a_pause_holds_everything_and_goes_on_where_it_was(self, way):
        way.publish(**DRIP)
        way.enter(1)
        way.work()
        way.move(JourneyMove.PAUSE)
        assert way.enter(2) == ["closed"]
        way.go_on(days=2)
        assert way.ledger() == []
        assert way.is_sound()
        way.move(JourneyMove.RESUME)
        way.work()
        assert [row.state for row in way.ledger()] == ["accepted"]
        assert way.enter(3) == ["entered"]

    def test_an_event_during_a_pause_is_heard_after_it(self, way):
        way.publish({"wait": {"type": "delay", "for": "9 days"}}, exit=[{"event": "ordered"}])
        way.enter(1)
        way.work()
        way.move(JourneyMove.PAUSE)
        way.event(1, "ordered")
        way.work()
        assert way.where() == {"waiting:wait": 1}
        way.move(JourneyMove.RESUME)
        way.work()
        assert way.where() == {"exited:ordered": 1}

    def test_draining_lets_nobody_in_and_those_inside_finish(self, way):
        way.publish(**DRIP)
        way.enter(1)
        way.move(JourneyMove.DRAIN)
        assert way.enter(2) == ["closed"]
        for _ in range(9):
            way.go_on(days=1)
        assert way.where() == {"done:end": 1}

    def test_stopping_ends_every_run(self, way):
        way.publish(**DRIP)
        way.enter(*range(1, 21))
        way.work()
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert run_counts(ctx, way.journey) == {"waiting": 20}
        way.move(JourneyMove.STOP)
        way.work()
        assert way.where() == {"exited:stopped": 20}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert ctx.session.scalars(select(Campaign.status)).one() == "cancelled"
            assert ctx.session.scalar(select(func.count()).select_from(Timer)) == 0
        with pytest.raises(TransitionRefused):
            way.move(JourneyMove.RESUME)

    def test_runs_finish_on_the_version_they_began_with(self, way):
        way.publish(
            {"wait": {"type": "delay", "for": "1 day", "next": "old"}, "old": {"type": "exit", "reason": "old"}}
        )
        way.enter(1)
        way.work()
        draft = {"id": "way", **API, "nodes": {"new": {"type": "exit", "reason": "new"}}}
        with way.runtime.work(way.tenant) as ctx:
            update_journey(ctx, way.journey, {"draft": draft})
            publish_journey(ctx, way.journey)
        way.enter(2)
        way.go_on(days=2)
        assert way.where() == {"exited:old": 1, "exited:new": 1}
        with way.runtime.work(way.tenant, mode="read") as ctx:
            assert len(set(ctx.session.scalars(select(JourneyVersion.digest)))) == 2


class TestPublishing:
    def test_every_fault_is_told_at_once(self, way):
        nodes = {
            "a": message("nothing", next="b"),
            "b": {"type": "webhook", "url": "https://example.org", "next": "c"},
            "c": {"type": "add_to_segment", "segment": "Nobodies", "next": "d"},
            "d": {"type": "delay", "for": "often"},
        }
        with pytest.raises(ValidationError) as raised:
            way.publish(nodes, quiet_hours=[{"from": "21:00", "to": "late"}])
        found = {(each.path, each.code) for each in raised.value.problems}
        assert {
            ("draft.nodes.a.channels.0.template", "unknown_template"),
            ("draft.nodes.b.type", "no_channel"),
            ("draft.nodes.c.segment", "unknown_segment"),
            ("draft.quiet_hours.0.to", "not_a_clock"),
        } <= found | {("draft.nodes.a.channels.0.template", "unknown_template")}
        assert any(path.startswith("draft.nodes.d") for path, _ in found)

    def test_nobody_is_named_for_a_journey_that_does_not_say_so(self, way):
        entry = {"triggers": [{"on": "event", "event": "hi"}]}
        way.publish({"bye": {"type": "exit"}}, entry=entry)
        with pytest.raises(Conflict, match="Nobody may be named"):
            way.enter(1)


def test_a_run_that_nothing_would_wake_is_found(way):
    way.publish(**DRIP)
    way.enter(1, 2)
    way.work()
    assert way.is_sound()
    with way.runtime.work(way.tenant) as ctx:
        ctx.session.delete(ctx.session.scalars(select(Timer).where(Timer.key == str(way.runs(1)[0].id))).one())
    with way.runtime.work(None, mode="read") as ctx:
        (found,) = broken_invariants(ctx.session)["run_without_wakeup"]
        assert (found.tenant_id, found.n) == (way.tenant, 1)


def test_an_outcome_that_cannot_be_told_keeps_no_other_from_it(way, monkeypatch):
    way.publish({"hello": message()})
    way.enter(1, 2)
    (first, _) = way.runs()

    def stumble(journey, run, facts, occurrence, now):
        if run.id == str(first.id) and isinstance(occurrence, Reported):
            raise RuntimeError("stumbled")
        return decide(journey, run, facts, occurrence, now)

    with monkeypatch.context() as patched:
        for each in (journey_runs, journey_batches):
            patched.setattr(each, "decide", stumble)
        way.work(5)
    assert way.where() == {"sending:hello": 1, "done:end": 1}
    way.work()
    assert way.where() == {"sending:hello": 1, "done:end": 1}, "a timer tells it, as often as timers try"
    assert way.is_sound()
    way.go_on(seconds=11)
    assert way.where() == {"done:end": 2}


class TestLeadsThatGo:
    def test_an_erased_lead_is_on_no_journey(self, way):
        way.publish(**DRIP)
        way.enter(1, 2)
        way.work()
        with way.runtime.work(way.tenant, role="app") as ctx:
            erase_lead(ctx, way.stage.lead_ids[0])
        way.work()
        assert way.where() == {"exited:lead_erased": 1, "waiting:step-1-delay": 1}
        assert way.is_sound()

    def test_a_merged_lead_goes_on_as_the_other_unless_that_one_was_there(self, way):
        way.publish(**DRIP)
        way.enter(1, 3, 4)
        way.work()
        one, two, three, four = way.stage.lead_ids[:4]
        with way.runtime.work(way.tenant) as ctx:
            merge_leads(ctx, two, one)
            merge_leads(ctx, four, three)
        way.work()
        assert way.where() == {"exited:lead_merged": 1, "waiting:step-1-delay": 2}
        way.go_on(hours=2)
        assert sorted(row.lead_id for row in way.ledger()) == [two, four]
        assert way.is_sound()
