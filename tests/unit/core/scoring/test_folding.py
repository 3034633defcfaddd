"""Scores as folds: the same as counting by hand, whatever the order, never above a cap, never late."""

import itertools
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_marketing.core.scoring import Contribution, Ledger, RuleSet, fold, parse_rule_set
from nexus_marketing.core.scoring.contributions import Cause
from nexus_marketing.core.scoring.folding import MAX_CONTRIBUTIONS

pytestmark = pytest.mark.req("FR-P2-010")

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def rules(*given_rules: dict, **rest) -> RuleSet:
    document = {"rules": [{"key": f"r{n}", "since": 1, **rule} for n, rule in enumerate(given_rules)], **rest}
    return parse_rule_set(document)


def visit(points: float, **more) -> dict:
    return {"event": "page_visited", "points": points, **more}


def given_points(points: float, at: datetime, *, rule: int = 0, cause: int = 0, version: int = 1) -> Contribution:
    return Contribution("event", f"r{rule}", version, cause, 0, points, at)


def test_points_add_up():
    found = fold(rules(visit(5)), [given_points(5, NOW, cause=n) for n in range(3)], NOW)
    assert (found.value, found.next_change_at) == (15.0, None)


def test_points_of_other_versions_of_a_rule_do_not_count():
    found = fold(rules(visit(5)), [given_points(5, NOW, version=2), given_points(5, NOW, rule=9)], NOW)
    assert (found.value, found.parts) == (0.0, [])


def test_half_of_it_is_left_after_a_half_life():
    decaying = rules(visit(80), decay={"half_life": "30 days"}, precision=0.01)
    assert fold(decaying, [given_points(80, NOW - 30 * DAY)], NOW).value == 40.0
    assert fold(decaying, [given_points(80, NOW - 60 * DAY)], NOW).value == 20.0


def test_steps_let_points_expire():
    steps = [{"after": "30 days", "keep": 0.5}, {"after": "90 days", "keep": 0}]
    decaying = rules(visit(10), decay={"steps": steps})
    ages = {0: 10.0, 29: 10.0, 30: 5.0, 89: 5.0, 90: 0.0, 900: 0.0}
    assert {age: fold(decaying, [given_points(10, NOW - age * DAY)], NOW).value for age in ages} == ages
    assert fold(decaying, [given_points(10, NOW - 29 * DAY)], NOW).next_change_at == NOW + DAY
    assert fold(decaying, [given_points(10, NOW - 90 * DAY)], NOW).next_change_at is None


def test_a_rule_may_age_otherwise_and_what_a_lead_is_does_not_age():
    mixed = rules(
        visit(10),
        visit(10, decay=None),
        {"when": "country == 'US'", "points": 10},
        decay={"half_life": "1 day"},
    )
    attribute = Contribution("attribute", "r2", 1, 7, 0, 10, NOW - 10 * DAY)
    parts = [given_points(10, NOW - 10 * DAY), given_points(10, NOW - 10 * DAY, rule=1), attribute]
    assert fold(mixed, parts, NOW).value == 20.0


def test_once_counts_the_first_and_the_next_when_the_first_goes():
    first = rules(visit(7, counts="once"))
    ledger = Ledger([given_points(7, NOW - DAY, cause=1), given_points(7, NOW, cause=2)])
    assert fold(first, ledger.standing(), NOW).value == 7.0
    ledger.take_back(Cause("r0", 1, 1), NOW)
    (part,) = fold(first, ledger.standing(), NOW).parts
    assert (part.contribution.cause, part.counted) == (2, 7.0)


def test_caps_hold_within_a_period_of_the_points_own_time():
    capped = rules(visit(4, cap={"points": 10, "period": "1 day"}))
    monday = [given_points(4, NOW - timedelta(hours=n), cause=n) for n in range(5)]
    sunday = [given_points(4, NOW - DAY - timedelta(hours=n), cause=10 + n) for n in range(5)]
    assert fold(capped, sorted(monday, key=lambda each: each.at), NOW).value == 10.0
    assert fold(capped, sorted([*sunday, *monday], key=lambda each: each.at), NOW).value == 20.0


def test_groups_have_bounds_and_caps_of_their_own():
    grouped = rules(
        visit(6, group="web"), visit(6, group="web"), visit(1), groups={"web": {"max": 10, "cap": {"points": 8}}}
    )
    found = fold(grouped, [given_points(6, NOW, rule=n % 2, cause=n) for n in range(4)], NOW)
    assert (found.value, found.groups) == (8.0, {"web": 8.0})


def test_a_score_keeps_within_its_bounds():
    bounded = rules(visit(60), min=0, max=100)
    assert fold(bounded, [given_points(60, NOW, cause=n) for n in range(2)], NOW).value == 100.0
    assert fold(bounded, [given_points(-60, NOW)], NOW).value == 0.0


def test_of_very_many_the_newest_count():
    many = [given_points(1, NOW - timedelta(seconds=n), cause=n) for n in range(MAX_CONTRIBUTIONS + 5, 0, -1)]
    assert fold(rules(visit(1)), many, NOW).value == MAX_CONTRIBUTIONS


def test_what_lies_ahead_counts_whole_and_begins_to_age_then():
    decaying = rules(visit(80), decay={"half_life": "1 day"})
    found = fold(decaying, [given_points(80, NOW + timedelta(minutes=3))], NOW)
    assert (found.value, found.next_change_at) == (80.0, NOW + timedelta(minutes=3))


POINTS = st.integers(-50, 50).map(float)
AGES = st.integers(-300, 200 * 86_400)
DECAYS = st.sampled_from(
    [
        None,
        {"half_life": "3 days"},
        {"half_life": "40 days"},
        {"steps": [{"after": "2 days", "keep": 0.5}, {"after": "30 days", "keep": 0}]},
    ]
)
CAPS = st.sampled_from([None, {"points": 7}, {"points": 30, "period": "1 day"}, {"points": 55, "period": "2 weeks"}])


@st.composite
def scored(draw):
    """A rule set with its document, and contributions to it in some order."""
    groups = {
        name: {
            **({"cap": cap} if (cap := draw(CAPS)) else {}),
            **({"max": draw(st.integers(0, 60))} if draw(st.booleans()) else {}),
        }
        for name in draw(st.sampled_from([[], ["web"], ["web", "mail"]]))
    }
    made = []
    for number in range(draw(st.integers(1, 4))):
        rule = {"key": f"r{number}", "since": 1, "event": "page_visited", "points": draw(POINTS)}
        if cap := draw(CAPS):
            rule["cap"] = cap
        if groups and draw(st.booleans()):
            rule["group"] = draw(st.sampled_from(sorted(groups)))
        if draw(st.booleans()):
            rule["counts"] = draw(st.sampled_from(["once", "per_occurrence"]))
        if draw(st.booleans()):
            rule["decay"] = draw(DECAYS)
        made.append(rule)
    document = {"rules": made, "groups": groups, "decay": draw(DECAYS)}
    if draw(st.booleans()):
        document |= {"min": -20, "max": 100}
    count = draw(st.integers(0, 25))
    contributions = [
        given_points(rule["points"], NOW - timedelta(seconds=draw(AGES)), rule=int(rule["key"][1:]), cause=cause)
        for cause in range(count)
        for rule in [draw(st.sampled_from(made))]
    ]
    return document, draw(st.permutations(contributions))


def seconds(text: str) -> float:
    number, unit = text.split()
    return int(number) * {"day": 86_400, "week": 7 * 86_400}[unit.rstrip("s")]


def weight(decay, age: float) -> float:
    if not decay or age <= 0:
        return 1.0
    if "half_life" in decay:
        return 0.5 ** (age / seconds(decay["half_life"]))
    kept = [step["keep"] for step in decay["steps"] if age >= seconds(step["after"])]
    return kept[-1] if kept else 1.0


def counted_by_hand(document, contributions, now) -> float:
    """The same from the document itself, without any of the code under test."""
    by_key = {rule["key"]: rule for rule in document["rules"]}
    used, met, sums = {}, set(), {}
    for each in sorted(contributions, key=lambda each: (each.at, each.kind, each.rule, each.cause)):
        rule = by_key[each.rule]
        points = each.points
        if rule.get("counts") == "once":
            if each.rule in met:
                continue
            met.add(each.rule)
        group = document["groups"].get(rule.get("group"), {})
        slots = []
        for owner, cap in ((each.rule, rule.get("cap")), (f"group {rule.get('group')}", group.get("cap"))):
            if cap:
                since = (each.at - datetime(1970, 1, 5, tzinfo=UTC)).total_seconds()
                slots.append(((owner, math.floor(since / seconds(cap["period"])) if "period" in cap else 0), cap))
        for slot, cap in slots:
            before = used.get(slot, 0.0)
            points = min(max(before + points, -cap["points"]), cap["points"]) - before
        for slot, cap in slots:
            used[slot] = used.get(slot, 0.0) + points
            assert abs(used[slot]) <= cap["points"]
        decay = rule["decay"] if "decay" in rule else document["decay"]
        name = rule.get("group", "")
        sums.setdefault(name, []).append(points * weight(decay, (now - each.at).total_seconds()))
    total = 0.0
    for name, parts in sums.items():
        total += min(math.fsum(parts), document["groups"].get(name, {}).get("max", math.inf))
    return min(max(total, document.get("min", -math.inf)), document.get("max", math.inf))


@given(scored())
def test_a_fold_is_what_one_counts_by_hand(case):
    document, contributions = case
    understood = parse_rule_set(document)
    found = fold(understood, Ledger(contributions).standing(), NOW)
    by_hand = counted_by_hand(document, contributions, NOW)
    assert abs(found.value - by_hand) <= (understood.precision or 1e-6) / 2 + 1e-6


@given(scored())
def test_caps_are_never_exceeded(case):
    document, contributions = case
    understood = parse_rule_set(document)
    by_key = {rule.key: rule for rule in understood.rules}
    spent = {}
    for part in fold(understood, Ledger(contributions).standing(), NOW).parts:
        rule = by_key[part.contribution.rule]
        group = understood.groups.get(rule.group)
        for owner, cap in ((rule.key, rule.cap), (rule.group, group and group.cap)):
            if cap is not None:
                since = (part.contribution.at - datetime(1970, 1, 5, tzinfo=UTC)).total_seconds()
                slot = (owner, cap, math.floor(since / cap.period_seconds) if cap.period_seconds else 0)
                spent[slot] = spent.get(slot, 0.0) + part.counted
    assert all(abs(points) <= slot[1].points + 1e-9 for slot, points in spent.items())


@given(scored())
@settings(max_examples=60)
def test_between_two_changes_nothing_changes(case):
    """One who looks only when told to shows at every moment what one who looks always shows."""
    document, contributions = case
    understood = parse_rule_set(document)
    standing = Ledger(contributions).standing()
    shown, at = fold(understood, standing, NOW), NOW
    for hours in itertools.chain(range(1, 48, 5), range(48, 2400, 97)):
        moment = NOW + timedelta(hours=hours)
        while shown.next_change_at is not None and shown.next_change_at <= moment:
            at = max(shown.next_change_at, at + timedelta(minutes=1))
            shown = fold(understood, standing, at)
        # It may lag behind by the shortest wait.
        true = [fold(understood, standing, moment - lag).value for lag in (timedelta(), timedelta(minutes=1))]
        assert min(true) - 1e-6 <= shown.value <= max(true) + 1e-6
