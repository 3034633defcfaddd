"""Contributions become a score: counted within their caps, weighed by their age, bounded, rounded.

The fold depends on nothing but the rule set, the contributions and the moment; so replaying them gives the same
score, whatever order they came in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from nexus_marketing.core.scoring.contributions import RULED, Contribution
from nexus_marketing.core.scoring.decay import Decay
from nexus_marketing.core.scoring.rule_sets import Cap, Group, Rule, RuleSet

#: Of more contributions than these the newest count.
MAX_CONTRIBUTIONS: Final = 10_000
#: Periods of caps begin at Monday 1970-01-05 00:00 UTC: days at midnight, weeks on Mondays.
_ORIGIN: Final = datetime(1970, 1, 5, tzinfo=UTC)
_DIGITS: Final = 6
#: Rounds of the search for the next change; where they do not suffice, one looks too early, never too late.
_ROUNDS: Final = 200
_NO_GROUP: Final = Group()
_MANUAL: Final = Rule("", 0, 0.0)


class Part(NamedTuple):
    """What one contribution is worth: ``counted`` after caps, ``weight`` by its age."""

    contribution: Contribution
    counted: float
    weight: float

    @property
    def present(self) -> float:
        """The points that are left of it."""
        return self.counted * self.weight


@dataclass(frozen=True, slots=True)
class Fold:
    """A score at a moment. ``total`` is before the bounds, ``groups`` are sums within theirs."""

    value: float
    total: float
    groups: dict[str, float]
    parts: Sequence[Part]
    next_change_at: datetime | None


def fold(rules: RuleSet, standing: Sequence[Contribution], now: datetime) -> Fold:
    """The score that contributions make at a moment, and when time alone will change it.

    Args:
        rules: the version in force.
        standing: contributions that were not taken back, in the order of their moments.
        now: the moment (UTC).
    """
    active = {(rule.key, rule.since): rule for rule in rules.rules}
    counted = [each for each in standing if each.kind not in RULED or (each.rule, each.version) in active]
    counter = _Counter(rules)
    moving = _Moving(rules)
    parts: list[Part] = []
    step: float | None = None
    for each in counted[-MAX_CONTRIBUTIONS:]:
        rule = active.get((each.rule, each.version), _MANUAL)
        decay = rules.decay if rule is _MANUAL else rule.decay
        age = (now - each.at).total_seconds()
        points, weight = counter.count(rule, each), decay.factor(age)
        parts.append(Part(each, points, weight))
        if not points:
            continue
        moving.add(rule.group, decay, points * weight, is_aging=age >= 0)
        due = decay.next_step(age) if decay.steps or (age < 0 and decay.half_life_seconds) else None
        step = due if step is None or (due is not None and due < step) else step
    change = moving.next_change()
    soonest = min((each for each in (step, change) if each is not None), default=None)
    total, groups = moving.total(0.0), moving.groups()
    return Fold(moving.rounded(total), total, groups, parts, _later(now, soonest))


def rounded(rules: RuleSet, total: float) -> float:
    """A total within the bounds, on the grid of the rule set's precision (the nearest, halves up)."""
    bounded = _clamp(total, rules.low, rules.high)
    if rules.precision is None:
        return round(bounded, _DIGITS) + 0.0
    return round(math.floor(bounded / rules.precision + 0.5) * rules.precision, _DIGITS) + 0.0


@dataclass(slots=True)
class _Counter:
    """How much of each contribution its caps let through, in the order of moments."""

    rules: RuleSet
    used: dict[tuple[str, str, int], float] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def count(self, rule: Rule, contribution: Contribution) -> float:
        if rule is _MANUAL:
            return contribution.points
        if rule.once:
            if rule.key in self.met:
                return 0.0
            self.met.add(rule.key)
        group = self.rules.groups.get(rule.group, _NO_GROUP)
        if rule.cap is None and group.cap is None:
            return contribution.points
        slots = [
            ((name, key, _period(cap, contribution.at)), cap.points)
            for name, key, cap in (("rule", rule.key, rule.cap), ("group", rule.group, group.cap))
            if cap is not None
        ]
        points = contribution.points
        for slot, most in slots:
            used = self.used.get(slot, 0.0)
            points = _clamp(used + points, -most, most) - used
        for slot, _ in slots:
            self.used[slot] = self.used.get(slot, 0.0) + points
        return points


def _period(cap: Cap, at: datetime) -> int:
    if cap.period_seconds is None:
        return 0
    return math.floor((at - _ORIGIN).total_seconds() / cap.period_seconds)


@dataclass(slots=True)
class _Moving:
    """Sums by group: what stays, and what shrinks, by half-life; the score as a function of the seconds to come."""

    rules: RuleSet
    staying: dict[str, float] = field(default_factory=dict)
    shrinking: dict[tuple[str, float], float] = field(default_factory=dict)

    def add(self, group: str, decay: Decay, points: float, *, is_aging: bool) -> None:
        if decay.half_life_seconds is not None and is_aging:
            key = (group, decay.half_life_seconds)
            self.shrinking[key] = self.shrinking.get(key, 0.0) + points
            self.staying.setdefault(group, 0.0)
        else:
            self.staying[group] = self.staying.get(group, 0.0) + points

    def groups(self, seconds: float = 0.0) -> dict[str, float]:
        sums = dict(self.staying)
        for (name, half_life), points in self.shrinking.items():
            sums[name] += points * 0.5 ** min(seconds / half_life, 1_000.0)
        bounds = self.rules.groups
        return {
            name: _clamp(points, bounds[name].low, bounds[name].high) if name in bounds else points
            for name, points in sums.items()
        }

    def total(self, seconds: float) -> float:
        return math.fsum(self.groups(seconds).values())

    def rounded(self, total: float) -> float:
        return rounded(self.rules, total)

    def next_change(self) -> float | None:
        """The first second at which the rounded score is another one.

        No part moves faster than its own rate, and bounds only hold it back; so one may safely go as far as
        the distance to the edge of the present value takes at the present rate, again and again.
        """
        if not self.shrinking:
            return None
        seconds, half_grid = 0.0, (self.rules.precision or 10.0**-_DIGITS) / 2
        value = self.rounded(self.total(0.0))
        for _ in range(_ROUNDS):
            total = self.total(seconds)
            if self.rounded(total) != value:
                return max(seconds, 1.0)
            gap = self._gap(total, value, half_grid)
            left = [
                (abs(points) * 0.5 ** min(seconds / life, 1_000.0), life)
                for (_, life), points in self.shrinking.items()
            ]
            if math.fsum(points for points, _ in left) < gap:
                return None
            rate = math.fsum(points * math.log(2) / life for points, life in left)
            seconds += max(gap / rate, 1.0)
        return seconds

    def _gap(self, total: float, value: float, half_grid: float) -> float:
        """How far the total may move before another value shows; beyond the bounds there is more room."""
        down, up = total - (value - half_grid), value + half_grid - total
        low, high = self.rules.low, self.rules.high
        if high is not None and total > high:
            return max(down, 0.0)
        if low is not None and total < low:
            return max(up, 0.0)
        return max(min(down, up), 0.0)


def _clamp(value: float, low: float | None, high: float | None) -> float:
    if low is not None and value < low:
        return float(low)
    return float(high) if high is not None and value > high else value


def _later(now: datetime, seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        # Up, never down: at that moment it has changed.
        return now + timedelta(seconds=math.ceil(seconds * 1e3) / 1e3)
    except OverflowError:
        return None
