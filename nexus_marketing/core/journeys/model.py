"""What a journey is once it is understood: who enters, who leaves, what counts as a goal, and its nodes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from nexus_marketing.core.conditions import Dependencies, FieldType
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.journeys.crossings import UP, crossing_name
from nexus_marketing.core.journeys.delays import UntilDate
from nexus_marketing.core.journeys.nodes import Delay, Node, Occasion, Rule, WaitUntil


class TriggerKind(StrEnum):
    """What brings a lead into a journey."""

    SEGMENT_ENTERED = "segment_entered"
    SEGMENT_LEFT = "segment_left"
    EVENT = "event"
    DATE = "date"
    API = "api"
    LIST = "list"
    #: Another journey ended for the lead.
    JOURNEY = "journey"
    #: Again and again, the members of a segment.
    SCHEDULE = "schedule"
    #: A program calls the journey's own address.
    WEBHOOK = "webhook"
    #: A score of the lead crossed a threshold.
    SCORE = "score"
    #: A plugin is asked, and says who comes.
    PLUGIN = "plugin"


#: How runs end by themselves; what operators and newer runs end is no end that another journey begins with.
ENDS: Final = ("done", "exited", "failed")


@dataclass(frozen=True, slots=True)
class Trigger:
    """One way in. ``name`` is the segment, event, date field, journey, score or trigger of a plugin; ``offset`` and ``at``
    belong to dates.

    ``at`` is a time of day, ``HH:MM``, by the lead's clock, ``path`` where a record keeps the date, and ``is_yearly``: it
    comes again every year. ``recurrence`` is the rule of a schedule as campaigns write theirs down, ``ended`` how a run
    of the other journey has to end. ``threshold`` is a number or the key of one of the score's, crossed in a ``direction``.
    A plugin is asked about an ``event``, at each round of the ``recurrence``, or about calls of programs (``is_hook``).
    """

    on: TriggerKind
    start: str
    name: str = ""
    where: Rule | None = None
    offset: timedelta = timedelta()
    at: str | None = None
    path: tuple[str, ...] = ()
    is_yearly: bool = False
    recurrence: Mapping[str, Any] | None = None
    ended: frozenset[str] = frozenset()
    threshold: float | str = 0.0
    direction: str = UP
    event: str = ""
    is_hook: bool = False

    @property
    def crossing(self) -> str:
        """What a trigger on a score listens to."""
        return crossing_name(self.name, self.direction, self.threshold)


class ReentryKind(StrEnum):
    """Whether somebody who was in may come again."""

    NEVER = "never"
    AFTER_EXIT = "after_exit"
    AFTER_INTERVAL = "after_interval"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Reentry:
    """The policy; an interval is exact seconds, or so many ``calendar_days`` in a zone."""

    kind: ReentryKind = ReentryKind.NEVER
    interval: timedelta = timedelta()
    calendar_days: int = 0
    zone: str | None = None


class ConcurrencyKind(StrEnum):
    """What becomes of somebody who comes while still inside."""

    REJECT = "reject"
    RESTART = "restart"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """The policy; at most ``most`` runs of a lead at a time."""

    kind: ConcurrencyKind = ConcurrencyKind.REJECT
    most: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """Who comes in. ``holdout`` is in hundredths of a percent; ``cap`` is so many entries within a time.

    Nobody enters within ``cooldown`` of the last time, whatever the policy. ``key`` is where a record keeps what may start one run only, such as the number of an order.
    """

    triggers: tuple[Trigger, ...] = ()
    filter: Rule | None = None
    reentry: Reentry = Reentry()
    key: tuple[str, ...] | None = None
    concurrency: Concurrency = Concurrency()
    cap: tuple[int, timedelta] | None = None
    holdout: int = 0
    backfill: bool = False
    cooldown: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class ExitCriterion:
    """Whoever meets it leaves at once."""

    occasion: Occasion
    reason: str


class GoalEffect(StrEnum):
    """What reaching a goal does, beside being recorded."""

    RECORD = "record"
    EXIT = "exit"
    JUMP_TO = "jump_to"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the journey is for; counts once a run, within ``window`` of the entry, also after the run's end."""

    id: str
    occasion: Occasion
    window: timedelta
    effect: GoalEffect = GoalEffect.RECORD
    to: str | None = None


@dataclass(frozen=True)
class Journey:
    """One version of a journey, read by :func:`nexus_marketing.core.journeys.parse_journey`.

    ``document`` is its canonical form and ``digest`` that form's SHA-256; ``notices`` name what is strange but works.
    """

    code: str
    title: str
    nodes: Mapping[str, Node]
    entry: Entry
    exits: tuple[ExitCriterion, ...] = ()
    goals: tuple[Goal, ...] = ()
    quiet_hours: tuple[Mapping[str, Any], ...] = ()
    salt: str = ""
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    notices: tuple[Problem, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    #: How often a run may come to a node, and where to instead of one time more.
    visits: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    digest: str = ""
    #: The action that takes back what a node did, by the node.
    compensations: Mapping[str, str] = field(default_factory=dict)

    def occasions(self) -> Iterator[Occasion]:
        """Everything that may move a run from outside: exits, goals, and what nodes wait for."""
        yield from (each.occasion for each in self.exits)
        yield from (each.occasion for each in self.goals)
        for node in self.nodes.values():
            if isinstance(node, WaitUntil):
                yield from (way.occasion for way in node.ways)

    @cached_property
    def listens(self) -> frozenset[str]:
        """The events that may move a run: a shell keeps an index of them."""
        found = {each.event for each in self.occasions() if each.event is not None}
        return frozenset({*found, *self.reads.events})

    @cached_property
    def reads(self) -> Dependencies:
        """What the states depend on that may move a run: a change elsewhere need not wake it."""
        found = Dependencies()
        for each in self.occasions():
            if each.when is not None:
                found |= each.when.reads
        for node in self.nodes.values():
            if isinstance(node, Delay) and node.recompute_on_change:
                date = {".".join(node.rule.path)} if isinstance(node.rule, UntilDate) else set()
                found |= Dependencies(fields=frozenset({"time_zone", *date}))
        return found
