"""The channels of a sandboxed plugin: what they can do, and a send's messages handed over by way of its process."""

import itertools
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from nexus_marketing.core.contracts import (
    Capabilities,
    Content,
    Journal,
    Outcome,
    OutcomeKind,
    ProviderEvent,
    Rendered,
    Retraction,
    Submission,
)
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.measured import MAX_WORDS
from nexus_marketing.plugin.sandbox.children import Child, Raised
from nexus_marketing.plugin.sandbox.pools import Pool, reason_of
from nexus_marketing.plugin.sandbox.remotes import Remote
from nexus_marketing.plugin.sandbox.wire import Garbage, reader

_OUTCOME = reader(Outcome)
_SESSIONS = itertools.count(1)
#: Of who was not reached because the plugin fell over somebody else's message.
_AFTER_FAILURE_SECONDS: Final = 5.0


class RemoteChannel(Remote):
    """A channel in the sandbox."""

    kind = Capability.CHANNEL
    capabilities: Capabilities

    def validate(self, settings: Mapping[str, Any]) -> None:
        """As the contract says."""
        self._ask("validate", dict(settings))

    def open(self, settings: Mapping[str, Any], content: Content) -> "RemoteSession":
        """A session; the plugin is asked for it when the first message leaves."""
        return RemoteSession(self._pool, self._number, settings, content)


class _Hearing(RemoteChannel):
    """One whose provider reports back."""

    def verify(self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> bool:
        """As the contract says."""
        found: bool = self._ask("verify", dict(settings), dict(headers), body)
        return found

    def parse_events(
        self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Sequence[ProviderEvent]:
        """As the contract says."""
        found: Sequence[ProviderEvent] = self._ask("parse_events", dict(settings), dict(headers), body)
        return found


class _Rendering(RemoteChannel):
    """One that makes a message again."""

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """As the contract says."""
        found: Rendered = self._ask("render", dict(settings), content, submission)
        return found


class _Compensating(RemoteChannel):
    """One that takes back what it has handed over."""

    def compensate(self, settings: Mapping[str, Any], retraction: Retraction) -> Outcome:
        """As the contract says; of one that the plugin fell over nobody knows, and who is left alone is asked later."""
        try:
            self._pool.circuit.check()
        except PluginFailed as error:
            return Outcome(0, OutcomeKind.TRANSIENT, error.code, reason_of(error)[:200], error.retry_after_seconds)
        try:
            outcome: Outcome = self._ask("compensate", dict(settings), retraction)
        except ValidationError as error:
            return Outcome(0, OutcomeKind.PERMANENT_SENDER, "", error.message[:200])
        except PluginFailed as error:
            wait = max(error.retry_after_seconds, _AFTER_FAILURE_SECONDS)
            return Outcome(0, OutcomeKind.UNKNOWN, error.code, reason_of(error)[:200], wait)
        return outcome if len(outcome.detail) <= MAX_WORDS else outcome._replace(detail=outcome.detail[:MAX_WORDS])


class RemoteSession:
    """One send's content. Each batch borrows a process for as long as it takes; one that dies costs what it had begun."""

    def __init__(self, pool: Pool, number: int, settings: Mapping[str, Any], content: Content) -> None:
        self._pool, self._number, self._id = pool, number, next(_SESSIONS)
        self._given = dict(settings), content
        self._withdrawals = 0
        #: The processes that have it open.
        self._children: list[Child] = []

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Hand over when asked for the next outcome, not before."""
        return self._handed_over(batch, _Marks(journal), self._withdrawals)

    def withdraw(self) -> None:
        """What the plugin has not begun is taken back at the next outcome."""
        self._withdrawals += 1

    def close(self) -> None:
        """The plugin hears of it with its next call."""
        while self._children:
            self._children.pop().closing.append(self._id)

    def _handed_over(self, batch: Sequence[Submission], marks: "_Marks", begun: int) -> Iterator[Outcome | None]:
        left = dict.fromkeys(each.ref for each in batch)
        if begun == self._withdrawals and left:
            try:
                with self._pool.borrowed() as child:
                    marks.has_begun = True
                    yield from self._surely(child, self._by(child, batch, left, marks, begun))
            except ValidationError as error:
                # What a tenant set does not suit the plugin any more: the same for everybody.
                kind = OutcomeKind.PERMANENT_SENDER
                yield from [marks.ended(Outcome(ref, kind, "", error.message[:200])) for ref in list(left)]
                return
            except PluginFailed as error:
                yield from self._lost(list(left), marks, error)
                return
        yield from [marks.ended(Outcome(ref, OutcomeKind.NOT_SENT, "withdrawn")) for ref in list(left)]

    @staticmethod
    def _surely(child: Child, outcomes: Iterator[Outcome | None]) -> Iterator[Outcome | None]:
        """However a batch ends early, nothing of it may go on in a process that others are to use."""
        try:
            yield from outcomes
        except (GeneratorExit, Raised):
            if not child.is_lost:
                child.kill()
            raise

    def _by(
        self, child: Child, batch: Sequence[Submission], left: dict[int, None], marks: "_Marks", begun: int
    ) -> Iterator[Outcome | None]:
        if self._id not in child.sessions:
            yield from child.talk(["open", self._number, self._id, *self._given], None)
            child.sessions.add(self._id)
            self._children.append(child)
        yield from child.talk(["submit", self._id, [tuple(each) for each in batch]], marks)
        while True:
            if begun != self._withdrawals:
                yield from child.talk(["withdraw", self._id], marks)
                begun = self._withdrawals
            answer = yield from child.talk(["next", self._id], marks)
            if answer == "end":
                if left:
                    raise child.lose(f"{len(left)} messages have no outcome")
                return
            if answer is not None:
                yield self._outcome(child, answer, left, marks)

    def _outcome(self, child: Child, answer: Any, left: dict[int, None], marks: "_Marks") -> Outcome:
        try:
            outcome = _expected(answer, left)
        except Garbage as error:
            raise child.lose(str(error)) from error
        del left[outcome.ref]
        return marks.ended(outcome)

    def _lost(self, refs: Sequence[int], marks: "_Marks", error: PluginFailed) -> Iterator[Outcome]:
        """What may have left is unknown, whose turn it was is tried again and counted, the others were never begun."""
        wait = max(error.retry_after_seconds, _AFTER_FAILURE_SECONDS)
        for position, ref in enumerate(refs):
            if ref in marks.on_the_wire:
                kind = OutcomeKind.UNKNOWN
            elif position == 0 and marks.has_begun:
                kind = OutcomeKind.TRANSIENT
            else:
                kind = OutcomeKind.NOT_SENT
            yield marks.ended(Outcome(ref, kind, error.code, reason_of(error)[:200], wait))


def _expected(answer: Any, left: Collection[int]) -> Outcome:
    outcome: Outcome = _OUTCOME(answer)
    if outcome.ref not in left:
        raise Garbage("an outcome is of no message that waits for one")
    return outcome


class _Marks:
    """The worker's journal, and which messages of a batch may be on the wire: what the plugin says is checked first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.on_the_wire: set[int] = set()
        self._answered: set[int] = set()
        self.has_begun = False

    def on_wire(self, ref: int) -> None:
        """It may leave from here on."""
        if ref in self.on_the_wire or ref in self._answered:
            raise Garbage("a message leaves twice")
        self.on_the_wire.add(ref)
        self._journal.on_wire(ref)

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """It was answered."""
        if ref not in self.on_the_wire or ref in self._answered:
            raise Garbage("a message is answered that did not leave")
        self._answered.add(ref)
        self._journal.on_outcome(ref, kind)

    def ended(self, outcome: Outcome) -> Outcome:
        """The outcome is out: what the plugin left open in the journal is closed, and it cannot be marked any more."""
        if outcome.ref in self.on_the_wire and outcome.ref not in self._answered:
            self._journal.on_outcome(outcome.ref, outcome.kind)
        self.on_the_wire.discard(outcome.ref)
        self._answered.add(outcome.ref)
        return outcome


#: What a channel may do beyond its contract: by the methods that take it there.
_ABILITIES: Final[Mapping[type[RemoteChannel], frozenset[str]]] = {
    _Hearing: frozenset({"verify", "parse_events"}),
    _Rendering: frozenset({"render"}),
    _Compensating: frozenset({"compensate"}),
}


def channel_kind(optional: Sequence[str]) -> type[RemoteChannel]:
    """The class for what a channel can do: it has the methods of that, and no others."""
    able = tuple(kind for kind, methods in _ABILITIES.items() if methods <= set(optional))
    return types.new_class(RemoteChannel.__name__, able) if able else RemoteChannel
