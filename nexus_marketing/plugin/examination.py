"""What can be seen of a plugin's parts without a provider, a database or pytest: ``plugins check``, and the suites."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.extensions import (
    Approvals,
    ApprovalStrategy,
    ConditionContext,
    ConditionEvaluator,
    Figures,
    MetricCalculator,
    OccasionKind,
    Trigger,
)
from nexus_marketing.plugin import conditions, resources
from nexus_marketing.plugin.manifests import Capability

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def faults_of(kind: Capability, thing: Any) -> list[str]:
    """What is wrong with something that has every part of its contract, each as a sentence."""
    look = _LOOKS.get(kind)
    return [] if look is None else look(thing)


def _channel_faults(channel: Channel) -> list[str]:
    about, faults = channel.capabilities, []
    if about.max_in_flight < 1:
        faults.append("capabilities.max_in_flight is below 1: at least one message is on the wire at a time.")
    if about.max_message_bytes < 1:
        faults.append("capabilities.max_message_bytes is below 1: no message could leave.")
    if about.cost_minor_per_message < 0:
        faults.append("capabilities.cost_minor_per_message is below 0: nobody pays for getting messages.")
    try:
        channel.validate({})
    except ValidationError as error:
        faults += [f"validate names no setting for: {each.message}" for each in error.problems if not each.path]
        faults += [] if error.problems else ["validate refuses settings and names none of them."]
    except Exception as error:  # noqa: BLE001 - isolation boundary: it is this that is looked for
        faults.append(f"validate raises {type(error).__name__} where a ValidationError is wanted.")
    return faults


def _condition_faults(condition: ConditionEvaluator) -> list[str]:
    nobody = ConditionContext({}, {}, _NOW.date())
    faults = conditions.declaration_faults(condition)
    if any(each.is_required for each in condition.parameters):
        return faults  # what it is to be told only its author knows
    return faults + _answers("evaluate", lambda: condition.evaluate(nobody), (bool,), "True or False")


def _trigger_faults(trigger: Trigger) -> list[str]:
    strange = [str(each) for each in trigger.kinds if each not in tuple(OccasionKind)]
    faults = [f"kinds names {each}: use {', '.join(OccasionKind)}." for each in strange]
    return faults if trigger.kinds else ["kinds is empty: it would never be asked."]


def _metric_faults(metric: MetricCalculator) -> list[str]:
    figures = Figures(_NOW, {})
    return _answers("calculate", lambda: metric.calculate(figures), (int, float, type(None)), "a number or None")


def _strategy_faults(strategy: ApprovalStrategy) -> list[str]:
    nobody = Approvals((), (), _NOW)
    return _answers("can_proceed", lambda: strategy.can_proceed(nobody), (bool,), "True or False")


def _answers(method: str, call: Callable[[], object], kinds: tuple[type, ...], wanted: str) -> list[str]:
    """A decision about nothing at all answers, and the same each time."""
    try:
        first, second = call(), call()
    except Exception as error:  # noqa: BLE001 - isolation boundary: it is this that is looked for
        return [f"{method} raises {type(error).__name__} where nothing has happened yet."]
    if not isinstance(first, kinds) or (bool not in kinds and isinstance(first, bool)):
        return [f"{method} answers {first!a:.60}, not {wanted}."]
    return [] if first == second else [f"{method} answers {first!a:.60} and then {second!a:.60} for the same."]


_LOOKS: Final[Mapping[Capability, Callable[[Any], list[str]]]] = {
    Capability.CHANNEL: _channel_faults,
    Capability.CONDITION: _condition_faults,
    Capability.TRIGGER: _trigger_faults,
    Capability.METRIC: _metric_faults,
    Capability.RESOURCE: resources.declaration_faults,
    Capability.APPROVAL_STRATEGY: _strategy_faults,
}
