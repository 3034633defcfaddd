"""A channel as a stranger would write it: answers from a script, and remembers what it was given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nexus_marketing.core.contracts import (
    AddressKind,
    Capabilities,
    Content,
    Journal,
    Outcome,
    OutcomeKind,
    Submission,
)

Answer = OutcomeKind | Callable[[], OutcomeKind]


@dataclass(slots=True)
class ScriptedChannel:
    """Accepts everything but what ``script`` (address → outcomes in turn) says otherwise.

    ``on_batch`` is called before each batch leaves: a test pauses, kills or unsubscribes there.
    """

    script: dict[str, list[OutcomeKind]] = field(default_factory=dict)
    on_batch: Callable[[Sequence[Submission]], None] | None = None
    sent: list[Submission] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    name: str = "email"
    max_in_flight: int = 4

    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = Capabilities(address_kind=AddressKind.EMAIL, max_in_flight=self.max_in_flight)

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Every setting will do."""

    def open(self, settings: Mapping[str, Any], content: Content) -> "ScriptedSession":
        del settings, content
        return ScriptedSession(self)


@dataclass(slots=True)
class ScriptedSession:
    """Hands over in order, marking the journal as a real channel does."""

    channel: ScriptedChannel

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        if self.channel.on_batch is not None:
            self.channel.on_batch(batch)
        self.channel.batches.append(len(batch))
        return iter([self._hand_over(each, journal) for each in batch])

    def _hand_over(self, submission: Submission, journal: Journal) -> Outcome:
        answers = self.channel.script.get(submission.address)
        kind = answers.pop(0) if answers else OutcomeKind.ACCEPTED
        journal.on_wire(submission.ref)
        if kind in (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN):
            self.channel.sent.append(submission)
        journal.on_outcome(submission.ref, kind)
        return Outcome(submission.ref, kind, "scripted")

    def withdraw(self) -> None:
        """Everything was handed over at once."""

    def close(self) -> None:
        """Nothing is open."""
