"""Random journeys, random events, random clocks: what holds of every run whatever happens (BEHAVIOUR.md 5.1).

A little shell keeps rows as a database would: one row a run, one timer a run, ledger rows that are open until somebody tells
their outcome. It loses nudges, doubles them, is late and crashes between deciding and writing.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nexus_marketing.core.engine.journey_entry import Arrival, Entered, Past, Refusal, enter
from nexus_marketing.core.engine.journey_moves import leave_out_late, migrate, revive, shift
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.engine.journeys import decide, is_wanted
from nexus_marketing.core.journeys import Answered, Changed, Happened, Outcome, Reported, RunState, Said, Stopped, Woken
from nexus_marketing.core.journeys.graph import edges
from nexus_marketing.core.journeys.model import ConcurrencyKind
from nexus_marketing.core.journeys.nodes import CALL, Delay, WaitUntil
from nexus_marketing.core.journeys.runs import (
    AskApproval,
    CallUrl,
    CancelMessages,
    HistoryLine,
    SendMessage,
    SetFields,
)

pytestmark = pytest.mark.req("FR-P3-011", "D06", "REL-006")

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", None)
#: Around the nights in which clocks change.
STARTS = ("2026-03-28T12:00", "2026-10-24T12:00", "2026-03-07T23:30", "2026-11-01T00:30", "2026-06-01T00:00")
DEAD = "timer_dead: somebody pulled the plug"
EVENTS = ("email_clicked", "order_placed", "unsubscribed")
DELAYS = (
    {"for": "1 hour"},
    {"for": "26 hours"},
    {"days": 1, "at": "02:30"},
    {"days": 0, "at": "01:15"},
    {"weekdays": ["sun"], "at": "02:00"},
    {"until": "metadata.due", "offset": "-1 day", "at": "02:30", "recompute_on_change": True},
    {"days": 2, "at": "02:30", "recompute_on_change": True},
)
CONDITIONS = (
    {"when": "score > 50"},
    {"when": "created_at < now() - 3 days"},
    {"when": "count(email_clicked) > 0 within 2 days"},
    {"event": "order_placed"},
    {"event": "email_clicked", "after_arrival": True},
    {"when": "score > 20", "after_arrival": True},
)


@st.composite
def journeys(draw):
    """Nodes that lead forward or out, and back only over a delay of a day: no circle without time."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 7)))]
    nodes = {}
    for number, name in enumerate(names):
        later = [*names[number + 1 :], "end"]
        targets = st.sampled_from(later)
        nodes[name] = draw(_node(targets, names[: number + 1]))
    # Everything is reached: an extra split in front leads everywhere.
    ways = [{"weight": 1, "to": name, "name": name} for name in names[1:]]
    front = {"type": "split", "ways": [*ways, {"weight": 100 - len(ways), "to": names[0], "name": "first"}]}
    nodes = {"front": front, **nodes} if ways else nodes
    document = {
        "id": "j",
        "start": "front" if ways else names[0],
        "entry": draw(_entries()),
        "exit": draw(st.lists(st.sampled_from([{"event": "unsubscribed"}, {"when": "score > 90"}]), max_size=2)),
        "goals": draw(_goals(names)),
        "nodes": nodes,
    }
    return read_journey(document)


@st.composite
def _entries(draw):
    reentry = draw(
        st.sampled_from(
            [
                {"policy": "always"},
                {"policy": "never"},
                {"policy": "after_exit"},
                {"policy": "after_interval", "interval": "1 day"},
                {"policy": "after_interval", "calendar_days": 1},
            ]
        )
    )
    many = {"policy": "parallel", "most": 2}
    return {
        "reentry": reentry,
        "concurrency": draw(st.sampled_from([{"policy": "reject"}, {"policy": "restart"}, many])),
    }


@st.composite
def _goals(draw, names):
    effects = st.sampled_from(["record", "exit", {"jump_to": names[-1]}])
    return [{"id": "g", "event": "order_placed", "effect": draw(effects)}] if draw(st.booleans()) else []


@st.composite
def _node(draw, targets, earlier):
    kind = draw(
        st.sampled_from(["delay", "back", "wait", "branch", "message", "score", "set", "approval", "call", "exit"])
    )
    to = draw(targets)
    if kind == "delay":
        return {"type": "delay", **draw(st.sampled_from(DELAYS)), "next": to}
    if kind == "back":
        return {"type": "delay", "for": "1 day", "next": draw(st.sampled_from(earlier))}
    if kind == "wait":
        ways = draw(st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=2))
        until = [{**way, "to": draw(targets)} for way in ways]
        return {"type": "wait_until", "until": until, "timeout": {"after": "2 days", "to": to}}
    if kind == "branch":
        ways = [{**draw(st.sampled_from(CONDITIONS[:4])), "to": draw(targets)}]
        return {"type": "branch", "branches": ways, "else": to}
    if kind == "message":
        mode, must = draw(st.sampled_from(["all", "first"])), draw(st.booleans())
        message = {"type": "message", "channels": ["email", "sms"], "mode": mode, "class": "marketing"}
        return {**message, "require_sent": must, "next": to, "on": draw(st.sampled_from([{}, {"failed": "end"}]))}
    if kind == "call":
        return {"type": "webhook", "url": "https://x.example", "next": to, "failed": draw(targets)}
    if kind == "approval":
        timeout = {"after": "2 days", "to": "end"}
        return {"type": "approval", "by": "x", "approved": to, "rejected": "end", "timeout": timeout}
    if kind == "set":
        return {"type": "update_lead", "set": {"metadata.due": "2026-06-15"}, "next": to}
    return {"type": "exit"} if kind == "exit" else {"type": "score", "points": 5, "next": to}


class Shell(RuleBasedStateMachine):
    """Rows, timers, a ledger and a clock."""

    @initialize(
        journey=journeys(), start=st.sampled_from(STARTS), zone=st.sampled_from(ZONES), score=st.integers(0, 60)
    )
    def begin(self, journey, start, zone, score):
        self.journey = journey
        self.now = datetime.fromisoformat(start).replace(tzinfo=UTC)
        self.record = {
            "id": 7,
            "score": score,
            "time_zone": zone,
            "created_at": self.now - timedelta(days=1),
            "metadata": {},
            "events": [],
            "segments": set(),
            "scores": {},
        }
        self.runs, self.lines, self.ledger, self.asked = {}, {}, {}, []
        self.entered_at = None
        self.come()

    @property
    def facts(self):
        return LeadFacts(self.record, "Europe/Berlin")

    @property
    def live(self):
        return [run for run in self.runs.values() if run.is_live]

    @property
    def dead(self):
        return [run for run in self.runs.values() if run.state is RunState.FAILED and run.reason == DEAD]

    @property
    def most(self):
        policy = self.journey.entry.concurrency
        return policy.most if policy.kind is ConcurrencyKind.PARALLEL else 1

    def write(self, decision):
        """One transaction: the row of that version, or nothing."""
        stored = self.runs[decision.run.id]
        if stored.version != decision.before or decision.is_ignored:
            return False
        visits = decision.run.visit - stored.visit
        assert visits in (0, 1), "more than one node in a step"
        self.runs[decision.run.id] = decision.run
        self.lines[decision.run.id] += decision.history
        for effect in decision.effects:
            self.do(decision.run.id, effect)
        return True

    def do(self, run_id, effect):
        match effect:
            case SendMessage():
                key = (run_id, effect.visit, effect.channel)
                assert key not in self.ledger, "a message is written twice"
                self.ledger[key] = None
            case CallUrl():
                key = (run_id, effect.visit, CALL)
                assert key not in self.ledger, "an address is called twice"
                self.ledger[key] = None
            case CancelMessages():
                for key in self.ledger:
                    if key[:2] == (run_id, effect.visit) and self.ledger[key] is None:
                        self.ledger[key] = Outcome.SKIPPED
            case AskApproval():
                self.asked.append((run_id, effect.token))
            case SetFields():
                self.record["metadata"] = {"due": "2026-06-15"}

    def tell(self, run_id, occurrence):
        return self.write(decide(self.journey, self.runs[run_id], self.facts, occurrence, self.now))

    @rule()
    def come(self):
        """A trigger occurs."""
        arrival = Arrival(f"r{len(self.runs) + 1}", "7", self.journey.entry.triggers[0])
        before = self.live
        past = Past(tuple(before), len(self.runs), self.entered_at)
        found = enter(self.journey, arrival, self.facts, past, self.now)
        if isinstance(found, Refusal):
            return
        assert isinstance(found, Entered)
        for each in found.replaced:
            self.write(each)
        self.runs[found.run.id] = found.run
        self.lines[found.run.id] = list(found.history)
        self.entered_at = self.now

    @rule(hours=st.sampled_from([0, 1, 5, 24, 30, 24 * 15]), again=st.booleans())
    def pass_time(self, hours, again):
        """The clock goes on, and timers that are due ring: some twice."""
        end = self.now + timedelta(hours=hours)
        for _ in range(200):
            due = [run for run in self.live if run.wake_at is not None and run.wake_at <= end]
            if not due:
                break
            run = min(due, key=lambda each: each.wake_at)
            self.now = max(self.now, run.wake_at)
            assert self.tell(run.id, Woken(run.wait_token)), "a timer rang and nothing happened"
            if again:
                assert not self.tell(run.id, Woken(run.wait_token))
        self.now = max(self.now, end)

    @rule(hours=st.sampled_from([1, 49, 24 * 20]))
    def be_late(self, hours):
        """No worker runs for a time; then every timer rings once."""
        self.now += timedelta(hours=hours)
        for run in self.live:
            if run.wake_at is not None and run.wake_at <= self.now:
                assert self.tell(run.id, Woken(run.wait_token)), "a timer rang late and nothing happened"

    @rule(name=st.sampled_from(EVENTS), late_seconds=st.sampled_from([0, 30, 600]), is_told=st.booleans())
    def do_something(self, name, late_seconds, is_told):
        """The lead does something; now and then nobody nudges the runs."""
        at = self.now - timedelta(seconds=late_seconds)
        event = {"id": len(self.record["events"]), "type": name, "verdict": "human", "tracked_at": at, "metadata": {}}
        self.record["events"].append(event)
        for run in list(self.runs.values()) if is_told else ():
            self.tell(run.id, Happened(event, at))
            leaves = any(each.occasion.event == name for each in self.journey.exits) and at >= run.entered_at
            assert not (leaves and self.runs[run.id].is_live), "an exit is immediate"

    @rule(
        score=st.integers(0, 100), zone=st.sampled_from(ZONES), due=st.sampled_from([None, "2026-03-29", "2026-10-25"])
    )
    def change(self, score, zone, due):
        self.record |= {"score": score, "time_zone": zone, "metadata": {"due": due}}
        for run in self.live:
            self.tell(run.id, Changed(self.now))
        if score > 90 and any(each.occasion.when is not None for each in self.journey.exits):
            assert not self.live, "an exit is immediate"

    @precondition(lambda self: None in self.ledger.values())
    @rule(outcome=st.sampled_from([*Outcome]), data=st.data())
    def settle(self, outcome, data):
        """A message is handed over, and its outcome told: twice."""
        key = data.draw(st.sampled_from([key for key, known in self.ledger.items() if known is None]))
        run_id, visit, channel = key
        wanted = is_wanted(self.journey, self.runs[run_id], self.facts, visit, channel, self.now)
        self.ledger[key] = outcome if wanted else Outcome.SKIPPED
        self.tell(run_id, Reported(visit, channel, self.ledger[key]))
        assert not self.tell(run_id, Reported(visit, channel, outcome))

    @precondition(lambda self: self.asked)
    @rule(approved=st.booleans())
    def answer(self, approved):
        run_id, token = self.asked.pop()
        self.tell(run_id, Answered(token, approved))

    @rule()
    def crash(self):
        """A worker dies between deciding and writing, and another one takes the same timer."""
        for run in self.live:
            if run.wake_at is not None and run.wake_at <= self.now:
                decide(self.journey, run, self.facts, Woken(run.wait_token), self.now)
                slow = decide(self.journey, run, self.facts, Woken(run.wait_token), self.now)
                assert self.tell(run.id, Woken(run.wait_token))
                assert not self.write(slow), "two workers wrote the same step"

    @rule(data=st.data(), days=st.integers(1, 40))
    @precondition(lambda self: self.live)
    def pause_and_move(self, data, days):
        """An operator lets a run go on after a pause, or takes it to a node of its choice."""
        run = data.draw(st.sampled_from(self.live))
        how = data.draw(st.sampled_from(["shift", "late", "migrate"]))
        if how == "migrate":
            if run.state is RunState.SENDING:
                return
            to = data.draw(st.sampled_from([*self.journey.nodes, "end"]))
            assert self.write(migrate(self.journey, run, self.facts, to, self.now))
            assert self.runs[run.id].node == to or not self.runs[run.id].is_live
            return
        self.now += timedelta(days=days)
        moved = shift(run, timedelta(days=days), self.now) if how == "shift" else leave_out_late(run, self.now)
        self.write(moved)
        for channel in self.runs[run.id].open if how == "late" and CALL not in run.open else ():
            self.tell(run.id, Reported(run.visit, channel, Outcome.SKIPPED))
        if how == "shift":
            assert self.runs[run.id].wake_at - run.wake_at == timedelta(days=days)

    @rule(data=st.data())
    @precondition(lambda self: self.live)
    def die(self, data):
        """The timer of a run is put aside for good: nothing else of its row changes."""
        run = data.draw(st.sampled_from(self.live))
        ended = {"state": RunState.FAILED, "reason": DEAD, "ended_at": self.now, "wake_at": None}
        later = {"version": run.version + 1, "wait_token": run.wait_token + 1}
        self.runs[run.id] = replace(run, **ended, **later)
        self.lines[run.id].append(HistoryLine(self.now, Said.ENDED, run.node))

    @rule(data=st.data())
    @precondition(lambda self: self.dead and len(self.live) < self.most)
    def put_back(self, data):
        """An operator does: what was written is not written again, which the ledger looks after; nobody does it twice."""
        run = data.draw(st.sampled_from(self.dead))
        again = revive(self.journey, run, self.facts, "ann", "it is repaired", self.now)
        assert self.write(again)
        assert not self.write(again)
        assert self.runs[run.id].wait_token > run.wait_token
        assert self.runs[run.id].is_live or (run.outcomes and not run.open)

    @rule(data=st.data())
    @precondition(lambda self: self.live)
    def stop(self, data):
        run = data.draw(st.sampled_from(self.live))
        if data.draw(st.integers(0, 5)) == 0:
            assert self.tell(run.id, Stopped("operator"))
            assert not self.runs[run.id].is_live

    @invariant()
    def every_live_run_wakes(self):
        for run in self.runs.values() if hasattr(self, "runs") else ():
            assert not run.is_stalled
            if run.is_live:
                assert run.wake_at is not None
                open_rows = [key for key, known in self.ledger.items() if key[0] == run.id and known is None]
                assert {key[2] for key in open_rows} == set(run.open)
                node = self.journey.nodes[run.node]
                if run.state is RunState.WAITING and isinstance(node, WaitUntil):
                    assert run.wake_at <= run.deadline + node.grace
                if run.state is RunState.WAITING and isinstance(node, Delay):
                    assert run.wake_at >= run.arrived_at
            else:
                open_rows = {key[2] for key, known in self.ledger.items() if key[0] == run.id and known is None}
                assert (run.wake_at, open_rows) == (None, set(run.open))
                assert not run.open or run.reason == DEAD
                assert run.ended_at is not None
                assert run.reason is not None

    @invariant()
    def as_many_runs_as_may_be(self):
        if hasattr(self, "runs"):
            assert len(self.live) <= self.most

    @invariant()
    def history_says_what_happened(self):
        for run_id, lines in (self.lines if hasattr(self, "lines") else {}).items():
            run = self.runs[run_id]
            assert [line.at for line in lines] == sorted(line.at for line in lines)
            goals = [line.detail["goal"] for line in lines if line.said is Said.GOAL]
            assert len(goals) == len(set(goals)), "a goal counted twice"
            assert set(goals) == run.goals
            ended = [line for line in lines if line.said is Said.ENDED]
            revived = sum(line.said is Said.REVIVED for line in lines)
            assert len(ended) - revived == (0 if run.is_live else 1)
            again = sum("again" in line.detail for line in lines)
            assert sum(line.said is Said.EXECUTED for line in lines) - again <= run.visit

    def teardown(self):
        """Nobody stalls: with nothing but time, every run ends or waits for a moment in the future."""
        if not hasattr(self, "runs"):
            return
        for _ in range(60):  # more than a year
            for key, known in list(self.ledger.items()):
                if known is None:
                    self.ledger[key] = Outcome.FAILED
                    self.tell(key[0], Reported(key[1], key[2], Outcome.FAILED))
            self.pass_time(7 * 24, again=False)
        for run in self.live:
            assert run.wake_at > self.now
            assert any(edge.to != "end" for edge in edges(self.journey.nodes[run.node])), "only circles go on"


TestShell = Shell.TestCase
TestShell.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestShell.pytestmark = pytestmark


@given(journeys())
@settings(max_examples=60, deadline=None)
def test_every_made_up_journey_reads_back_the_same(journey):
    assert read_journey(journey.document).digest == journey.digest
