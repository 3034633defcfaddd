"""What a simulation foretells is what the engine then does, whatever the journey, the rules, the people and their clocks (FR-P3-011)."""

import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_marketing.core.engine.simulation import Assumptions
from tests.common import servers
from tests.functional.delivery.foretold import Outcome, Play, differences, foretold, real_life

# The engine is traced elsewhere; here all of it runs, again and again.
pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.req("US-020", "FR-P3-011", "BR-001", "BR-012", "BR-014", "REL-006"),
]

#: Of the journeys that are tried by hand.
SHARE = int(os.environ.get("NEXUS_EXAMPLES", "100")) / 100
#: Around the nights in which clocks change: a gap and a fold in Berlin, in New York, and of half an hour on Lord Howe.
STARTS = (
    datetime(2026, 3, 27, 11, 40, tzinfo=UTC),
    datetime(2026, 10, 23, 21, 15, tzinfo=UTC),
    datetime(2026, 3, 7, 4, 5, tzinfo=UTC),
    datetime(2026, 10, 31, 23, 30, tzinfo=UTC),
    datetime(2026, 10, 2, 18, 0, tzinfo=UTC),
    datetime(2026, 6, 1, 0, 0, tzinfo=UTC),
)
_PEOPLE: tuple[dict[str, Any], ...] = (
    {"country": "DE", "time_zone": "Europe/Berlin", "phone": "+4930111111", "score": 10, "consent": "given"},
    {"country": "US", "phone": "+15552222", "score": 30, "attributes": {"due": "2026-03-29", "plan": "pro"}},
    {"country": "AU", "time_zone": "Australia/Lord_Howe", "phone": "+6133333", "score": 60},
    {"country": "US", "time_zone": "America/New_York", "score": 85, "attributes": {"due": "2026-11-01T06:30:00Z"}},
    {"country": "US", "time_zone": "America/New_York", "email": None, "phone": "+15555555", "score": 0},
    {"country": "FR", "phone": "+3366666", "score": 5, "consent": "withdrawn"},
    {"country": "US", "phone": "+777777", "score": 50, "attributes": {"plan": "free"}},
)
PEOPLE = tuple({"email": f"person{n}@example.org", **each} for n, each in enumerate(_PEOPLE, 1))
CAPS: tuple[dict[str, Any], ...] = (
    {},
    {"frequency_caps": []},
    {"frequency_caps": [{"count": 1, "window": "day", "on_cap": "defer"}]},
    {"frequency_caps": [{"count": 2, "window": "40 hours"}, {"count": 1, "window": "day", "channel": "sms"}]},
    {"frequency_caps": [{"count": 2, "window": "week", "on_cap": "defer", "defer_max": "6 days"}]},
)
QUIET: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"from": "21:00", "to": "08:00", "spread": "1 second"}],
    [{"from": "02:15", "to": "02:45", "spread": "1 second", "channel": "email"}],
    [{"from": "12:00", "to": "18:00", "on_quiet": "skip", "days": ["sat", "sun"], "spread": "1 second"}],
    [{"from": "22:00", "to": "06:00", "max_hold": "5 hours", "spread": "1 second"}],
)
DELAYS: tuple[dict[str, Any], ...] = (
    {"for": "1 hour"},
    {"for": "24 hours"},
    {"for": "1 day"},
    {"days": 1, "at": "02:30"},
    {"days": 0, "at": "01:15"},
    {"weekdays": ["sat", "sun"], "at": "02:10"},
    {"days": 1, "at": "02:30", "zone": "Europe/Berlin"},
    {"until": "metadata.due", "offset": "-1 day", "at": "02:30"},
    {"until": "metadata.due", "if_past": "exit", "if_missing": {"skip_to": "end"}},
)
OCCASIONS: tuple[dict[str, Any], ...] = (
    {"event": "ordered"},
    {"event": "email_clicked", "after_arrival": True},
    {"event": "email_opened"},
    {"when": "score > 50"},
    {"when": "count(email_clicked) > 0 within 2 days"},
    {"when": "in_segment('vip')"},
    {"when": "metadata.plan == 'pro'"},
    {"when": "created_at < now() - 2 days"},
)
REENTRY: tuple[dict[str, Any], ...] = (
    {},
    {"reentry": {"policy": "always"}},
    {"reentry": {"policy": "after_exit"}, "cooldown": "3 hours"},
    {"reentry": {"policy": "always"}, "concurrency": {"policy": "restart"}},
    {"reentry": {"policy": "after_interval", "calendar_days": 1}, "concurrency": {"policy": "parallel", "most": 2}},
)
TRIGGERS: tuple[list[dict[str, Any]], ...] = (
    [{"on": "api"}],
    [{"on": "api"}, {"on": "event", "event": "ordered"}],
    [{"on": "date", "field": "metadata.due", "at": "02:30", "offset": "-1 day"}],
    [{"on": "schedule", "segment": "everybody", "recurrence": {"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}}],
    [{"on": "api"}, {"on": "date", "field": "metadata.due", "at": "01:30"}],
)


@st.composite
def _node(draw: st.DrawFn, later: list[str], earlier: list[str]) -> dict[str, Any]:
    to = draw(st.sampled_from(later))
    kinds = (
        "message",
        "message",
        "message",
        "delay",
        "wait",
        "branch",
        "split",
        "score",
        "set",
        "segment",
        "back",
        "exit",
    )
    match draw(st.sampled_from(kinds)):
        case "message":
            return draw(_message(to, later))
        case "delay":
            return {"type": "delay", **draw(st.sampled_from(DELAYS)), "next": to}
        case "wait":
            ways = draw(st.lists(st.sampled_from(OCCASIONS), min_size=1, max_size=2, unique_by=str))
            until = [{**way, "to": draw(st.sampled_from(later))} for way in ways]
            return {"type": "wait_until", "until": until, "timeout": {"after": "30 hours", "to": to}}
        case "branch":
            ways = [{key: value for key, value in draw(st.sampled_from(OCCASIONS)).items() if key != "after_arrival"}]
            branches = [{**way, "to": draw(st.sampled_from(later))} for way in ways]
            return {"type": "branch", "branches": branches, "else": to}
        case "split":
            other = {"name": "other", "weight": 40, "to": draw(st.sampled_from(later))}
            return {"type": "split", "ways": [{"name": "one", "weight": 60, "to": to}, other]}
        case "score":
            return {"type": "score", "points": 15, "next": to}
        case "set":
            return {"type": "update_lead", "set": {"metadata.plan": draw(st.sampled_from(["pro", "free"]))}, "next": to}
        case "segment":
            return {
                "type": draw(st.sampled_from(["add_to_segment", "remove_from_segment"])),
                "segment": "vip",
                "next": to,
            }
        case "back" if earlier:
            return {"type": "jump", "to": draw(st.sampled_from(earlier)), "visits": {"most": 2, "to": to}}
    return {"type": "exit", "reason": "seen"}


@st.composite
def _message(draw: st.DrawFn, to: str, later: list[str]) -> dict[str, Any]:
    names = draw(st.sampled_from([["email"], ["email"], ["sms"], ["email", "sms"], ["sms", "push", "email"]]))
    channels = {name: {"template": "email" if name == "email" else "text"} for name in names}
    message: dict[str, Any] = {"type": "message", "channels": channels, "next": to}
    message["class"] = draw(st.sampled_from(["marketing", "marketing", "transactional"]))
    message["mode"] = draw(st.sampled_from(["all", "first"]))
    options: list[dict[str, Any]] = [
        {},
        {},
        {"obeys_caps": False},
        {"obeys_caps": True},
        {"counts_toward_caps": False},
        {"obeys_quiet_hours": True},
        {"quiet_hours": [{"from": "01:00", "to": "03:00", "spread": "1 second"}]},
        {"on": {"skipped": draw(st.sampled_from(later))}},
        {"require_sent": True},
    ]
    return {**message, **draw(st.sampled_from(options))}


@st.composite
def plays(draw: st.DrawFn) -> Play:
    """A journey of some nodes that lead onward, and back over limited visits with a day between."""
    names = [f"n{number}" for number in range(draw(st.integers(3, 7)))]
    nodes: dict[str, Any] = {}
    for number, name in enumerate(names):
        later = [*names[number + 1 :], "end"]
        nodes[name] = draw(_node(later, names[:number]) if number else _message(later[0], later))
    # A circle takes time, and everything is reached.
    nodes = {"rest": {"type": "delay", "for": "7 hours", "next": names[0]}, **nodes}
    for node in nodes.values():
        if node["type"] == "jump":
            node["to"] = "rest"
    ways = [{"name": name, "weight": 2, "to": name} for name in names]
    front = {"type": "split", "ways": [*ways, {"name": "usual", "weight": 100 - 2 * len(ways), "to": "rest"}]}
    entry = {"triggers": draw(st.sampled_from(TRIGGERS)), **draw(st.sampled_from(REENTRY))}
    goals = [
        {"id": "g", "event": "ordered", "effect": draw(st.sampled_from(["record", "exit", {"jump_to": names[-1]}]))}
    ]
    exits = [{"event": "unsubscribed"}, {"when": "score > 90", "reason": "hot"}, {"when": "in_segment('vip')"}]
    document = {
        "id": "way",
        "start": "front",
        "entry": {**entry, "holdout": draw(st.sampled_from([0, 0, 20]))},
        "goals": draw(st.sampled_from([[], goals])),
        "exit": draw(st.lists(st.sampled_from(exits), max_size=2, unique_by=str)),
        "quiet_hours": draw(st.sampled_from(QUIET)),
        "nodes": {"front": front, **nodes},
    }
    tenant = {**draw(st.sampled_from(CAPS)), "quiet_hours": draw(st.sampled_from(QUIET))}
    tenant["default_time_zone"] = draw(st.sampled_from(["UTC", "America/New_York"]))
    rates = Assumptions(0.6, 0.4, draw(st.sampled_from([0.0, 0.3])), 0.0, 1.0, {"ordered": 0.4})
    return Play(document, tenant, PEOPLE, draw(st.sampled_from(STARTS)), 6, rates, str(draw(st.integers(0, 9))))


def outcomes(run: servers.Run, folder: Path, play: Play) -> tuple[Outcome, Outcome]:
    """What was foretold, and what came."""
    with real_life(run, folder, play) as life:
        told, answers = foretold(play)
        return told, life.live(answers)


@settings(max_examples=max(2, round(6 * SHARE)), suppress_health_check=list(HealthCheck))
@given(play=plays())
def test_a_simulation_foretells_what_is_sent_and_who_gets_how_far(servers_run: servers.Run, play: Play) -> None:
    with TemporaryDirectory() as folder:
        told, lived = outcomes(servers_run, Path(folder), play)
    assert differences(told, lived) == []
