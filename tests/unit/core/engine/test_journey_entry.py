"""Who comes into a journey and who does not, with the reason (BEHAVIOUR.md 5.1, Entry and Re-entry)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nexus_marketing.core.engine.journey_entry import (
    Admitted,
    Arrival,
    Entered,
    Past,
    Refusal,
    begin,
    columns_read,
    enter,
    triggers_for,
)
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys import RunState, TriggerKind
from nexus_marketing.core.journeys.runs import CancelMessages, Run

pytestmark = pytest.mark.req("FR-P3-010", "FR-P3-011")

NOW = datetime(2026, 3, 2, 20, tzinfo=UTC)
DAY = timedelta(days=1)


def journey_of(entry=None, **parts):
    nodes = {"a": {"type": "delay", "for": "1 day"}}
    return read_journey({"id": "j", "nodes": nodes, **({"entry": entry} if entry else {}), **parts})


def come(entry=None, record=None, event=None, now=NOW, lead="7", **past):
    journey = journey_of(entry)
    arrival = Arrival("new", lead, journey.entry.triggers[0], event or {})
    return enter(journey, arrival, LeadFacts({"id": 7, **(record or {})}, "Europe/Berlin"), Past(**past), now)


def run_of(number=1, **values):
    return Run(f"r{number}", "j", "d", "7", NOW - DAY, "a", RunState.WAITING, wake_at=NOW + DAY, **values)


def test_whoever_nothing_keeps_out_comes_in():
    found = come(entries=0)
    assert isinstance(found, Entered)
    assert (found.run.id, found.run.state, found.run.node, found.run.wake_at) == ("new", RunState.READY, "a", NOW)
    assert (found.run.sequence, found.replaced, found.history[0].detail["trigger"]) == (1, (), "api")


ALWAYS = {"reentry": {"policy": "always"}}
INTERVAL = {"reentry": {"policy": "after_interval", "interval": "1 day"}}
CALENDAR = {"reentry": {"policy": "after_interval", "calendar_days": 1}}
TOKYO = {"reentry": {"policy": "after_interval", "calendar_days": 1, "zone": "Asia/Tokyo"}}
EVENING = datetime(2026, 3, 1, 21, tzinfo=UTC)  # 22:00 in Berlin, the next day in Tokyo


@pytest.mark.parametrize(
    ("entry", "past", "refusal"),
    [
        (None, {"is_open": False}, Refusal.CLOSED),
        (None, {"is_seen": True}, Refusal.DUPLICATE),
        ({"filter": "country == 'DE'"}, {}, Refusal.FILTER),
        (None, {"entries": 1}, Refusal.REENTRY),
        ({"reentry": {"policy": "never"}}, {"entries": 1}, Refusal.REENTRY),
        ({"reentry": {"policy": "after_exit"}}, {"entries": 1, "runs": (run_of(),)}, Refusal.REENTRY),
        ({"reentry": {"policy": "after_exit"}}, {"entries": 1}, None),
        (INTERVAL, {"entries": 1, "last_entered_at": NOW - DAY + timedelta(seconds=1)}, Refusal.TOO_SOON),
        (INTERVAL, {"entries": 1, "last_entered_at": NOW - DAY}, None),
        (INTERVAL, {"entries": 1}, None),
        # Exactly a day is not over, a calendar day is.
        (INTERVAL, {"entries": 1, "last_entered_at": EVENING}, Refusal.TOO_SOON),
        (CALENDAR, {"entries": 1, "last_entered_at": EVENING}, None),
        (TOKYO, {"entries": 1, "last_entered_at": NOW - timedelta(hours=4)}, Refusal.TOO_SOON),
        (ALWAYS, {"entries": 9, "runs": (run_of(),)}, Refusal.CONCURRENCY),
        (ALWAYS, {"entries": 9}, None),
        ({**ALWAYS, "concurrency": {"policy": "parallel", "most": 2}}, {"entries": 1, "runs": (run_of(),)}, None),
        (
            {**ALWAYS, "concurrency": {"policy": "parallel", "most": 2}},
            {"entries": 2, "runs": (run_of(1), run_of(2))},
            Refusal.CONCURRENCY,
        ),
        ({"cap": {"count": 10, "per": "1 day"}}, {"recent": 10}, Refusal.CAP),
        ({"cap": {"count": 10, "per": "1 day"}}, {"recent": 9}, None),
        ({"holdout": 100}, {}, Refusal.HOLDOUT),
    ],
)
def test_the_first_thing_that_keeps_somebody_out_is_the_reason(entry, past, refusal):
    found = come(entry, **past)
    assert (found if refusal is not None else isinstance(found, Entered)) == (refusal or True)


def test_the_same_order_starts_one_run_only():
    entry = {**ALWAYS, "key": "event.metadata.order"}
    event = {"type": "order_placed", "metadata": {"order": 12}}
    found = come(entry, event=event, entries=3, keys=frozenset({"11"}))
    assert (found.run.key, found.run.sequence, found.run.event) == ("12", 4, event)
    assert come(entry, event=event, entries=4, keys=frozenset({"11", "12"})) is Refusal.KEY_USED
    assert come(entry, event={"type": "order_placed"}) is Refusal.KEY_MISSING


def test_a_restart_ends_the_old_run_with_what_it_had_not_sent():
    old = run_of(open=("email",), visit=3)
    found = come({**ALWAYS, "concurrency": {"policy": "restart"}}, entries=1, runs=(old,))
    (ended,) = found.replaced
    assert (ended.before, ended.run.state, ended.run.reason) == (old.version, RunState.EXITED, "restarted")
    assert (ended.timer, ended.effects) == (None, (CancelMessages(3, "restarted"),))
    assert (found.run.sequence, found.run.is_live) == (2, True)


def test_a_filter_may_read_the_event_that_came():
    entry = {"filter": "event.metadata.total > 100"}
    assert isinstance(come(entry, event={"type": "x", "metadata": {"total": 101}}), Entered)
    assert come(entry, event={"type": "x", "metadata": {"total": 1}}) is Refusal.FILTER


def test_a_holdout_is_as_large_as_it_says_and_stays():
    journey = journey_of({"holdout": 10})

    def held():
        found = set()
        for lead in map(str, range(4_000)):
            arrival = Arrival("new", lead, journey.entry.triggers[0])
            if enter(journey, arrival, LeadFacts({}), Past(), NOW) is Refusal.HOLDOUT:
                found.add(lead)
        return found

    first = held()
    assert abs(len(first) / 4_000 - 0.1) < 0.02
    assert first == held()


@pytest.mark.parametrize(
    ("entry", "columns"),
    [
        (None, set()),
        ({"filter": "country == 'US' AND metadata.plan == 'pro'"}, {"country", "metadata"}),
        (
            {"filter": "in_segment('vip') OR NOT email ends_with '@x.org'", "key": "external_id"},
            {"email", "external_id"},
        ),
        ({"key": "event.order"}, {"event"}),
    ],
)
def test_the_decision_reads_no_column_but_those_it_names(entry, columns):
    assert columns_read(journey_of(entry)) == columns


def test_runs_that_begin_by_one_occasion_differ_in_nothing_but_whose_they_are():
    journey = journey_of({"reentry": {"policy": "always"}})
    arrivals = [Arrival("", lead, journey.entry.triggers[0], {"type": "x"}) for lead in "78"]
    (one, told), (other, said) = (
        begin(journey, arrival, Admitted(number, f"k{number}"), NOW) for number, arrival in enumerate(arrivals, 1)
    )
    assert replace(one, lead_id="8", sequence=2, key="k2") == other
    assert replace(told, detail={**told.detail, "sequence": 2}) == said


def test_a_trigger_is_set_off_by_what_it_names():
    journey = journey_of(
        {
            "triggers": [
                {"on": "event", "event": "form_submitted", "where": "properties.form == 'demo'"},
                {"on": "event", "event": "form_submitted"},
                {"on": "segment_entered", "segment": "new"},
            ]
        }
    )
    demo = {"type": "form_submitted", "metadata": {"form": "demo"}}
    first, second, third = journey.entry.triggers
    assert [*triggers_for(journey, TriggerKind.EVENT, "form_submitted", demo, NOW)] == [first, second]
    assert [*triggers_for(journey, TriggerKind.EVENT, "form_submitted", {}, NOW)] == [second]
    assert [*triggers_for(journey, TriggerKind.SEGMENT_ENTERED, "new", {}, NOW)] == [third]
    assert [*triggers_for(journey, TriggerKind.SEGMENT_LEFT, "new", {}, NOW)] == []
