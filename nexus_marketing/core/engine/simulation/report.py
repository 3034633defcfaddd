"""What came out of a simulation: a calendar, a funnel, exits, goals and cost."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from nexus_marketing.core.engine.simulation.assumptions import Assumptions
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.journeys.graph import edges
from nexus_marketing.core.journeys.model import Journey
from nexus_marketing.core.journeys.nodes import Message, Outcome
from nexus_marketing.core.journeys.runs import HistoryLine, Run, Said

#: What a day counts beside the messages by channel.
DAY_COUNTS = ("sent", "failed", "quiet_held", "quiet_skipped", "cap_held", "cap_skipped", "skipped", "goals", "ended")


@dataclass(frozen=True, slots=True)
class Period:
    """From when until when, and by whose clock days are days."""

    start: datetime
    days: int
    zone: ZoneInfo

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.start + timedelta(days=self.days)


@dataclass(slots=True)
class Tally:
    """Counts while a simulation runs: by day, by node, by edge."""

    zone: ZoneInfo
    days: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    channels: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    nodes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    edges: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    goals: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    entered: int = 0

    def day(self, at: datetime, name: str) -> None:
        """One more on the day of a moment."""
        self.days[at.astimezone(self.zone).date()][name] += 1

    def sent(self, at: datetime, channel: str, node: str) -> None:
        """A message left."""
        day = at.astimezone(self.zone).date()
        self.days[day]["sent"] += 1
        self.channels[day][channel] += 1
        self.nodes[node]["sent"] += 1

    def line(self, line: HistoryLine) -> None:
        """A line of a run's history."""
        if line.said is Said.EXECUTED and "again" not in line.detail:
            self.nodes[line.node]["came"] += 1
        if "to" in line.detail:
            self.edges[line.node, line.detail["edge"], line.detail["to"]] += 1
        if line.said is Said.GOAL:
            self.goals[line.detail["goal"]] += 1
            self.day(line.at, "goals")
        elif line.said is Said.ENDED:
            self.ends[line.detail["reason"]] += 1
            self.nodes[line.node]["ended"] += 1
            self.day(line.at, "ended")


@dataclass(frozen=True, slots=True)
class Report:
    """A simulation's outcome; ``runs_left`` are those that go on after it."""

    journey: Journey
    period: Period
    assumptions: Assumptions
    seed: str
    leads: int
    tally: Tally
    runs_left: tuple[Run, ...]
    warnings: tuple[Problem, ...] = ()

    def document(self) -> dict[str, Any]:
        """For machines: the same for the same input and seed."""
        tally, still = self.tally, Counter(run.node for run in self.runs_left)
        return {
            "journey": {"id": self.journey.code, "name": self.journey.title, "digest": self.journey.digest},
            "from": self.period.start.isoformat(),
            "days": self.period.days,
            "time_zone": self.period.zone.key,
            "seed": self.seed,
            "leads": self.leads,
            "assumed": self.assumptions.shares(),
            "entered": tally.entered,
            "refused": _sorted(tally.refused),
            "calendar": [self._day(day) for day in self._dates()],
            "totals": {name: sum(day[name] for day in tally.days.values()) for name in DAY_COUNTS},
            "skipped": _sorted(tally.skips),
            "nodes": [self._node(name, still[name]) for name in self.journey.nodes],
            "edges": [
                {"from": a, "edge": label, "to": b, "runs": n} for (a, label, b), n in sorted(tally.edges.items())
            ],
            "ended": _sorted(tally.ends),
            "going_on": len(self.runs_left),
            "goals": {goal.id: tally.goals[goal.id] for goal in self.journey.goals},
            "effects": _sorted(tally.effects),
            "cost_minor": self.cost_minor(),
            "warnings": [{"path": each.path, "code": each.code, "message": each.message} for each in self.warnings],
        }

    def channels(self) -> Counter[str]:
        """Messages sent by channel."""
        return sum(self.tally.channels.values(), Counter())

    def cost_minor(self) -> dict[str, int]:
        """In minor units by channel, half a unit rounded up; channels without a price are left out."""
        prices, sent = self.assumptions.cost_per_1000, self.channels()
        return {channel: (sent[channel] * price + 500) // 1_000 for channel, price in sorted(prices.items())}

    def _dates(self) -> list[date]:
        first = self.period.start.astimezone(self.period.zone).date()
        last = (self.period.end - timedelta.resolution).astimezone(self.period.zone).date()
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]

    def _day(self, day: date) -> dict[str, Any]:
        counts = self.tally.days.get(day, Counter())
        channels = _sorted(self.tally.channels.get(day, Counter()))
        return {"date": day.isoformat(), **{name: counts[name] for name in DAY_COUNTS}, "channels": channels}

    def _node(self, name: str, here: int) -> dict[str, Any]:
        node, counts = self.journey.nodes[name], self.tally.nodes.get(name, Counter())
        funnel: dict[str, Any] = {"id": name, "type": str(node.kind), "came": counts["came"], "here": here}
        funnel["ended"] = counts["ended"]
        funnel |= {
            key: counts[key]
            for key in ("sent", "skipped", "failed", "quiet_held", "cap_held", "opened", "clicked")
            if counts[key]
        }
        ways = [(edge.label, edge.to) for edge in edges(node)]
        return {
            **funnel,
            "edges": [{"edge": label, "to": to, "runs": self._went(name, label, to)} for label, to in ways],
        }

    def _went(self, name: str, label: str, to: str) -> int:
        node = self.journey.nodes[name]
        if isinstance(node, Message) and not label:  # the edge of the outcomes that have none of their own
            return sum(self.tally.edges[name, str(each), to] for each in Outcome if each not in node.on)
        return self.tally.edges[name, label, to]


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
