"""What plugins may add beside channels and storages: actions, triggers, metrics, approval strategies, erasers, heartbeats.

An implementation needs neither a base class nor Pyramid; frozen dataclasses go in and come out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

_SENDS: Final = re.compile(r"send_([a-z][a-z0-9_]*)\Z")
#: ``send_to_sales_team`` is an action like any other.
_NOT_A_CHANNEL: Final = ("to_",)


class ActionResult(StrEnum):
    """How an action ended; only ``transient`` is tried again."""

    DONE = "done"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class ActionCall:
    """One call of an action; ``key`` is the same on every attempt, so that what was done is not done twice."""

    tenant_id: int
    key: str
    now: datetime
    lead_id: int | None = None
    campaign_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """The answer of an action; ``detail`` is for people."""

    result: ActionResult
    detail: str = ""
    retry_after_seconds: float | None = None


class Action(Protocol):
    """Something that is done by its name: by a trigger, an escalation, a breach, a step."""

    name: str

    def run(self, call: ActionCall) -> ActionOutcome:
        """Do it, at most once for a ``key``."""
        ...


def channel_of_action(name: str) -> str | None:
    """The channel that a step of a sequence writes by; nothing for other actions.

    >>> channel_of_action("send_email"), channel_of_action("send_to_sales_team")
    ('email', None)
    """
    match = _SENDS.match(name)
    return None if match is None or match[1].startswith(_NOT_A_CHANNEL) else match[1]


class OccasionKind(StrEnum):
    """What a trigger is asked about."""

    EVENT = "event"
    WEBHOOK = "webhook"
    SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something happened, or it is time: ``name`` is that of the event or the hook; ``key`` is the same when told twice."""

    tenant_id: int
    kind: OccasionKind
    name: str
    key: str
    now: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Firing:
    """A trigger goes off, for a lead or for none; of several with one ``key`` the first counts."""

    key: str
    lead_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Trigger(Protocol):
    """Decides what an occasion sets off (FR-EXT-004)."""

    name: str
    #: What it wants to be asked about.
    kinds: frozenset[OccasionKind]

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        """What goes off; the same for the same occasion."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of a campaign: ``counts`` by event (``accepted``, ``opened``, …), money in minor units of ``currency``."""

    now: datetime
    counts: Mapping[str, int]
    cost_minor: int = 0
    revenue_minor: int = 0
    currency: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class MetricCalculator(Protocol):
    """Computes a number of a tenant's own (FR-EXT-006); ``unit`` is shown beside it, such as ``%``."""

    name: str
    unit: str

    def calculate(self, figures: Figures) -> float | None:
        """The value; nothing where it is not defined, as a rate of nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Approval:
    """What somebody said to a request."""

    approver_id: int
    is_granted: bool
    at: datetime
    role: str = ""


@dataclass(frozen=True, slots=True)
class Approvals:
    """All that was said so far, oldest first, of those who were asked."""

    asked: tuple[int, ...]
    given: tuple[Approval, ...]
    now: datetime
    settings: Mapping[str, Any] = field(default_factory=dict)


class ApprovalStrategy(Protocol):
    """Decides when enough has been said (FR-EXT-003)."""

    name: str

    def can_proceed(self, approvals: Approvals) -> bool:
        """Whether the campaign may go on."""
        ...


@dataclass(frozen=True, slots=True)
class Erasure:
    """A lead is erased (GDPR 17): ``lead_ids`` are its own id and those of leads that were merged into it."""

    tenant_id: int
    lead_ids: tuple[int, ...]


class Eraser(Protocol):
    """Clears what a plugin keeps about people. It is asked for every tenant: also those that have the plugin off by now."""

    name: str

    def erase(self, erasure: Erasure) -> int:
        """Clear everything about them; answers how much. May be asked again for the same; raising means later."""
        ...


class Heartbeat(Protocol):
    """A part of ``/__heartbeat__``."""

    name: str

    def answers(self) -> bool:
        """Whether what the plugin needs is there; answers within a second."""
        ...
