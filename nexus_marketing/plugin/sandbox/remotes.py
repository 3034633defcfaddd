"""What a sandboxed plugin adds, as the rest of the product sees it: objects that keep the contracts and ask its process."""

import itertools
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
    Submission,
)
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.extensions import (
    ActionCall,
    ActionOutcome,
    ActionResult,
    Approvals,
    AuditBatch,
    ConditionContext,
    Erasure,
    Figures,
    Firing,
    Occasion,
    OccasionKind,
    Parameter,
    ResourceAnswer,
    ResourceCall,
    Route,
)
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.sandbox.children import Child, Raised
from nexus_marketing.plugin.sandbox.pools import Pool, reason_of
from nexus_marketing.plugin.sandbox.signatures import VERDICTS, read_attributes, signature
from nexus_marketing.plugin.sandbox.wire import Garbage, Read, reader

_OUTCOME = reader(Outcome)
_SESSIONS = itertools.count(1)
#: Of who was not reached because the plugin fell over somebody else's message.
_AFTER_FAILURE_SECONDS: Final = 5.0
#: So many leads are asked about in one call, which has the time that any call has.
_LEADS_AT_ONCE: Final = 50


class _Remote:
    """A thing of the plugin by its number."""

    kind: Capability
    name: str

    def __init__(self, pool: Pool, number: int, attributes: Mapping[str, Any]) -> None:
        self._pool, self._number = pool, number
        for name, value in read_attributes(self.kind, attributes).items():
            setattr(self, name, value)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._pool.call(signature(self.kind, method).result, "call", self._number, method, arguments)


class RemoteAction(_Remote):
    """An action in the sandbox."""

    kind = Capability.ACTION

    def run(self, call: ActionCall) -> ActionOutcome:
        """As the contract says; a plugin that fails is asked again later."""
        try:
            outcome: ActionOutcome = self._ask("run", call)
        except PluginFailed as error:
            return ActionOutcome(ActionResult.TRANSIENT, reason_of(error)[:200], error.retry_after_seconds)
        return outcome


class RemoteCondition(_Remote):
    """A condition in the sandbox."""

    kind = Capability.CONDITION
    version: int
    parameters: tuple[Parameter, ...]
    reads: frozenset[str]
    reads_clock: bool

    def evaluate(self, context: ConditionContext) -> bool:
        """As the contract says."""
        return self.evaluate_all([context])[0]

    def evaluate_all(self, contexts: Sequence[ConditionContext]) -> list[bool]:
        """What it says of each, of some in one call."""
        found: list[bool] = []
        for begun in range(0, len(contexts), _LEADS_AT_ONCE):
            some = contexts[begun : begun + _LEADS_AT_ONCE]
            try:
                found += self._pool.call(_verdicts(len(some)), "judge", self._number, some)
            except PluginFailed as error:
                raise PluginFailed(reason_of(error), retry_after_seconds=error.retry_after_seconds) from error
        return found


class RemoteSqlCondition(RemoteCondition):
    """One that can say itself in the language."""

    def to_sql(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """As the contract says."""
        found: Mapping[str, Any] = self._ask("to_sql", dict(arguments))
        return found


class RemoteTrigger(_Remote):
    """A trigger in the sandbox."""

    kind = Capability.TRIGGER
    kinds: frozenset[OccasionKind]

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        """As the contract says."""
        found: Sequence[Firing] = self._ask("fire", occasion)
        return found


class RemoteMetric(_Remote):
    """A metric in the sandbox."""

    kind = Capability.METRIC
    unit: str

    def calculate(self, figures: Figures) -> float | None:
        """As the contract says."""
        found: float | None = self._ask("calculate", figures)
        return found


class RemoteStrategy(_Remote):
    """An approval strategy in the sandbox."""

    kind = Capability.APPROVAL_STRATEGY

    def can_proceed(self, approvals: Approvals) -> bool:
        """As the contract says."""
        found: bool = self._ask("can_proceed", approvals)
        return found


class RemoteEraser(_Remote):
    """An eraser in the sandbox."""

    kind = Capability.ERASER

    def erase(self, erasure: Erasure) -> int:
        """As the contract says."""
        found: int = self._ask("erase", erasure)
        return found


class RemoteAuditSink(_Remote):
    """An audit sink in the sandbox."""

    kind = Capability.AUDIT_SINK

    def write(self, batch: AuditBatch) -> None:
        """As the contract says."""
        self._ask("write", batch)


class RemoteHeartbeat(_Remote):
    """A heartbeat in the sandbox."""

    kind = Capability.HEARTBEAT

    def answers(self) -> bool:
        """As the contract says."""
        found: bool = self._ask("answers")
        return found


class RemoteResource(_Remote):
    """A resource in the sandbox."""

    kind = Capability.RESOURCE
    routes: tuple[Route, ...]

    def answer(self, call: ResourceCall) -> ResourceAnswer:
        """As the contract says."""
        found: ResourceAnswer = self._ask("answer", call)
        return found


class RemoteChannel(_Remote):
    """A channel in the sandbox."""

    kind = Capability.CHANNEL
    capabilities: Capabilities

    def validate(self, settings: Mapping[str, Any]) -> None:
        """As the contract says."""
        self._ask("validate", dict(settings))

    def open(self, settings: Mapping[str, Any], content: Content) -> "RemoteSession":
        """A session; the plugin is asked for it when the first message leaves."""
        return RemoteSession(self._pool, self._number, settings, content)


class RemoteHearingChannel(RemoteChannel):
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


class _Rendering:
    """One that makes a message again."""

    def render(self: Any, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """As the contract says."""
        found: Rendered = self._ask("render", dict(settings), content, submission)
        return found


class RemoteRenderingChannel(_Rendering, RemoteChannel):
    """A channel in the sandbox that makes a message again."""


class RemoteFullChannel(_Rendering, RemoteHearingChannel):
    """One that does both."""


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


def _verdicts(wanted: int) -> Read:
    def read(value: Any) -> tuple[bool, ...]:
        found: tuple[bool, ...] = VERDICTS(value)
        if len(found) != wanted:
            raise Garbage(f"{len(found)} answers came for {wanted} leads")
        return found

    return read


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


def remote_kind(kind: Capability, optional: Sequence[str]) -> type[_Remote]:
    """The class for a thing of a kind that can do this beyond its contract."""
    if kind is Capability.CHANNEL:
        return channel_kind(optional)
    return RemoteSqlCondition if kind is Capability.CONDITION and "to_sql" in optional else KINDS[kind]


def channel_kind(optional: Sequence[str]) -> type[RemoteChannel]:
    """The class for what a channel can do."""
    hears, renders = {"verify", "parse_events"} <= set(optional), "render" in optional
    if hears:
        return RemoteFullChannel if renders else RemoteHearingChannel
    return RemoteRenderingChannel if renders else RemoteChannel


KINDS: Final[Mapping[Capability, type[_Remote]]] = {
    each.kind: each
    for each in (
        RemoteAction,
        RemoteCondition,
        RemoteTrigger,
        RemoteMetric,
        RemoteStrategy,
        RemoteEraser,
        RemoteAuditSink,
        RemoteHeartbeat,
        RemoteResource,
        RemoteChannel,
    )
}
