"""A journey's document: what it becomes, and every fault of it at once with its place."""

import json
from copy import deepcopy
from datetime import time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.conditions import FieldType
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys import END, Outcome, Surroundings, canonical_text, parse_journey
from nexus_marketing.core.journeys.delays import DaysAt, Fallback, Span, UntilDate, Weekdays
from nexus_marketing.core.journeys.model import ConcurrencyKind, GoalEffect, ReentryKind, TriggerKind

pytestmark = pytest.mark.req("FR-P3-011")

DEFINITIONS = Path(__file__).parents[3] / "common" / "definitions"
HELLO = {"type": "message", "channel": "email", "class": "marketing", "template": "hello"}
WELCOME = {
    "id": "welcome",
    "name": "Welcome",
    "entry": {
        "triggers": [
            {"on": "event", "event": "form_submitted", "where": "properties.form == 'demo'"},
            {"on": "date", "field": "metadata.birthday", "offset": "-3 days", "at": "09:00", "start": "again"},
        ],
        "filter": "country == 'DE'",
        "reentry": {"policy": "after_interval", "interval": "30 days"},
        "concurrency": {"policy": "restart"},
        "cap": {"count": 1000, "per": "1 day"},
        "holdout": 5,
        "key": "event.metadata.order",
        "backfill": "all",
    },
    "exit": [{"event": "unsubscribed"}, {"when": "in_segment('customers')", "reason": "bought"}],
    "goals": [{"id": "bought", "event": "order_placed", "effect": {"jump_to": "thanks"}, "window": "14 days"}],
    "quiet_hours": [{"from": "21:00", "to": "08:00"}],
    "nodes": {
        "hello": {**HELLO, "next": "wait"},
        "wait": {
            "type": "wait_until",
            "until": [{"event": "email_clicked", "of": "hello", "to": "thanks", "after_arrival": True}],
            "timeout": {"after": "3 days", "to": "split"},
        },
        "split": {
            "type": "split",
            "ways": [{"weight": 33.33, "to": "again"}, {"weight": 66.67, "to": "asked"}],
        },
        "again": {
            "type": "message",
            "channels": {"email": {"template": "again"}, "sms": {}},
            "mode": "first",
            "class": "transactional",
            "on": {"failed": "told"},
            "require_sent": True,
            "next": "points",
        },
        "asked": {
            "type": "approval",
            "by": "sales",
            "approved": "told",
            "rejected": "end",
            "timeout": {"after": "2 days", "to": "end"},
        },
        "told": {"type": "webhook", "url": "https://example.com/x", "body": {"a": 1}, "next": "act"},
        "act": {"type": "action", "action": "call", "with": {"team": "west"}, "next": "in"},
        "in": {"type": "add_to_segment", "segment": "warm", "next": "out"},
        "out": {"type": "remove_from_segment", "segment": "cold", "next": "set"},
        "set": {"type": "update_lead", "set": {"metadata.stage": "warm", "locale": None}, "next": "points"},
        "points": {"type": "score", "points": 5, "next": "thanks"},
        "thanks": {"type": "branch", "branches": [{"when": "score > 50", "to": "bye"}], "else": "go"},
        "go": {"type": "jump", "to": "bye"},
        "bye": {"type": "exit", "reason": "finished"},
    },
}


def of(nodes, **more):
    return {"id": "j", "nodes": nodes, **more}


def faults(document, **around):
    with pytest.raises(ValidationError) as caught:
        read_journey(document, **around)
    return {(each.path, each.code) for each in caught.value.problems}


def test_a_document_that_says_everything_is_read():
    journey = read_journey(WELCOME)
    assert [*journey.nodes] == [*WELCOME["nodes"]]
    event, date = journey.entry.triggers
    assert (event.on, event.name, event.start) == (TriggerKind.EVENT, "form_submitted", "hello")
    assert (date.name, date.offset, date.at, date.start) == ("metadata.birthday", timedelta(days=-3), "09:00", "again")
    assert journey.entry.reentry.kind is ReentryKind.AFTER_INTERVAL
    assert journey.entry.reentry.interval == timedelta(days=30)
    assert journey.entry.concurrency.kind is ConcurrencyKind.RESTART
    assert (journey.entry.cap, journey.entry.holdout) == ((1000, timedelta(days=1)), 500)
    assert (journey.entry.key, journey.entry.backfill) == (("event", "metadata", "order"), True)
    assert [each.reason for each in journey.exits] == ["unsubscribed", "bought"]
    (goal,) = journey.goals
    assert (goal.effect, goal.to, goal.window) == (GoalEffect.JUMP_TO, "thanks", timedelta(days=14))
    again = journey.nodes["again"]
    assert (again.channels, again.edge(Outcome.SKIPPED)) == ({"email": "again", "sms": None}, None)
    assert (again.edge(Outcome.FAILED), again.edge(Outcome.SENT)) == ("told", "points")
    assert (again.obeys_caps, again.obeys_quiet_hours, journey.nodes["hello"].obeys_caps) == (False, False, True)
    assert [share.hundredths for share in journey.nodes["split"].shares] == [3_333, 6_667]
    assert journey.listens == {"unsubscribed", "order_placed", "email_clicked"}
    assert journey.reads.segments == {"customers"}
    assert [each.code for each in journey.notices] == ["no_template"]


def test_the_canonical_form_is_a_fixed_point_with_one_digest():
    journey = read_journey(WELCOME)
    stored = json.loads(canonical_text(journey.document))
    again = read_journey(stored)
    assert (again.digest, canonical_text(again.document)) == (journey.digest, canonical_text(stored))
    assert len(journey.digest) == 64
    shuffled = {**WELCOME, "nodes": WELCOME["nodes"]}
    assert read_journey(dict(reversed(shuffled.items()))).digest == journey.digest
    changed = deepcopy(WELCOME)
    changed["nodes"]["points"]["points"] = 6
    assert read_journey(changed).digest != journey.digest


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({"for": "2 days"}, Span(timedelta(days=2))),
        ({"days": 1, "at": "09:00"}, DaysAt(1, time(9))),
        ({"weekdays": ["tue", "thu"], "at": "10:30"}, Weekdays(frozenset({1, 3}), time(10, 30))),
        (
            {"until": "created_at", "offset": "+1 week", "if_past": "exit", "if_missing": {"skip_to": "end"}},
            UntilDate(("created_at",), timedelta(weeks=1), None, Fallback("exit"), Fallback("skip_to", END)),
        ),
        ({"until": "event.starts", "at": "08:00"}, UntilDate(("event", "starts"), at=time(8))),
    ],
)
def test_each_kind_of_delay_is_read(said, rule):
    assert read_journey(of({"a": {"type": "delay", **said}})).nodes["a"].rule == rule


def test_every_fault_is_told_at_once_with_its_place():
    document = of(
        {
            "a": {"type": "delay", "for": "1 fortnight", "next": "b"},
            "b": {"type": "wait_until", "until": [{"event": "x", "to": "nowhere"}]},
            "c": {"type": "message", "channel": "email", "nxt": "a"},
            "d": {"type": "spilt"},
            "e": {"type": "split", "ways": [{"weight": 50, "to": "a"}, {"weight": 40, "to": "b"}]},
            "f": {"type": "branch", "branches": [{"when": "nope > 1", "to": "a"}], "else": "a"},
            "g": 7,
            "end": {"type": "exit"},
        },
        entry={"filter": "score >", "reentry": {"policy": "after_interval"}},
        goals=["bought"],
        colour="red",
        quiet_hours=[{"from": "21:00", "to": "25:00"}],
    )
    assert faults(document) == {
        ("colour", "unknown_field"),
        ("entry.filter", "syntax"),
        ("entry.reentry", "one_of"),
        ("goals.0", "wrong_type"),
        ("nodes.a.for", "not_a_duration"),
        ("nodes.b.timeout", "no_timeout"),
        ("nodes.b.until.0.to", "unknown_node"),
        ("nodes.c.nxt", "unknown_field"),
        ("nodes.d.type", "unknown_type"),
        ("nodes.e.ways", "weights"),
        ("nodes.f.branches.0.when", "unknown_field"),
        ("nodes.g", "wrong_type"),
        ("nodes.end", "not_an_id"),
        ("quiet_hours.0.to", "not_a_clock"),
    }


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        ({"type": "message", "channel": "email"}, ("nodes.a.class", "no_class")),
        ({"type": "message", "class": "marketing"}, ("nodes.a", "one_of")),
        ({**HELLO, "channels": ["sms"]}, ("nodes.a", "one_of")),
        (
            {"type": "message", "channels": ["sms", "sms"], "class": "marketing"},
            ("nodes.a.channels.1", "not_a_channel"),
        ),
        (
            {"type": "message", "channels": {"sms": {"colour": 1}}, "class": "marketing"},
            ("nodes.a.channels.sms", "unknown_key"),
        ),
        ({**HELLO, "quiet_hours": [{"from": "1", "to": "08:00"}]}, ("nodes.a.quiet_hours.0.from", "not_a_clock")),
        ({"type": "delay"}, ("nodes.a", "one_of")),
        ({"type": "delay", "for": "1 day", "days": 1, "at": "09:00"}, ("nodes.a", "one_of")),
        ({"type": "delay", "days": 1}, ("nodes.a.at", "required")),
        ({"type": "delay", "for": "1 day", "at": "09:00"}, ("nodes.a.at", "not_allowed")),
        ({"type": "delay", "for": "9999 weeks"}, ("nodes.a.for", "out_of_bounds")),
        ({"type": "delay", "days": 1, "at": "09:00", "zone": "Mars/Base"}, ("nodes.a.zone", "unknown_zone")),
        ({"type": "delay", "until": "nope"}, ("nodes.a.until", "unknown_field")),
        ({"type": "delay", "until": "created_at", "offset": "soon"}, ("nodes.a.offset", "not_a_duration")),
        ({"type": "delay", "until": "created_at", "if_past": "run"}, ("nodes.a.if_past", "unknown_choice")),
        ({"type": "update_lead", "set": {"score": 3}}, ("nodes.a.set.score", "read_only")),
        ({"type": "update_lead", "set": {"naem": 3}}, ("nodes.a.set.naem", "unknown_field")),
        ({"type": "jump", "to": "b"}, ("nodes.a.to", "unknown_node")),
        ({"type": "webhook", "url": "ftp://x"}, ("nodes.a.url", "not_well_formed")),
        (
            {"type": "branch", "branches": [{"when": "score > 1", "of": "x", "to": "end"}], "else": "end"},
            ("nodes.a.branches.0.of", "not_allowed"),
        ),
        (
            {"type": "branch", "branches": [{"event": "x", "of": "y", "to": "end"}], "else": "end"},
            ("nodes.a.branches.0.of", "unknown_node"),
        ),
        (
            {
                "type": "split",
                "ways": [{"weight": 50, "to": "end", "name": "a"}, {"weight": 50, "to": "end", "name": "a"}],
            },
            ("nodes.a.ways.1", "duplicate"),
        ),
        (
            {"type": "split", "ways": [{"weight": 50.001, "to": "end", "name": "b"}, {"weight": 49.999, "to": "end"}]},
            ("nodes.a.ways.0.weight", "weights"),
        ),
    ],
)
def test_a_fault_of_a_node_is_named(node, fault):
    assert fault in faults(of({"a": node}))


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ({"entry": {"triggers": []}}, ("entry.triggers", "too_short")),
        ({"entry": {"triggers": [{"on": "event"}]}}, ("entry.triggers.0.event", "required")),
        ({"entry": {"triggers": [{"on": "api", "segment": "x"}]}}, ("entry.triggers.0.segment", "not_allowed")),
        ({"entry": {"triggers": [{"on": "api", "at": "09:00"}]}}, ("entry.triggers.0.at", "not_allowed")),
        ({"entry": {"triggers": [{"on": "api", "start": "b"}]}}, ("entry.triggers.0.start", "unknown_node")),
        ({"entry": {"triggers": [{"on": "date", "field": "nope"}]}}, ("entry.triggers.0.field", "unknown_field")),
        ({"entry": {"key": "nope"}}, ("entry.key", "unknown_field")),
        ({"entry": {"concurrency": {"policy": "parallel"}}}, ("entry.concurrency.most", "one_of")),
        (
            {"entry": {"reentry": {"policy": "after_interval", "interval": "1 day", "zone": "UTC"}}},
            ("entry.reentry.zone", "not_allowed"),
        ),
        ({"start": "b"}, ("start", "unknown_node")),
        ({"exit": [{}]}, ("exit.0", "one_of")),
        ({"goals": [{"id": "g", "event": "x", "effect": "win"}]}, ("goals.0.effect", "unknown_choice")),
        ({"goals": [{"id": "g", "event": "x"}, {"id": "g", "event": "y"}]}, ("goals.1.id", "duplicate")),
        ({"goals": [{"id": "g", "event": "x", "of": "a"}]}, ("goals.0.of", "unknown_node")),
    ],
)
def test_a_fault_of_a_part_is_named(part, fault):
    assert fault in faults(of({"a": {"type": "delay", "for": "1 day"}}, **part))


def test_what_nothing_leads_to_is_a_fault():
    nodes = {"a": {"type": "delay", "for": "1 day"}, "b": {"type": "delay", "for": "1 day"}}
    assert faults(of(nodes)) == {("nodes.b", "unreachable")}
    assert read_journey(of(nodes, goals=[{"id": "g", "event": "x", "effect": {"jump_to": "b"}}]))
    assert read_journey(of(nodes, entry={"triggers": [{"on": "api"}, {"on": "list", "start": "b"}]}))


DAY = {"type": "delay", "for": "1 day", "next": "go"}
CLICK = {"event": "email_clicked", "to": "go"}


@pytest.mark.parametrize(
    ("node", "is_instant"),
    [
        ({"type": "score", "points": 1, "next": "go"}, True),
        ({**HELLO, "next": "go"}, True),
        ({"type": "delay", "for": "0 seconds", "next": "go"}, True),
        (DAY, False),
        ({"type": "delay", "days": 0, "at": "09:00", "next": "go"}, True),
        ({"type": "delay", "days": 1, "at": "09:00", "next": "go"}, False),
        ({"type": "delay", "weekdays": ["mon"], "at": "09:00", "next": "go"}, False),
        ({"type": "delay", "until": "created_at", "next": "go"}, True),
        ({"type": "delay", "until": "created_at", "if_past": "exit", "if_missing": "exit", "next": "go"}, False),
        ({"type": "wait_until", "until": [CLICK], "timeout": {"after": "1 day", "to": "end"}}, True),
        (
            {
                "type": "wait_until",
                "until": [{**CLICK, "after_arrival": True}],
                "timeout": {"after": "1 day", "to": "go"},
            },
            False,
        ),
        ({"type": "approval", "by": "x", "approved": "go", "timeout": {"after": "1 day", "to": "go"}}, False),
    ],
)
def test_a_circle_needs_time(node, is_instant):
    document = of({"go": {"type": "jump", "to": "a"}, "a": node})
    if is_instant:
        assert faults(document) == {("nodes.go", "zero_delay_cycle")}
    else:
        assert read_journey(document)


def test_a_delay_that_is_recomputed_reads_what_it_is_made_of():
    delay = {"type": "delay", "until": "metadata.renews", "recompute_on_change": True}
    assert read_journey(of({"a": delay})).reads.fields == {"time_zone", "metadata.renews"}
    assert read_journey(of({"a": {**delay, "recompute_on_change": False}})).reads.fields == set()


def test_unknown_actions_refuse_a_journey_only_where_names_are_known():
    document = of({"a": {"type": "action", "action": "reassign"}})
    assert read_journey(document)
    assert read_journey(document, actions=["reassign"])
    assert faults(document, actions=["send_to_sales_team"]) == {("nodes.a.action", "unknown_action")}


def test_only_opens_are_worth_a_notice():
    branch = {"type": "branch", "branches": [{"event": "email_opened", "to": "end"}], "else": "end"}
    assert [each.code for each in read_journey(of({"a": branch})).notices] == ["open_only"]
    branch["branches"] = [{"when": "count(email_opened) > 0 and score > 3", "to": "end"}]
    assert read_journey(of({"a": branch})).notices == ()


def test_a_version_keeps_the_types_of_the_fields_it_reads():
    branch = {"type": "branch", "branches": [{"when": "seats > 5", "to": "end"}], "else": "end"}
    fields = {"seats": FieldType.NUMBER, "plan": FieldType.TEXT}
    journey = read_journey(of({"a": branch}), fields)
    assert journey.document["fields"] == {"seats": "number"}
    assert read_journey(journey.document).digest == journey.digest


def test_the_requirements_short_form_is_nodes_and_edges():
    document = json.loads((DEFINITIONS / "email-drip-sequence.json").read_text())
    journey = read_journey(document)
    assert [*journey.nodes] == [f"step-{n}{part}" for n in (1, 2, 3) for part in ("-delay", "")]
    assert [journey.nodes[f"step-{n}-delay"].rule.length for n in (1, 2, 3)] == [
        timedelta(hours=1),
        timedelta(days=2),
        timedelta(days=5),
    ]
    first, last = journey.nodes["step-1"], journey.nodes["step-3"]
    assert (first.channels, first.next, last.next) == ({"email": "welcome-1"}, "step-2-delay", END)


def test_the_short_form_takes_actions_templates_segments_and_the_journeys_own_keys():
    document = {
        "id": "x",
        "template": "all",
        "message_class": "transactional",
        "targeting": {"segment": "country == 'DE'"},
        "exit": [{"event": "unsubscribed"}],
        "automation": {
            "sequence": [
                {"delay": "1 hour", "action": "send_sms"},
                {"delay": "1 hour", "action": "send_to_sales_team"},
            ]
        },
    }
    # A segment that is text is the name of one.
    journey = read_journey({**document, "targeting": {"segment": "new"}})
    assert (journey.entry.triggers[0].on, journey.entry.triggers[0].name) == (TriggerKind.SEGMENT_ENTERED, "new")
    rule = {"field": "country", "operator": "==", "value": "DE"}
    journey = read_journey({**document, "targeting": {"segment": rule}})
    assert (journey.entry.triggers[0].on, journey.entry.filter.spelling) == (TriggerKind.LIST, "country == 'DE'")
    assert journey.nodes["step-1"].channels == {"sms": "all"}
    assert journey.nodes["step-2"].action == "send_to_sales_team"
    assert [each.reason for each in journey.exits] == ["unsubscribed"]
    document["automation"]["sequence"][0]["delay"] = "soon"
    assert faults(document) == {("automation.sequence.0.delay", "not_a_duration")}


def test_a_document_without_a_journey_says_so():
    assert faults({"id": "x", "automation": {"triggers": []}}) == {("nodes", "required")}
    assert faults({"id": "x", "nodes": {}}) == {("nodes", "too_short")}


def test_a_fault_says_where_the_document_lies():
    with pytest.raises(ValidationError) as caught:
        parse_journey({"id": "x", "nodes": {"a": {"type": "jump", "to": "b"}}}, Surroundings(), "journeys.3")
    assert [each.path for each in caught.value.problems] == ["journeys.3.nodes.a.to"]


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "end", "1 day", "score > 1", "09:00", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "to", "when", "event", "ways", "until", "next", "for", "channels", "a", "end"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def told(document):
    """The faults of a document, none where it is one."""
    try:
        read_journey(document)
    except ValidationError as error:
        return error.problems
    return ()


@given(st.sampled_from([*WELCOME]), st.sampled_from([*WELCOME["nodes"]]), junk, junk)
def test_no_document_breaks_the_reader(part, node, value, other):
    for document in ({**WELCOME, part: value}, {**WELCOME, "nodes": {**WELCOME["nodes"], node: other}}):
        assert all(problem.message for problem in told(deepcopy(document)))


@given(st.sampled_from([(node, key) for node, said in WELCOME["nodes"].items() for key in said]), junk)
def test_no_member_of_a_node_breaks_the_reader(place, value):
    document = deepcopy(WELCOME)
    document["nodes"][place[0]][place[1]] = value
    assert all(problem.message for problem in told(document))


@pytest.mark.parametrize(
    ("trigger", "found"),
    [
        ({"on": "score"}, {("entry.triggers.0.threshold", "required")}),
        ({"on": "score", "threshold": "not a key"}, {("entry.triggers.0.threshold", "not_an_id")}),
        ({"on": "score", "threshold": 80, "direction": "sideways"}, {("entry.triggers.0.direction", "not_allowed")}),
        ({"on": "api", "threshold": 80}, {("entry.triggers.0.threshold", "not_allowed")}),
        ({"on": "plugin", "event": "purchase"}, {("entry.triggers.0.trigger", "required")}),
        ({"on": "plugin", "trigger": "big"}, {("entry.triggers.0", "one_of")}),
        ({"on": "plugin", "trigger": "big", "event": "purchase", "webhook": True}, {("entry.triggers.0", "one_of")}),
        (
            {"on": "plugin", "trigger": "big", "recurrence": {"cron": "* * * * *"}},
            {("entry.triggers.0.recurrence.cron", "too_often")},
        ),
        ({"on": "api", "webhook": True}, {("entry.triggers.0.webhook", "not_allowed")}),
    ],
)
def test_triggers_on_scores_and_plugins_say_what_they_need(trigger, found):
    assert faults(of({"bye": {"type": "exit"}}, entry={"triggers": [trigger]})) == found


def test_a_score_is_the_own_one_and_crossed_upwards_unless_said_otherwise():
    triggers = [
        {"on": "score", "threshold": 80},
        {"on": "score", "score": "fit", "threshold": "hot", "direction": "down"},
    ]
    journey = read_journey(of({"bye": {"type": "exit"}}, entry={"triggers": triggers}))
    assert [each.crossing for each in journey.entry.triggers] == ["score:score:up:#80.0", "score:fit:down:hot"]
    assert read_journey(journey.document).digest == journey.digest
