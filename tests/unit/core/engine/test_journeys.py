"""What a run does next, as tables: every node, every wait, exits, goals, tokens and outcomes (BEHAVIOUR.md 5.1)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nexus_marketing.core.engine.journey_entry import Arrival, Entered, Past, enter
from nexus_marketing.core.engine.journey_nodes import MOST_VISITS, OUTCOME_TIMEOUT
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.engine.journeys import decide, is_wanted
from nexus_marketing.core.journeys import (
    Answered,
    Changed,
    Happened,
    Outcome,
    Reported,
    RunState,
    Said,
    Stopped,
    Woken,
)
from nexus_marketing.core.journeys.nodes import CALL
from nexus_marketing.core.journeys.runs import (
    AddPoints,
    AskApproval,
    CallUrl,
    CancelMessages,
    PutInSegment,
    SendMessage,
    SetFields,
    TakeAction,
)

pytestmark = pytest.mark.req("FR-P3-011")

NOW = datetime(2026, 3, 2, 20, tzinfo=UTC)  # a Monday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HELLO = {"type": "message", "channel": "email", "class": "marketing", "template": "hello"}
LATER = {"type": "delay", "for": "30 days"}


class Walk:
    """One run of a journey, taken along by hand."""

    def __init__(self, nodes, record=None, event=None, **parts):
        self.journey = read_journey({"id": "j", "nodes": nodes, **parts})
        self.record = {"id": 7, "events": [], "segments": set(), "scores": {}, "score": 10, **(record or {})}
        self.now, self.lines, self.effects = NOW, [], []
        arrival = Arrival("r1", "7", self.journey.entry.triggers[0], event or {})
        entered = enter(self.journey, arrival, self.facts, Past(), NOW)
        assert isinstance(entered, Entered)
        self.run = entered.run

    @property
    def facts(self):
        return LeadFacts(self.record, "Europe/Berlin")

    def take(self, occurrence, after=timedelta()):
        self.now += after
        decision = decide(self.journey, self.run, self.facts, occurrence, self.now)
        assert decision.before == self.run.version
        self.run = decision.run
        self.lines += decision.history
        self.effects += decision.effects
        assert not self.run.is_stalled
        return decision

    def wake(self, after=None):
        """The timer rings: when it should, or after a time."""
        waited = self.run.wake_at - self.now if after is None else after
        return self.take(Woken(self.run.wait_token), waited)

    def happen(self, name, after=timedelta(), at=None, verdict="human", **metadata):
        moment = at or self.now + after
        event = {"id": len(self.record["events"]), "type": name, "verdict": verdict, "tracked_at": moment}
        event["metadata"] = {"run": "r1", **metadata}
        self.record["events"].append(event)
        return self.take(Happened(event, moment), after)

    def report(self, outcome, channel="email", reason=None, after=timedelta()):
        return self.take(Reported(self.run.visit, channel, outcome, reason), after)

    @property
    def state(self):
        return self.run.state, self.run.node


def test_a_run_starts_ready_at_the_first_node():
    walk = Walk({"a": HELLO})
    assert walk.state == (RunState.READY, "a")
    assert (walk.run.wake_at, walk.run.sequence, walk.run.entered_at) == (NOW, 1, NOW)


def test_each_step_executes_one_node():
    walk = Walk(
        {
            "a": {"type": "score", "points": 1, "next": "b"},
            "b": {"type": "score", "points": 2, "next": "c"},
            "c": LATER,
        }
    )
    assert walk.wake().timer == (NOW, 2)
    assert (walk.state, walk.run.visit) == ((RunState.READY, "b"), 1)
    walk.wake()
    assert (walk.state, walk.run.visit) == ((RunState.READY, "c"), 2)
    walk.wake()
    assert walk.state == (RunState.WAITING, "c")
    assert [line.said for line in walk.lines] == [Said.EXECUTED] * 3


@pytest.mark.parametrize(
    ("node", "effect"),
    [
        ({"type": "score", "points": -2.5, "score": "fit"}, AddPoints("fit", -2.5)),
        ({"type": "update_lead", "set": {"metadata.plan": "pro"}}, SetFields({"metadata.plan": "pro"})),
        ({"type": "add_to_segment", "segment": "warm"}, PutInSegment("warm", is_member=True)),
        ({"type": "remove_from_segment", "segment": 7}, PutInSegment("7", is_member=False)),
        ({"type": "action", "action": "call", "with": {"team": 1}}, TakeAction("call", {"team": 1})),
    ],
)
def test_what_a_node_tells_leaves_as_an_effect_and_the_run_goes_on(node, effect):
    walk = Walk({"a": node})
    decision = walk.wake()
    assert decision.effects == (effect,)
    assert (walk.run.state, walk.run.reason, decision.timer) == (RunState.DONE, "end", None)


def test_a_jump_goes_on_elsewhere_and_an_exit_ends_with_its_reason():
    walk = Walk({"a": {"type": "jump", "to": "c"}, "c": {"type": "exit", "reason": "enough"}})
    walk.wake()
    assert walk.state == (RunState.READY, "c")
    walk.wake()
    assert (walk.run.state, walk.run.reason, walk.run.ended_at) == (RunState.EXITED, "enough", NOW)


def test_a_delay_waits_by_the_leads_clock_then_the_tenants():
    nodes = {"a": {"type": "delay", "days": 1, "at": "09:00", "next": "b"}, "b": HELLO}
    for zone, wake_at, key in (
        ("America/New_York", "2026-03-03T14:00+00:00", "America/New_York"),
        (None, "2026-03-03T08:00+00:00", "Europe/Berlin"),
        ("Mars/Base", "2026-03-03T08:00+00:00", "Europe/Berlin"),
    ):
        walk = Walk(nodes, {"time_zone": zone})
        walk.wake()
        assert walk.run.wake_at == datetime.fromisoformat(wake_at)
        assert walk.lines[-1].detail["zone"] == key
    assert LeadFacts({}, "Mars/Base").zone.key == "UTC"


def test_after_a_delay_the_next_node_is_executed_in_the_same_step():
    walk = Walk({"a": {"type": "delay", "for": "1 day", "next": "b"}, "b": HELLO})
    walk.wake()
    walk.wake()
    assert walk.state == (RunState.SENDING, "b")
    assert [line.said for line in walk.lines] == [Said.EXECUTED, Said.LEFT, Said.EXECUTED]


@pytest.mark.parametrize("recompute", [True, False])
def test_who_moves_while_waiting_waits_as_before_unless_the_delay_says_so(recompute):
    delay = {"type": "delay", "days": 1, "at": "09:00", "recompute_on_change": recompute}
    walk = Walk({"a": delay}, {"time_zone": "Europe/Berlin"})
    walk.wake()
    token = walk.run.wait_token
    walk.record["time_zone"] = "Asia/Tokyo"
    walk.take(Changed(NOW), HOUR)
    # In Tokyo it was Tuesday already when the run came: Wednesday at nine there.
    expected = datetime(2026, 3, 4, tzinfo=UTC) if recompute else datetime(2026, 3, 3, 8, tzinfo=UTC)
    assert (walk.run.wake_at, walk.run.wait_token > token) == (expected, recompute)


@pytest.mark.parametrize(
    ("renews", "words", "state"),
    [
        ("2026-04-01T00:00:00.000000Z", {}, (RunState.WAITING, "a")),
        ("2020-01-01", {}, (RunState.READY, "b")),
        ("2020-01-01", {"if_past": "exit"}, (RunState.EXITED, "a")),
        ("2020-01-01", {"if_past": {"skip_to": "c"}}, (RunState.READY, "c")),
        (None, {"if_past": "exit"}, (RunState.READY, "b")),
        (None, {"if_missing": "exit"}, (RunState.EXITED, "a")),
        ("soon", {"if_missing": {"skip_to": "c"}}, (RunState.READY, "c")),
    ],
)
def test_a_date_that_is_past_or_missing_is_what_the_author_says(renews, words, state):
    delay = {"type": "delay", "until": "metadata.renews", "next": "b", **words}
    walk = Walk({"a": delay, "b": {"type": "jump", "to": "c"}, "c": LATER}, {"metadata": {"renews": renews}})
    walk.wake()
    assert walk.state == state


def test_a_date_of_the_event_that_started_the_run_is_waited_for():
    nodes = {"a": {"type": "delay", "until": "event.metadata.starts", "offset": "-1 day"}}
    walk = Walk(nodes, event={"type": "booked", "metadata": {"starts": "2026-03-10T12:00:00Z"}})
    walk.wake()
    assert walk.run.wake_at == datetime(2026, 3, 9, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("record", "to", "trace"),
    [
        ({"score": 90}, "a", [True]),
        ({"score": 60, "country": "DE"}, "b", [False, True]),
        ({"score": None, "country": None}, "c", [False, False]),
        ({"score": "90"}, "c", [False, False]),
    ],
)
def test_a_branch_goes_the_first_open_way_and_what_is_missing_is_false(record, to, trace):
    ways = [{"when": "score > 80", "to": "a"}, {"when": "country == 'DE' or score > 70", "to": "b"}]
    nodes = {"go": {"type": "branch", "branches": ways, "else": "c"}, "a": LATER, "b": LATER, "c": LATER}
    walk = Walk(nodes, record)
    walk.wake()
    assert walk.run.node == to
    assert walk.lines[-1].detail["trace"] == trace


def test_a_branch_may_ask_what_happened_to_a_message_of_this_run():
    branch = {"type": "branch", "branches": [{"event": "email_clicked", "of": "a", "to": "yes"}], "else": "no"}
    nodes = {"a": {**HELLO, "next": "go"}, "go": branch, "yes": LATER, "no": LATER}
    for metadata, to in (({"node": "a"}, "yes"), ({"node": "x"}, "no"), ({"node": "a", "run": "r0"}, "no"), ({}, "no")):
        walk = Walk(nodes)
        walk.wake()
        walk.happen("email_clicked", HOUR, **metadata)
        walk.report(Outcome.SENT)
        assert walk.run.node == to


WAIT = {
    "a": {
        "type": "wait_until",
        "until": [{"event": "order_placed", "to": "yes"}, {"when": "in_segment('vip')", "to": "vip"}],
        "timeout": {"after": "2 days", "to": "no"},
    },
    "yes": LATER,
    "vip": LATER,
    "no": LATER,
}
DEADLINE = NOW + 2 * DAY


def test_who_is_there_already_does_not_wait():
    walk = Walk(WAIT, {"segments": {"vip"}})
    walk.wake()
    assert walk.state == (RunState.READY, "vip")


def test_an_event_ends_a_wait_and_the_timer_of_it_means_nothing_any_more():
    walk = Walk(WAIT)
    walk.wake()
    assert walk.run.wake_at == DEADLINE + timedelta(seconds=60)
    late = Woken(walk.run.wait_token)
    walk.happen("order_placed", HOUR)
    assert walk.state == (RunState.WAITING, "yes")
    assert walk.take(late, 2 * DAY).is_ignored


def test_a_change_ends_a_wait_and_the_first_to_commit_wins():
    walk = Walk(WAIT)
    walk.wake()
    before = walk.run
    walk.record["segments"] = {"vip"}
    walk.take(Changed(NOW), HOUR)
    assert walk.run.node == "vip"
    # The other worker decided on the run as it was: its answer is of a version that is gone.
    other = decide(walk.journey, before, walk.facts, Woken(before.wait_token), DEADLINE + HOUR)
    assert other.before == before.version < walk.run.version


@pytest.mark.parametrize(
    ("happened_at", "told_at", "node"),
    [
        (DEADLINE, DEADLINE + timedelta(seconds=59), "yes"),
        (DEADLINE - HOUR, DEADLINE + timedelta(seconds=30), "yes"),
        (DEADLINE + timedelta(microseconds=1), DEADLINE + timedelta(seconds=30), "a"),
    ],
)
def test_an_event_before_the_deadline_wins_though_it_is_told_within_the_grace(happened_at, told_at, node):
    walk = Walk(WAIT)
    walk.wake()
    walk.happen("order_placed", told_at - walk.now, happened_at)
    assert walk.run.node == node


def test_a_wait_ends_by_its_timeout():
    walk = Walk(WAIT)
    walk.wake()
    assert walk.take(Woken(walk.run.wait_token), 2 * DAY + timedelta(seconds=59)).is_ignored
    walk.wake()
    assert walk.state == (RunState.WAITING, "no")


def test_an_event_whose_nudge_was_lost_still_wins_over_the_timeout():
    walk = Walk(WAIT)
    walk.wake()
    walk.record["events"].append({"id": 1, "type": "order_placed", "verdict": "human", "tracked_at": NOW + HOUR})
    walk.wake()
    assert walk.run.node == "yes"


@pytest.mark.parametrize(
    ("verdict", "words", "node"), [("machine", {}, "a"), ("machine", {"any_verdict": True}, "yes")]
)
def test_machines_count_only_where_the_author_says_so(verdict, words, node):
    way = {"event": "order_placed", "to": "yes", **words}
    walk = Walk({**WAIT, "a": {**WAIT["a"], "until": [way, WAIT["a"]["until"][1]]}})
    walk.wake()
    walk.happen("order_placed", HOUR, verdict=verdict)
    assert walk.run.node == node


def test_an_event_is_judged_by_its_own_condition():
    way = {"event": "order_placed", "where": "properties.total >= 100", "to": "yes"}
    walk = Walk({**WAIT, "a": {**WAIT["a"], "until": [way, WAIT["a"]["until"][1]]}})
    walk.wake()
    walk.happen("order_placed", HOUR, total=99)
    assert walk.run.node == "a"
    walk.happen("order_placed", HOUR, total=100)
    assert walk.run.node == "yes"


def test_what_happened_before_the_run_counts_for_nothing_and_before_the_wait_unless_said():
    nodes = {"first": {"type": "delay", "for": "1 day", "next": "a"}, **WAIT}
    for after_arrival, state in ((False, (RunState.READY, "yes")), (True, (RunState.WAITING, "a"))):
        nodes["a"] = {**WAIT["a"], "until": [{**each, "after_arrival": after_arrival} for each in WAIT["a"]["until"]]}
        walk = Walk(nodes)
        walk.wake()
        walk.happen("order_placed", HOUR)
        walk.wake()
        assert walk.state == state
    walk = Walk(WAIT)
    walk.record["events"].append({"id": 1, "type": "order_placed", "verdict": "human", "tracked_at": NOW - HOUR})
    walk.wake()
    assert walk.run.node == "a"


def test_a_state_after_arrival_has_to_begin_after_the_arrival():
    wait = {**WAIT["a"], "until": [{"when": "in_segment('vip')", "to": "vip", "after_arrival": True}]}
    walk = Walk({"a": wait, "vip": LATER, "no": LATER}, {"segments": {"vip"}})
    walk.wake()
    walk.take(Changed(NOW), HOUR)
    assert walk.run.node == "a"
    walk.record["segments"] = set()
    walk.take(Changed(walk.now), HOUR)
    walk.record["segments"] = {"vip"}
    walk.take(Changed(walk.now), HOUR)
    assert walk.run.node == "vip"


def test_the_clock_alone_may_end_a_wait():
    wait = {
        "type": "wait_until",
        "until": [{"when": "created_at < now() - 10 days", "to": "yes"}],
        "timeout": {"after": "5 days", "to": "no"},
    }
    nodes = {"a": wait, "yes": LATER, "no": LATER}
    walk = Walk(nodes, {"created_at": NOW - 8 * DAY})
    walk.wake()
    assert timedelta() < walk.run.wake_at - (NOW + 2 * DAY) <= timedelta(milliseconds=1)
    walk.wake()
    assert walk.state == (RunState.WAITING, "yes")
    for late in (9 * DAY, 5 * DAY + timedelta(seconds=30)):
        walk = Walk(nodes, {"created_at": NOW - 8 * DAY})
        walk.wake()
        walk.wake(after=late)  # the worker was late, the condition was not
        assert walk.run.node == "yes"
    walk = Walk(nodes, {"created_at": NOW})
    walk.wake()
    assert walk.run.wake_at == NOW + 5 * DAY + timedelta(seconds=60)


def test_a_change_that_moves_the_clocks_moment_moves_the_timer():
    wait = {
        "type": "wait_until",
        "until": [{"when": "metadata.due < now() - 1 hour", "to": "yes"}],
        "timeout": {"after": "5 days", "to": "no"},
    }
    nodes = {"a": wait, "yes": LATER, "no": LATER}
    walk = Walk(nodes, {"metadata": {}}, fields={"due": "datetime"})
    walk.wake()
    deadline = walk.run.wake_at
    walk.record["metadata"] = {"due": (NOW + DAY).strftime("%Y-%m-%dT%H:%M:%S.000000Z")}
    walk.take(Changed(NOW), HOUR)
    assert walk.run.wake_at < deadline
    walk.wake()
    assert walk.run.node == "yes"


MESSAGE = {"a": {**HELLO, "next": "b"}, "b": LATER}


@pytest.mark.parametrize("outcome", Outcome)
def test_a_run_goes_on_whatever_became_of_its_message(outcome):
    walk = Walk(MESSAGE)
    (sent,) = walk.wake().effects
    assert isinstance(sent, SendMessage)
    assert (sent.node, sent.visit, sent.channel, sent.template, sent.obeys_caps) == ("a", 1, "email", "hello", True)
    assert (walk.state, walk.run.open) == ((RunState.SENDING, "a"), ("email",))
    walk.report(outcome, reason="cap")
    assert (walk.state, walk.run.open) == ((RunState.WAITING, "b"), ())
    assert walk.lines[-3].detail == {"channel": "email", "outcome": str(outcome), "reason": "cap"}


def test_outcomes_have_edges_and_a_message_may_have_to_be_sent():
    nodes = {**MESSAGE, "a": {**HELLO, "next": "b", "on": {"failed": "c"}, "require_sent": True}, "c": LATER}
    for outcome, state in (
        (Outcome.SENT, (RunState.WAITING, "b")),
        (Outcome.FAILED, (RunState.WAITING, "c")),
        (Outcome.SKIPPED, (RunState.EXITED, "a")),
    ):
        walk = Walk(nodes)
        walk.wake()
        walk.report(outcome)
        assert walk.state == state
    assert walk.run.reason == "not_sent"


@pytest.mark.parametrize(
    ("outcomes", "edge"),
    [
        ((Outcome.FAILED, Outcome.SENT), "sent"),
        ((Outcome.SKIPPED, Outcome.FAILED), "failed"),
        ((Outcome.SKIPPED, Outcome.SKIPPED), "skipped"),
    ],
)
def test_channels_at_once_are_waited_for_together(outcomes, edge):
    nodes = {**MESSAGE, "a": {"type": "message", "channels": ["email", "sms"], "class": "marketing", "next": "b"}}
    walk = Walk(nodes)
    assert [each.channel for each in walk.wake().effects] == ["email", "sms"]
    walk.report(outcomes[0], "email")
    assert walk.state == (RunState.SENDING, "a")
    assert walk.report(outcomes[0], "email").is_ignored  # told twice
    walk.report(outcomes[1], "sms")
    assert walk.state == (RunState.WAITING, "b")
    assert next(line.detail["edge"] for line in walk.lines if line.said is Said.LEFT) == edge


def test_the_next_channel_is_tried_only_where_the_one_before_did_not_send():
    message = {"type": "message", "channels": ["email", "sms", "push"], "mode": "first", "class": "marketing"}
    walk = Walk({**MESSAGE, "a": {**message, "next": "b"}})
    assert [each.channel for each in walk.wake().effects] == ["email"]
    assert [each.channel for each in walk.report(Outcome.SKIPPED).effects] == ["sms"]
    assert walk.report(Outcome.SENT, "sms").effects == ()
    assert walk.run.node == "b"


def test_an_outcome_that_nobody_tells_is_a_failure_and_no_reason_to_stand_still():
    walk = Walk({**MESSAGE, "a": {**HELLO, "next": "b", "on": {"failed": "c"}}, "c": LATER})
    walk.wake()
    assert walk.run.wake_at == NOW + OUTCOME_TIMEOUT
    assert CancelMessages(1, "no_outcome") in walk.wake().effects
    assert walk.run.node == "c"


@pytest.mark.parametrize(("outcome", "to"), [(Outcome.SENT, "b"), (Outcome.FAILED, "c"), (None, "c")])
def test_a_webhook_is_waited_for_and_its_failure_has_a_way_of_its_own(outcome, to):
    call = {"type": "webhook", "url": "https://x.example", "method": "PUT", "body": {"a": "{{ email }}"}}
    walk = Walk({"a": {**call, "next": "b", "failed": "c"}, "b": LATER, "c": LATER})
    assert walk.wake().effects == (CallUrl("a", 1, "https://x.example", "PUT", {"a": "{{ email }}"}),)
    assert walk.state == (RunState.SENDING, "a")
    assert walk.take(Reported(7, CALL, Outcome.SENT)).is_ignored
    if outcome is None:
        walk.wake()
    else:
        walk.report(outcome, CALL)
    assert walk.run.node == to


def test_an_approval_is_waited_for():
    node = {
        "type": "approval",
        "by": "sales",
        "approved": "yes",
        "rejected": "no",
        "timeout": {"after": "2 days", "to": "late"},
    }
    nodes = {"a": node, "yes": LATER, "no": LATER, "late": LATER}
    for occurrence, to in ((True, "yes"), (False, "no"), (None, "late")):
        walk = Walk(nodes)
        (asked,) = walk.wake().effects
        assert asked == AskApproval("a", "sales", walk.run.wait_token, NOW + 2 * DAY)
        if occurrence is None:
            walk.wake()
        else:
            walk.take(Answered(asked.token, occurrence), HOUR)
        assert walk.run.node == to
        assert walk.take(Answered(asked.token, approved=True), HOUR).is_ignored


EXITS = [{"event": "unsubscribed"}, {"when": "in_segment('customers')", "reason": "bought"}]


def test_an_exit_is_immediate_also_in_a_long_delay():
    walk = Walk({"a": LATER}, exit=EXITS)
    walk.wake()
    decision = walk.happen("unsubscribed", 3 * DAY)
    assert (walk.run.state, walk.run.reason, walk.run.ended_at) == (RunState.EXITED, "unsubscribed", NOW + 3 * DAY)
    assert (decision.timer, decision.effects) == (None, ())


def test_exit_criteria_are_looked_at_before_every_step():
    walk = Walk({"a": {"type": "delay", "for": "1 day", "next": "b"}, "b": HELLO}, exit=EXITS)
    walk.wake()
    walk.record["segments"] = {"customers"}  # and nobody said so
    assert walk.wake().effects == ()
    assert (walk.run.state, walk.run.reason) == (RunState.EXITED, "bought")


def test_an_exit_takes_back_what_was_not_handed_over():
    walk = Walk(MESSAGE, exit=EXITS)
    walk.wake()
    assert is_wanted(walk.journey, walk.run, walk.facts, 1, "email", NOW)
    walk.record["segments"] = {"customers"}
    assert not is_wanted(walk.journey, walk.run, walk.facts, 1, "email", NOW)
    assert walk.take(Changed(NOW)).effects == (CancelMessages(1, "bought"),)
    assert not is_wanted(walk.journey, walk.run, walk.facts, 1, "email", NOW)
    assert walk.report(Outcome.SENT).is_ignored


def test_a_message_of_an_earlier_visit_is_not_wanted():
    walk = Walk(MESSAGE)
    walk.wake()
    assert not is_wanted(walk.journey, walk.run, walk.facts, 2, "email", NOW)
    assert not is_wanted(walk.journey, walk.run, walk.facts, 1, "sms", NOW)


GOAL = {"id": "bought", "event": "order_placed", "window": "10 days"}


def goals(walk):
    return [line.detail["goal"] for line in walk.lines if line.said is Said.GOAL]


def test_a_goal_counts_once_a_run_and_after_its_end_until_the_window_closes():
    walk = Walk({"a": {"type": "exit"}}, goals=[GOAL, {**GOAL, "id": "again", "where": "properties.total > 5"}])
    walk.wake()
    walk.happen("order_placed", DAY)
    walk.happen("order_placed", DAY)
    assert (goals(walk), walk.run.state) == (["bought"], RunState.EXITED)
    walk.happen("order_placed", DAY, total=9)
    assert (goals(walk), walk.run.goals) == (["bought", "again"], {"bought", "again"})
    late = Walk({"a": {"type": "exit"}}, goals=[GOAL])
    late.wake()
    late.happen("order_placed", 10 * DAY + timedelta(seconds=1))
    assert goals(late) == []


def test_a_goal_may_end_a_run_or_move_it_and_a_state_may_be_one():
    walk = Walk({"a": LATER}, goals=[{**GOAL, "effect": "exit"}])
    walk.wake()
    walk.happen("order_placed", DAY)
    assert (walk.run.state, walk.run.reason) == (RunState.EXITED, "goal:bought")
    walk = Walk({**MESSAGE, "z": LATER}, goals=[{**GOAL, "effect": {"jump_to": "z"}}])
    walk.wake()
    assert walk.happen("order_placed", DAY).effects == (CancelMessages(1, "goal:bought"),)
    assert (walk.state, walk.run.open) == ((RunState.WAITING, "z"), ())
    walk = Walk({"a": LATER}, goals=[{"id": "warm", "when": "score > 50"}])
    walk.wake()
    walk.record["score"] = 60
    walk.take(Changed(NOW), HOUR)
    assert (goals(walk), walk.state) == (["warm"], (RunState.WAITING, "a"))


def test_what_is_a_goal_and_an_exit_is_both():
    walk = Walk({"a": LATER}, goals=[{**GOAL, "effect": {"jump_to": "a"}}], exit=[{"event": "order_placed"}])
    walk.wake()
    walk.happen("order_placed", DAY)
    assert (goals(walk), walk.run.state, walk.run.reason) == (["bought"], RunState.EXITED, "order_placed")


def test_an_operator_ends_a_run_once():
    walk = Walk(MESSAGE)
    walk.wake()
    assert walk.take(Stopped("stopped by ann")).effects == (CancelMessages(1, "stopped by ann"),)
    assert (walk.run.state, walk.run.reason) == (RunState.EXITED, "stopped by ann")
    assert walk.take(Stopped("again")).is_ignored


def test_a_run_whose_node_is_gone_fails_with_the_reason():
    walk = Walk(MESSAGE)
    walk.run = replace(walk.run, node="gone")
    walk.wake()
    assert (walk.run.state, walk.run.reason) == (RunState.FAILED, "node_missing")


def test_a_run_that_goes_round_for_ever_fails():
    walk = Walk({"a": {"type": "delay", "for": "1 second", "next": "b"}, "b": {"type": "jump", "to": "a"}})
    walk.run = replace(walk.run, visit=MOST_VISITS - 1)
    walk.wake()
    assert walk.run.is_live
    walk.wake()
    assert (walk.run.state, walk.run.reason) == (RunState.FAILED, "too_many_steps")


def test_what_means_nothing_to_a_run_changes_nothing():
    walk = Walk({"a": LATER})
    walk.wake()
    for occurrence in (Changed(NOW), Woken(0), Reported(1, "email", Outcome.SENT), Answered(walk.run.wait_token, True)):
        decision = walk.take(occurrence)
        assert decision.run is walk.run
        assert (decision.is_ignored, decision.history, decision.effects) == (True, (), ())
