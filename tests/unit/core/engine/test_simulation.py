"""Journeys tried out on a virtual clock: the same numbers for the same seed, and numbers that add up."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.engine.simulation import Assumptions, Pacing, World, made_up, person_of, read_rates
from nexus_marketing.core.engine.simulation.charts import calendar_chart, journey_diagram
from nexus_marketing.core.engine.simulation.layout import arrange
from nexus_marketing.core.engine.simulation.report import Period
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.zones import UTC_ZONE

pytestmark = pytest.mark.req("FR-P3-011")

DEFINITIONS = Path(__file__).parents[3] / "common" / "definitions"
START = datetime(2026, 12, 1, 9, tzinfo=UTC)  # a Tuesday
NOBODY = Assumptions(0, 0, 0, 0, 1, {})
HELLO = {"type": "message", "channel": "email", "class": "marketing", "template": "hello"}
LATER = {"type": "delay", "for": "300 days"}
WELCOME = {
    "id": "welcome",
    "entry": {"holdout": 10},
    "goals": [{"id": "bought", "event": "order_placed", "effect": "exit"}],
    "exit": [{"event": "unsubscribed"}],
    "nodes": {
        "hello": {**HELLO, "next": "wait"},
        "wait": {
            "type": "wait_until",
            "until": [{"event": "email_clicked", "of": "hello", "to": "thanks"}],
            "timeout": {"after": "3 days", "to": "split"},
        },
        "split": {"type": "split", "ways": [{"weight": 30, "to": "again"}, {"weight": 70, "to": "thanks"}]},
        "again": {
            "type": "message",
            "channels": ["email", "sms"],
            "class": "marketing",
            "next": "thanks",
        },
        "thanks": {"type": "score", "points": 5},
    },
}


def people(*values, zone="UTC"):
    return [person_of(number, each, START, zone) for number, each in enumerate(values, 1)]


def simulate(document, leads, settings=None, rates=NOBODY, days=30, seed="0", start=START):
    pacing = Pacing.of(settings or {})
    world = World(read_journey(document), Period(start, days, pacing.zone), pacing, rates, seed)
    return world.run(leads)


def of(nodes, **more):
    return {"id": "j", "nodes": nodes, **more}


def days(report, *names):
    return {
        day["date"][5:]: tuple(day[name] for name in names)
        for day in report.document()["calendar"]
        if any(day[name] for name in names)
    }


def node(report, name):
    return next(each for each in report.document()["nodes"] if each["id"] == name)


ANN = {"email": "ann@example.org", "time_zone": "Europe/Berlin", "country": "DE"}


def test_the_requirements_drip_has_its_calendar():
    document = json.loads((DEFINITIONS / "email-drip-sequence.json").read_text())
    report = simulate(document, people(ANN, {"email": "bob@example.org"}))
    assert days(report, "sent", "ended") == {"12-01": (2, 0), "12-03": (2, 0), "12-08": (2, 2)}
    assert report.document()["totals"]["sent"] == 6
    assert (report.document()["going_on"], report.document()["ended"]) == (0, {"end": 2})
    assert [each["runs"] for each in node(report, "step-1")["edges"]] == [2]


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    def told(seed):
        return simulate(WELCOME, made_up(300, seed, START, "UTC"), rates=read_rates([]), seed=seed).document()

    assert told("1") == told("1")
    assert told("1")["totals"] != told("2")["totals"]


def test_a_lead_that_is_left_out_changes_nothing_for_the_others():
    everybody = simulate(WELCOME, list(made_up(300, "0", START, "UTC")), rates=read_rates([])).tally
    first = simulate(WELCOME, list(made_up(300, "0", START, "UTC"))[:150], rates=read_rates([])).tally
    rest = simulate(WELCOME, list(made_up(300, "0", START, "UTC"))[150:], rates=read_rates([])).tally
    assert first.edges + rest.edges == everybody.edges
    assert first.ends + rest.ends == everybody.ends


def test_what_comes_to_a_node_leaves_it_or_is_there():
    report = simulate(WELCOME, made_up(2_000, "0", START, "UTC"), rates=read_rates(["order_placed=0.05", "clicks=0.2"]))
    document = report.document()
    for each in document["nodes"]:
        out = sum(edge["runs"] for edge in document["edges"] if edge["from"] == each["id"])
        ended_here = each["ended"] - sum(
            edge["runs"] for edge in document["edges"] if (edge["from"], edge["to"]) == (each["id"], "end")
        )
        assert each["came"] == out + ended_here + each["here"], each
    assert document["entered"] + document["refused"]["holdout"] == 2_000
    assert document["entered"] == sum(document["ended"].values()) + document["going_on"]
    messages = document["totals"]
    written = sum(node(report, name)["came"] * count for name, count in (("hello", 1), ("again", 2)))
    assert written == messages["sent"] + messages["failed"] + messages["skipped"] + messages["cap_skipped"]


@pytest.mark.no_cover
def test_weights_and_rates_hold_within_their_tolerance():
    report = simulate(WELCOME, made_up(8_000, "0", START, "UTC"), rates=read_rates(["clicks=0.10", "opens=0.4"]))
    hello, split = node(report, "hello"), node(report, "split")
    assert abs(hello["clicked"] / hello["sent"] - 0.10) < 0.015
    assert abs(hello["opened"] / hello["sent"] - 0.40) < 0.025
    assert abs(hello["failed"] / hello["came"] - 0.01) < 0.005
    assert abs(split["edges"][0]["runs"] / split["came"] - 0.3) < 0.025
    assert abs(report.document()["refused"]["holdout"] / 8_000 - 0.1) < 0.015


NIGHT = {"quiet_hours": [{"from": "21:00", "to": "08:00", "spread": "15 minutes"}]}


def test_what_falls_into_quiet_hours_waits_until_they_are_over_there():
    start = datetime(2026, 12, 1, 22, tzinfo=UTC)
    document = of({"a": {**HELLO, "next": "b"}, "b": LATER})
    leads = people(ANN, {**ANN, "time_zone": "America/New_York"})
    report = simulate(document, leads, NIGHT, start=start)
    # In Berlin it is eleven at night; in New York five in the afternoon.
    assert days(report, "sent", "quiet_held") == {"12-01": (1, 1), "12-02": (1, 0)}
    (held,) = (run for run in report.runs_left if run.lead_id == "1")
    assert timedelta() <= held.arrived_at - datetime(2026, 12, 2, 7, tzinfo=UTC) <= timedelta(minutes=15)


def test_quiet_hours_of_journey_and_node_hold_too_and_never_for_what_was_asked_for():
    start = datetime(2026, 12, 1, 22, tzinfo=UTC)
    lunch = [{"from": "00:00", "to": "12:00"}]
    own = {**HELLO, "quiet_hours": [{"from": "22:30", "to": "13:00"}]}
    for nodes, parts, day in (
        ({"a": HELLO}, {"quiet_hours": lunch}, "12-01"),
        ({"a": own}, {"quiet_hours": lunch}, "12-02"),
        ({"a": {**own, "class": "transactional"}}, {}, "12-01"),
        ({"a": {**own, "class": "transactional", "obeys_quiet_hours": True}}, {}, "12-02"),
    ):
        report = simulate(of(nodes, **parts), people(ANN), start=start)
        assert [*days(report, "sent")] == [day]


def test_what_quiet_hours_skip_is_skipped():
    rule = {"quiet_hours": [{"from": "08:00", "to": "12:00", "on_quiet": "skip"}]}
    report = simulate(of({"a": HELLO}), people(ANN), rule)
    assert (days(report, "quiet_skipped"), report.document()["skipped"]) == ({"12-01": (1,)}, {"quiet_expired": 1})


TWICE = {"a": {**HELLO, "next": "b"}, "b": {"type": "delay", "for": "2 hours", "next": "c"}, "c": {**HELLO}}


@pytest.mark.req("BR-001", "FR-P3-011")
def test_nobody_gets_two_marketing_messages_a_day_unless_the_tenant_says_so():
    report = simulate(of(TWICE), people(ANN))
    assert days(report, "sent", "cap_skipped") == {"12-01": (1, 1)}
    assert node(report, "c")["skipped"] == 1
    assert report.document()["ended"] == {"end": 1}  # a cap stops nobody
    report = simulate(of(TWICE), people(ANN), {"frequency_caps": []})
    assert days(report, "sent") == {"12-01": (2,)}
    later = {
        "frequency_caps": [{"count": 1, "window": "day", "on_cap": "defer"}],
        "default_time_zone": "Europe/Berlin",
    }
    report = simulate(of(TWICE), people(ANN), later)
    assert days(report, "sent", "cap_held") == {"12-01": (1, 1), "12-02": (1, 0)}
    report = simulate(of({**TWICE, "c": {**HELLO, "obeys_caps": False}}), people(ANN))
    assert days(report, "sent") == {"12-01": (2,)}
    report = simulate(of({**TWICE, "a": {**TWICE["a"], "counts_toward_caps": False}}), people(ANN))
    assert days(report, "sent") == {"12-01": (2,)}


def test_the_channels_of_a_message_are_one_message_to_the_caps():
    both = {"type": "message", "channels": ["email", "sms"], "class": "marketing"}
    report = simulate(of({"a": both}), people({**ANN, "phone": "+49301234567"}))
    assert report.document()["calendar"][0]["channels"] == {"email": 1, "sms": 1}
    report = simulate(of({"a": both}), people(ANN))
    assert report.document()["skipped"] == {"no_address": 1}


def test_whoever_unsubscribes_gets_no_marketing_any_more():
    rates = Assumptions(0, 0, 1, 0, 1, {})
    nodes = {"a": {**HELLO, "next": "b"}, "b": {"type": "delay", "for": "10 days", "next": "c"}, "c": HELLO}
    report = simulate(of(nodes), people(ANN), rates=rates)
    assert report.document()["skipped"] == {"suppressed": 1}
    report = simulate(of({**nodes, "c": {**HELLO, "class": "transactional"}}), people(ANN), rates=rates)
    assert report.document()["totals"]["sent"] == 2
    report = simulate(of(nodes, exit=[{"event": "unsubscribed"}]), people(ANN), rates=rates)
    assert report.document()["ended"] == {"unsubscribed": 1}


@pytest.mark.req("BR-011", "FR-P3-011")
def test_consent_is_asked_for_where_the_leads_say_something_about_it():
    given, none, revoked = {**ANN, "consent": "given"}, ANN, {**ANN, "consent": "withdrawn"}
    report = simulate(of({"a": HELLO}), people(given, none, revoked, {"email": "u@example.org", "country": "US"}))
    assert report.document()["skipped"] == {"consent_missing": 1, "objected": 1}
    assert report.document()["totals"]["sent"] == 2
    assert "consent_unknown" not in {each.code for each in report.warnings}
    assert "consent_unknown" in {each.code for each in simulate(of({"a": HELLO}), people(none)).warnings}


def test_effects_change_the_leads_or_are_counted():
    nodes = {
        "a": {"type": "update_lead", "set": {"metadata.plan": "pro", "locale": "de"}, "next": "b"},
        "b": {"type": "add_to_segment", "segment": "warm", "next": "c"},
        "c": {"type": "score", "points": 60, "next": "d"},
        "d": {"type": "score", "points": 3, "score": "fit", "next": "e"},
        "e": {"type": "webhook", "url": "https://example.com", "next": "f"},
        "f": {"type": "action", "action": "call", "next": "g"},
        "g": {"type": "remove_from_segment", "segment": "cold", "next": "h"},
        "h": LATER,
    }
    (ann,) = leads = people(ANN)
    report = simulate(of(nodes), leads)
    assert (ann.record["metadata"], ann.record["locale"], ann.record["segments"]) == ({"plan": "pro"}, "de", {"warm"})
    assert (ann.record["score"], ann.record["scores"]) == (60, {"score": 60, "fit": 3})
    assert report.document()["effects"] == {"action call": 1, "webhook": 1}
    leaves = simulate(of(nodes, exit=[{"when": "score > 50", "reason": "warm"}]), people(ANN))
    assert leaves.document()["ended"] == {"warm": 1}


def test_approvals_are_answered_at_their_rate():
    node_ = {
        "type": "approval",
        "by": "sales",
        "approved": "yes",
        "rejected": "no",
        "timeout": {"after": "2 days", "to": "no"},
    }
    nodes = {"a": node_, "yes": {"type": "exit", "reason": "yes"}, "no": {"type": "exit", "reason": "no"}}
    assert simulate(of(nodes), people(ANN)).document()["ended"] == {"yes": 1}
    assert simulate(of(nodes), people(ANN), rates=read_rates(["approvals=0"])).document()["ended"] == {"no": 1}


def test_an_entry_cap_and_a_filter_keep_people_out():
    entry = {"filter": "country == 'DE'", "cap": {"count": 1, "per": "1 day"}}
    report = simulate(of({"a": LATER}, entry=entry), people(ANN, ANN, {"country": "US"}))
    assert (report.document()["entered"], report.document()["refused"]) == (1, {"cap": 1, "filter": 1})
    assert report.document()["going_on"] == 1


def test_days_are_those_of_the_tenants_clock():
    start = datetime(2026, 12, 1, 23, 30, tzinfo=UTC)
    report = simulate(of({"a": HELLO}), people(ANN), {"default_time_zone": "Europe/Berlin"}, start=start, days=2)
    assert [day["date"] for day in report.document()["calendar"]] == ["2026-12-02", "2026-12-03", "2026-12-04"]
    assert [*days(report, "sent")] == ["12-02"]


def test_costs_are_exact_and_rounded_once():
    rates = Assumptions(0, 0, 0, 0, 1, {}, {"email": 83, "sms": 7_000})
    report = simulate(of({"a": HELLO}), [person_of(n, ANN, START, "UTC") for n in range(30)], rates=rates)
    assert report.cost_minor() == {"email": 2, "sms": 0}  # 2.49


def test_warnings_say_what_nobody_can_know():
    document = of(
        {"a": {**HELLO, "next": "b"}, "b": {"type": "action", "action": "call"}},
        goals=[{"id": "g", "event": "order_placed"}],
    )
    codes = {each.code for each in simulate(document, people(ANN)).warnings}
    assert codes == {"templates_unread", "no_rate", "actions_counted", "consent_unknown"}
    assert "no_rate" not in {
        each.code for each in simulate(document, people(ANN), rates=read_rates(["order_placed=0"])).warnings
    }


def test_goals_are_counted_and_an_event_that_somebody_does_moves_a_run():
    rates = read_rates(["order_placed=1", "unsubscribes=0", "failures=0"])
    report = simulate(WELCOME, people(*[ANN] * 20), rates=rates)
    document = report.document()
    assert document["goals"]["bought"] == document["entered"]
    assert document["ended"]["goal:bought"] > 0


def test_rates_are_shares_of_names():
    found = read_rates(["clicks=0.5", "conversions=0.25", "order_placed=1"])
    assert (found.clicks, found.events) == (0.5, {"conversion": 0.25, "order_placed": 1})
    with pytest.raises(ValidationError) as caught:
        read_rates(["clicks", "opens=2", "Nope=0.1", "failures=0.1"])
    assert [each.code for each in caught.value.problems] == ["not_a_share"] * 3


def test_made_up_leads_are_the_same_for_the_same_seed():
    first, again = ([each.record for each in made_up(200, "5", START, "UTC")] for _ in range(2))
    assert first == again
    assert first != [each.record for each in made_up(200, "6", START, "UTC")]
    assert {each["country"] for each in first} >= {"US", "DE", "GB"}
    assert all(ZoneInfo(each["time_zone"]) for each in first)


def test_the_progress_is_told_by_days():
    told = []
    pacing = Pacing.of({})
    document = of({"a": {"type": "delay", "for": "5 days", "next": "b"}, "b": HELLO})
    World(read_journey(document), Period(START, 30, UTC_ZONE), pacing, NOBODY).run(people(ANN), told.append)
    assert told[0] == 5


def test_charts_are_well_formed_and_show_what_was_counted():
    name = "<Wel & come>\x1b[1m"
    document = {**WELCOME, "name": name, "nodes": {**WELCOME["nodes"], "thanks": {**LATER, "next": "hello"}}}
    document["goals"] = [{"id": "b", "event": "order_placed", "where": "a < 3"}]
    report = simulate(document, made_up(50, "0", START, "UTC"), days=3)
    for draw in (calendar_chart, journey_diagram):
        picture = ET.fromstring(draw(report))
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert f"message: {node(report, 'hello')['came']} came, {node(report, 'hello')['sent']} sent" in texts
    assert {"hello", "wait", "split", "again", "thanks", "end"} <= set(texts)


def test_a_chart_of_nothing_is_a_chart():
    report = simulate(of({"a": {"type": "exit"}}, entry={"filter": "country == 'XX'"}), people(ANN))
    assert ET.fromstring(calendar_chart(report)) is not None
    assert ET.fromstring(journey_diagram(report)) is not None


def test_each_node_stands_below_those_that_lead_to_it():
    layout = arrange(read_journey(WELCOME))
    order = [layout.boxes[name].y for name in ("hello", "wait", "split", "again", "thanks", "end")]
    assert order == sorted(order)
    assert len(set(order)) == 6


@pytest.mark.slow
@pytest.mark.no_cover
def test_ten_thousand_leads_through_thirty_days_take_seconds():
    began = time.perf_counter()
    report = simulate(WELCOME, made_up(10_000, "0", START, "UTC"), NIGHT, read_rates([]))
    assert report.tally.entered > 8_500
    assert time.perf_counter() - began < 30  # about three on a quiet machine


def test_leads_come_with_their_dates_or_with_the_first_round():
    hello = {"a": {**HELLO, "class": "transactional"}}
    dated = {"triggers": [{"on": "date", "field": "born", "every": "year", "at": "10:00"}]}
    journey = of(hello, entry=dated, fields={"born": "date"})
    (ann,) = leads = people(ANN)
    ann.record["metadata"] = {"born": "1990-12-03"}
    sent = {day["date"] for day in simulate(journey, leads).document()["calendar"] if day["sent"] + day["failed"]}
    assert sent == {"2026-12-03"}
    assert simulate(journey, people(ANN)).document()["entered"] == 0
    weekly = {"triggers": [{"on": "schedule", "segment": "warm", "recurrence": {"cron": "0 10 * * sat"}}]}
    sent = {
        day["date"]
        for day in simulate(of(hello, entry=weekly), people(ANN)).document()["calendar"]
        if day["sent"] + day["failed"]
    }
    assert sent == {"2026-12-05"}
