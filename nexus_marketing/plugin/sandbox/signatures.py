"""The methods of the contracts as they cross the sandbox: how arguments and results are read on the other side."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, get_type_hints

from nexus_marketing.core.contracts import Channel, CompensatingChannel, Content, HearingChannel, RenderingChannel
from nexus_marketing.core.extensions import (
    Action,
    ApprovalStrategy,
    AuditSink,
    ConditionContext,
    ConditionEvaluator,
    Eraser,
    Heartbeat,
    MetricCalculator,
    Resource,
    SqlCondition,
    Trigger,
)
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.sandbox.wire import Read, believing, reader

#: What may be added by a sandboxed plugin. A storage may not: it takes part in our transactions; nor a tenant resolver: it
#: is shown whole requests.
CONTRACTS: Final[Mapping[Capability, tuple[type, ...]]] = {
    Capability.CHANNEL: (Channel, HearingChannel, RenderingChannel, CompensatingChannel),
    Capability.ACTION: (Action,),
    Capability.CONDITION: (ConditionEvaluator, SqlCondition),
    Capability.TRIGGER: (Trigger,),
    Capability.METRIC: (MetricCalculator,),
    Capability.APPROVAL_STRATEGY: (ApprovalStrategy,),
    Capability.ERASER: (Eraser,),
    Capability.HEARTBEAT: (Heartbeat,),
    Capability.RESOURCE: (Resource,),
    Capability.AUDIT_SINK: (AuditSink,),
}
_OPTIONAL: Final = ("render", "verify", "parse_events", "compensate", "to_sql")


@dataclass(frozen=True, slots=True)
class Signature:
    """One method: readers of its arguments, in order (nothing where they are as they come), and of its result."""

    arguments: tuple[Read | None, ...]
    result: Read


@lru_cache
def signature(kind: Capability, method: str) -> Signature:
    """A method of a contract; a channel's ``open`` has no result that could cross.

    Raises:
        KeyError: the contract has no such method.
    """
    contract = next((each for each in CONTRACTS[kind] if callable(getattr(each, method, None))), None)
    if contract is None or method.startswith("_"):
        raise KeyError(method)
    function = getattr(contract, method)
    hints = get_type_hints(function)
    names = list(inspect.signature(function).parameters)[1:]
    result = reader(Any) if method == "open" else reader(hints["return"])
    return Signature(tuple(believing(hints[name]) for name in names), result)


def attributes(kind: Capability, thing: Any) -> dict[str, Any]:
    """What a contract wants to be there beside methods, as the thing has it."""
    return {name: getattr(thing, name) for name in get_type_hints(CONTRACTS[kind][0])}


def read_attributes(kind: Capability, found: Mapping[str, Any]) -> dict[str, Any]:
    """The same, on the other side.

    Raises:
        Garbage: one has another form.
        KeyError: one is missing.
    """
    return {name: reader(hint)(found[name]) for name, hint in get_type_hints(CONTRACTS[kind][0]).items()}


def optional_methods(thing: Any) -> list[str]:
    """What a thing can do beyond what its contract asks."""
    return [name for name in _OPTIONAL if callable(getattr(thing, name, None))]


def _made_again(kind: type) -> Read:
    found = believing(kind)
    return reader(kind) if found is None else found


CONTENT: Final = reader(Content)
#: What a condition is asked about, and what it says.
CONTEXT: Final = _made_again(ConditionContext)
VERDICTS: Final = reader(tuple[bool, ...])
