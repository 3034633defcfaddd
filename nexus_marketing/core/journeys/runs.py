"""A lead's passage through a journey: its state, what may happen to it, and what is decided about it (BEHAVIOUR.md 5.1).

A database keeps one row for a run and at most one timer: :attr:`Run.wake_at` with :attr:`Run.wait_token`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.journeys.nodes import Outcome


class RunState(StrEnum):
    """``ready``, ``waiting``, ``sending`` and ``migrating`` live; the others are ends."""

    READY = "ready"
    WAITING = "waiting"
    SENDING = "sending"
    DONE = "done"
    EXITED = "exited"
    FAILED = "failed"
    MIGRATING = "migrating"


LIVE: Final = frozenset({RunState.READY, RunState.WAITING, RunState.SENDING, RunState.MIGRATING})


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``visit`` numbers the nodes it executed; ``wait_token`` proves that a wake-up is meant for this wait.

    ``open`` are the channels whose outcome is not known yet, ``left`` those that are tried if they fail, and ``outcomes``
    what is known. ``visits`` counts how often it came to nodes that limit it; ``is_late``: a pause made it late, and its messages
    up to the next wait are left out. ``held`` numbers the ways of a wait that were open before the run came. ``goals`` are the ids of those
    it reached.
    """

    id: str
    journey: str
    digest: str
    lead_id: str
    entered_at: datetime
    node: str
    state: RunState = RunState.READY
    sequence: int = 1
    key: str | None = None
    event: Mapping[str, Any] = field(default_factory=dict)
    arrived_at: datetime | None = None
    deadline: datetime | None = None
    wake_at: datetime | None = None
    wait_token: int = 1
    visit: int = 0
    version: int = 1
    open: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    held: frozenset[int] = frozenset()
    goals: frozenset[str] = frozenset()
    visits: Mapping[str, int] = field(default_factory=dict)
    is_late: bool = False
    ended_at: datetime | None = None
    reason: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    @property
    def is_stalled(self) -> bool:
        """Whether nothing would ever wake it: a fault that a watchdog looks for."""
        is_held = self.state is RunState.MIGRATING  # for an operator
        return self.is_live and not is_held and self.wake_at is None and not self.open


@dataclass(frozen=True, slots=True)
class Woken:
    """The timer of a wait rang."""

    token: int


@dataclass(frozen=True, slots=True)
class Happened:
    """The lead did something: ``event`` as facts of conditions carry it, with ``tracked_at``."""

    event: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """A field, segment, score or consent of the lead changed."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a message on one channel; ``visit`` is the one that wrote it."""

    visit: int
    channel: str
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """Somebody said yes or no to an approval."""

    token: int
    approved: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """An operator ends the run."""

    reason: str


Occurrence = Woken | Happened | Changed | Reported | Answered | Stopped


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Plan a ledger row: (journey version, node, run and ``visit``, lead, channel) is its key."""

    node: str
    visit: int
    channel: str
    template: str | None
    message_class: MessageClass
    priority: int
    obeys_caps: bool
    counts_toward_caps: bool
    obeys_quiet_hours: bool
    quiet_hours: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class CancelMessages:
    """Skip what was written by this visit and has not been handed over."""

    visit: int
    reason: str


@dataclass(frozen=True, slots=True)
class SetFields:
    """Change fields of the lead."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PutInSegment:
    """Change a static segment's members."""

    segment: str
    is_member: bool


@dataclass(frozen=True, slots=True)
class AddPoints:
    """Change a score."""

    score: str
    points: float


@dataclass(frozen=True, slots=True)
class CallUrl:
    """Tell another system; what became of it is reported with ``visit`` and :data:`~.nodes.CALL`."""

    node: str
    visit: int
    url: str
    method: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask somebody; the answer comes with ``token``."""

    node: str
    by: str
    token: int
    until: datetime


@dataclass(frozen=True, slots=True)
class TakeAction:
    """Take an action that is registered by name; ``compensate`` is the one that takes it back."""

    action: str
    arguments: Mapping[str, Any]
    compensate: str | None = None


Effect = SendMessage | CancelMessages | SetFields | PutInSegment | AddPoints | CallUrl | AskApproval | TakeAction


class Said(StrEnum):
    """Events of a run's history."""

    ENTERED = "entered"
    #: A node did its work, or began to wait.
    EXECUTED = "executed"
    #: A wait is over.
    LEFT = "left"
    #: A message has an outcome on a channel.
    OUTCOME = "outcome"
    GOAL = "goal"
    #: An operator moved it: to another version, or in time.
    MOVED = "moved"
    ENDED = "ended"
    #: An operator put one that failed back where it stood.
    REVIVED = "revived"


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of a run's history; ``detail`` says by which ``edge`` it went, until when it waits, and why."""

    at: datetime
    said: Said
    node: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunDecision:
    """What is to be written, all of it or nothing: the run's next state, its history, and what leaves through the outbox.

    ``run`` replaces a row of version ``before``; where that moved on in the meantime, nothing is written and the run is
    decided on again.
    """

    before: int
    run: Run
    history: tuple[HistoryLine, ...] = ()
    effects: tuple[Effect, ...] = ()

    @property
    def is_ignored(self) -> bool:
        """Whether the occurrence meant nothing to the run."""
        return self.run.version == self.before

    @property
    def timer(self) -> tuple[datetime, int] | None:
        """The one timer the run has from now on: when it rings, and with which token."""
        return None if self.run.wake_at is None else (self.run.wake_at, self.run.wait_token)
