"""What a definition is once it is understood: stages, moves, data, and the code that belongs to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from nexus_marketing.core.campaigns import CampaignStatus, MessageClass
from nexus_marketing.core.conditions import Condition, Evaluation, Predicate, Schema, next_flip
from nexus_marketing.core.errors import Problem
from nexus_marketing.core.schemas import Form

#: The target of a move that goes back to where a pause came from.
WHERE_IT_WAS: Final = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition of a definition, with the spelling its author knows it by."""

    spelling: str
    condition: Condition
    schema: Schema
    holds: Predicate

    def __call__(self, record: Mapping[str, Any], evaluation: Evaluation) -> bool:
        """Whether it holds for a campaign's record at a moment."""
        return self.holds(record, evaluation)

    def next_flip(self, record: Mapping[str, Any], evaluation: Evaluation) -> datetime | None:
        """When the clock alone will change the answer, or nothing where it never does."""
        return next_flip(self.condition, self.schema, record, evaluation)


@dataclass(frozen=True, slots=True)
class Transition:
    """A move: from any of ``sources`` to ``target``, where ``condition`` holds.

    ``automatic`` moves are taken by the clock as soon as they are possible, without being asked for.
    """

    action: str
    sources: frozenset[str]
    target: str
    condition: Rule | None = None
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class ChannelUse:
    """How a definition uses a channel; lower ``priority`` goes first."""

    name: str
    enabled: bool = True
    priority: int = 0
    provider: str | None = None
    template: str | None = None
    url: str | None = None
    #: Whether the channel takes back what it has handed over when the campaign fails.
    compensate: bool = False


@dataclass(frozen=True, slots=True)
class CampaignStep:
    """Something that a campaign does once for itself, ``delay`` after the step before it is done.

    A step that fails fails the campaign; ``compensate`` is the action that takes a step back then.
    """

    action: str
    delay: timedelta = timedelta(0)
    data: Mapping[str, Any] = field(default_factory=dict)
    compensate: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One message of an automation's sequence, ``delay`` after the one before it."""

    delay: timedelta
    action: str
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """What is done ``after`` a time if the condition holds, at one ``level`` after the other.

    The condition must have held for ``hold_for``, over at least ``minimum`` messages; ``cool_down`` passes before the
    level acts again. ``data`` is handed to the action, which ``compensate`` takes back.
    """

    after: timedelta
    condition: Rule | None
    action: str
    level: int = 1
    hold_for: timedelta = timedelta(0)
    minimum: int = 0
    cool_down: timedelta = timedelta(hours=24)
    data: Mapping[str, Any] = field(default_factory=dict)
    compensate: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerRule:
    """What is done on an event of a lead if the condition holds, at most once in ``cool_down`` for each lead."""

    event: str
    condition: Rule | None
    action: str
    cool_down: timedelta = timedelta(0)
    data: Mapping[str, Any] = field(default_factory=dict)
    compensate: str | None = None


@dataclass(frozen=True, slots=True)
class Automation:
    """What happens by itself while a campaign is active."""

    sequence: tuple[Step, ...] = ()
    escalation: tuple[Escalation, ...] = ()
    triggers: tuple[TriggerRule, ...] = ()
    steps: tuple[CampaignStep, ...] = ()


@dataclass(frozen=True)
class Definition:
    """A campaign's kind, read from its document by :func:`nexus_marketing.core.definitions.parse_definition`.

    ``code`` is the document's ``id``; ``form`` is what launch data are held against. ``notices`` name
    what the document mentions and nobody has registered: the definition works without it.
    """

    code: str
    title: str
    version: str | None
    stages: Mapping[str, CampaignStatus]
    transitions: Mapping[str, Transition]
    channels: tuple[ChannelUse, ...]
    form: Form
    defaults: Mapping[str, Any]
    guards: Mapping[str, tuple[Rule, ...]]
    automation: Automation
    message_class: MessageClass = MessageClass.MARKETING
    time_zone: str = "UTC"
    segment: str | Mapping[str, Any] | None = None
    template: str | None = None
    roi: Mapping[str, Any] = field(default_factory=dict)
    compliance: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[Problem, ...] = ()
    #: What it was read from, in canonical form.
    document: Mapping[str, Any] = field(default_factory=dict)
    #: ``code@version`` of a published definition; campaigns launched on it are pinned to it.
    reference: str | None = None
    #: Of the database's row, where it is published.
    row_id: int | None = None

    def status_of(self, stage: str) -> CampaignStatus:
        """The status a stage means."""
        return self.stages[stage]

    def entry(self, status: CampaignStatus) -> str:
        """The stage in which a campaign arrives at a status: the first that maps to it."""
        return next(stage for stage, each in self.stages.items() if each is status)

    @cached_property
    def automatic(self) -> tuple[Transition, ...]:
        """The moves the clock may take, in the order they are written down."""
        return tuple(each for each in self.transitions.values() if each.automatic)


Guard = Callable[[Any], object]
Hook = Callable[[Any], object]
Check = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Handlers:
    """The code that belongs to an in-model definition; it stays in force when the database overrides the rest.

    ``validators`` are by field; those of the whole data are under ``""``.
    """

    guards: Mapping[str, tuple[Guard, ...]] = field(default_factory=dict)
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    validators: Mapping[str, tuple[Check, ...]] = field(default_factory=dict)

    @property
    def attended(self) -> frozenset[str]:
        """The moves that have a guard or a hook in code."""
        hooked = {moment.partition("_")[2] for moment in self.hooks}
        return frozenset({*hooked, *(action for action, guards in self.guards.items() if guards)})
