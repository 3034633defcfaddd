"""What a sandboxed plugin adds, as the rest of the product sees it: objects that keep the contracts and ask its process."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from nexus_marketing.plugin.sandbox.pools import Pool, reason_of
from nexus_marketing.plugin.sandbox.signatures import VERDICTS, read_attributes, signature
from nexus_marketing.plugin.sandbox.wire import Garbage, Read

#: So many leads are asked about in one call, which has the time that any call has.
_LEADS_AT_ONCE: Final = 50


class Remote:
    """A thing of the plugin by its number."""

    kind: Capability
    name: str

    def __init__(self, pool: Pool, number: int, attributes: Mapping[str, Any]) -> None:
        self._pool, self._number = pool, number
        for name, value in read_attributes(self.kind, attributes).items():
            setattr(self, name, value)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._pool.call(signature(self.kind, method).result, "call", self._number, method, arguments)


class RemoteAction(Remote):
    """An action in the sandbox."""

    kind = Capability.ACTION

    def run(self, call: ActionCall) -> ActionOutcome:
        """As the contract says; a plugin that fails is asked again later."""
        try:
            outcome: ActionOutcome = self._ask("run", call)
        except PluginFailed as error:
            return ActionOutcome(ActionResult.TRANSIENT, reason_of(error)[:200], error.retry_after_seconds)
        return outcome


class RemoteCondition(Remote):
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


class RemoteTrigger(Remote):
    """A trigger in the sandbox."""

    kind = Capability.TRIGGER
    kinds: frozenset[OccasionKind]

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        """As the contract says."""
        found: Sequence[Firing] = self._ask("fire", occasion)
        return found


class RemoteMetric(Remote):
    """A metric in the sandbox."""

    kind = Capability.METRIC
    unit: str

    def calculate(self, figures: Figures) -> float | None:
        """As the contract says."""
        found: float | None = self._ask("calculate", figures)
        return found


class RemoteStrategy(Remote):
    """An approval strategy in the sandbox."""

    kind = Capability.APPROVAL_STRATEGY

    def can_proceed(self, approvals: Approvals) -> bool:
        """As the contract says."""
        found: bool = self._ask("can_proceed", approvals)
        return found


class RemoteEraser(Remote):
    """An eraser in the sandbox."""

    kind = Capability.ERASER

    def erase(self, erasure: Erasure) -> int:
        """As the contract says."""
        found: int = self._ask("erase", erasure)
        return found


class RemoteAuditSink(Remote):
    """An audit sink in the sandbox."""

    kind = Capability.AUDIT_SINK

    def write(self, batch: AuditBatch) -> None:
        """As the contract says."""
        self._ask("write", batch)


class RemoteHeartbeat(Remote):
    """A heartbeat in the sandbox."""

    kind = Capability.HEARTBEAT

    def answers(self) -> bool:
        """As the contract says."""
        found: bool = self._ask("answers")
        return found


class RemoteResource(Remote):
    """A resource in the sandbox."""

    kind = Capability.RESOURCE
    routes: tuple[Route, ...]

    def answer(self, call: ResourceCall) -> ResourceAnswer:
        """As the contract says."""
        found: ResourceAnswer = self._ask("answer", call)
        return found


def _verdicts(wanted: int) -> Read:
    def read(value: Any) -> tuple[bool, ...]:
        found: tuple[bool, ...] = VERDICTS(value)
        if len(found) != wanted:
            raise Garbage(f"{len(found)} answers came for {wanted} leads")
        return found

    return read


def remote_kind(kind: Capability, optional: Sequence[str]) -> type[Remote]:
    """The class for a thing of a kind that can do this beyond its contract; a channel's is made elsewhere."""
    return RemoteSqlCondition if kind is Capability.CONDITION and "to_sql" in optional else KINDS[kind]


KINDS: Final[Mapping[Capability, type[Remote]]] = {
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
    )
}
