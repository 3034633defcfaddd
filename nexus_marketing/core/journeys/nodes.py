"""The nodes of a journey, and what they wait for, as values.

An edge names a node, or :data:`END`: the run is done there (BEHAVIOUR.md 5.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.conditions import (
    Condition,
    Dependencies,
    Predicate,
    Schema,
    compile_predicate,
    dependencies,
    to_text,
)
from nexus_marketing.core.journeys.delays import DelayRule

#: The edge that leads out: no node may be called so.
END: Final = "end"
#: What a run waits for while a webhook is called, in place of a channel.
CALL: Final = "webhook"
#: How long after a deadline an event that happened before it is still waited for.
GRACE: Final = timedelta(seconds=60)


class NodeKind(StrEnum):
    """The types of nodes, as documents spell them."""

    DELAY = "delay"
    WAIT_UNTIL = "wait_until"
    BRANCH = "branch"
    SPLIT = "split"
    MESSAGE = "message"
    UPDATE_LEAD = "update_lead"
    ADD_TO_SEGMENT = "add_to_segment"
    REMOVE_FROM_SEGMENT = "remove_from_segment"
    SCORE = "score"
    WEBHOOK = "webhook"
    APPROVAL = "approval"
    ACTION = "action"
    JUMP = "jump"
    EXIT = "exit"


#: What does something that can be taken back; the others wait, choose or end.
DOING: Final = frozenset(
    {
        NodeKind.MESSAGE,
        NodeKind.UPDATE_LEAD,
        NodeKind.ADD_TO_SEGMENT,
        NodeKind.REMOVE_FROM_SEGMENT,
        NodeKind.SCORE,
        NodeKind.WEBHOOK,
        NodeKind.ACTION,
    }
)


class Outcome(StrEnum):
    """What became of a message; also the names of its edges."""

    SENT = "sent"
    SKIPPED = "skipped"
    FAILED = "failed"


class ChannelMode(StrEnum):
    """Several channels of one message: all at once, or the next one only where the one before did not send."""

    ALL = "all"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition of a journey, in words and as a function."""

    spelling: str
    condition: Condition
    schema: Schema
    holds: Predicate = field(compare=False)
    reads: Dependencies

    @classmethod
    def of(cls, condition: Condition, schema: Schema) -> "Rule":
        """A condition made ready."""
        holds = compile_predicate(condition, schema)
        return cls(to_text(condition), condition, schema, holds, dependencies(condition, schema))


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something to wait for, to leave for or to aim at: a state of the lead (``when``) or an ``event``.

    An event counts from the run's entry on; ``where`` judges the event itself, ``of`` is the message of this run that it
    must be about. Machines count only with ``any_verdict``.
    """

    when: Rule | None = None
    event: str | None = None
    where: Rule | None = None
    of: str | None = None
    any_verdict: bool = False

    @property
    def label(self) -> str:
        """In words, for diagrams and histories."""
        if self.when is not None:
            return self.when.spelling
        return f"{self.event} of {self.of}" if self.of else str(self.event)


@dataclass(frozen=True, slots=True)
class Delay:
    """Waits for a time that is known on arrival; ``zone`` overrides whose clock counts."""

    id: str
    rule: DelayRule
    next: str = END
    zone: str | None = None
    recompute_on_change: bool = False
    kind: NodeKind = NodeKind.DELAY


@dataclass(frozen=True, slots=True)
class Way:
    """One thing a wait ends with, and where it leads."""

    occasion: Occasion
    to: str
    after_arrival: bool = False


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Waits until something happens, at most ``timeout``."""

    id: str
    ways: tuple[Way, ...]
    timeout: timedelta
    timeout_to: str
    grace: timedelta = GRACE
    kind: NodeKind = NodeKind.WAIT_UNTIL


@dataclass(frozen=True, slots=True)
class Branch:
    """Goes the first way that is open, else the other one."""

    id: str
    ways: tuple[Way, ...]
    otherwise: str
    kind: NodeKind = NodeKind.BRANCH


@dataclass(frozen=True, slots=True)
class Share:
    """One way of a split: ``hundredths`` of a percent take it."""

    name: str
    hundredths: int
    to: str


@dataclass(frozen=True, slots=True)
class Split:
    """Parts leads at random, each always the same way as long as ``salt`` stays (BR-014: exactly 100 %)."""

    id: str
    shares: tuple[Share, ...]
    salt: str = ""
    kind: NodeKind = NodeKind.SPLIT


@dataclass(frozen=True, slots=True)
class Message:
    """Writes to the lead. Goes on whatever became of it, unless ``require_sent``; ``on`` are edges by outcome.

    ``channels`` gives each channel its template. ``quiet_hours`` are tables as a tenant writes them down.
    """

    id: str
    channels: Mapping[str, str | None]
    message_class: MessageClass
    next: str = END
    on: Mapping[Outcome, str] = field(default_factory=dict)
    mode: ChannelMode = ChannelMode.ALL
    require_sent: bool = False
    priority: int = 50
    obeys_caps: bool = True
    counts_toward_caps: bool = True
    obeys_quiet_hours: bool = True
    quiet_hours: tuple[Mapping[str, Any], ...] = ()
    kind: NodeKind = NodeKind.MESSAGE

    def edge(self, outcome: Outcome) -> str | None:
        """Where an outcome leads; nothing where the message had to be sent and was not."""
        if outcome in self.on:
            return self.on[outcome]
        return None if self.require_sent and outcome is not Outcome.SENT else self.next


@dataclass(frozen=True, slots=True)
class UpdateLead:
    """Sets fields of the lead; null clears one."""

    id: str
    values: Mapping[str, Any]
    next: str = END
    kind: NodeKind = NodeKind.UPDATE_LEAD


@dataclass(frozen=True, slots=True)
class ChangeSegment:
    """Puts the lead into a static segment, or takes it out."""

    id: str
    segment: str
    kind: NodeKind
    next: str = END


@dataclass(frozen=True, slots=True)
class GivePoints:
    """Changes a score."""

    id: str
    points: float
    score: str = "score"
    next: str = END
    kind: NodeKind = NodeKind.SCORE


@dataclass(frozen=True, slots=True)
class Webhook:
    """Tells another system, and goes on when that has heard it; ``failed`` is the way where it never did.

    Texts in the body may have gaps (``core.journeys.bodies``).
    """

    id: str
    url: str
    method: str = "POST"
    body: Mapping[str, Any] = field(default_factory=dict)
    next: str = END
    failed: str = END
    kind: NodeKind = NodeKind.WEBHOOK

    def edge(self, outcome: Outcome) -> str:
        """Where an outcome leads."""
        return self.next if outcome is Outcome.SENT else self.failed


@dataclass(frozen=True, slots=True)
class Approval:
    """Waits for somebody's yes or no, at most ``timeout``."""

    id: str
    by: str
    approved: str
    rejected: str
    timeout: timedelta
    timeout_to: str
    kind: NodeKind = NodeKind.APPROVAL


@dataclass(frozen=True, slots=True)
class Act:
    """Takes an action that is registered by name."""

    id: str
    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    next: str = END
    kind: NodeKind = NodeKind.ACTION


@dataclass(frozen=True, slots=True)
class Jump:
    """Goes on somewhere else."""

    id: str
    to: str
    kind: NodeKind = NodeKind.JUMP


@dataclass(frozen=True, slots=True)
class Exit:
    """Ends the run, with a reason."""

    id: str
    reason: str = "exit"
    kind: NodeKind = NodeKind.EXIT


Node = (
    Delay
    | WaitUntil
    | Branch
    | Split
    | Message
    | UpdateLead
    | ChangeSegment
    | GivePoints
    | Webhook
    | Approval
    | Act
    | Jump
    | Exit
)
