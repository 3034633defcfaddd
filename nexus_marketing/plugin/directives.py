"""The directives by which plugins add to the product, ours and a stranger's alike (DESIGN.md §6).

Each takes an object, a class that needs no arguments, or the dotted name of either; holds it against its contract; and
registers an action of Pyramid, so that two plugins that claim one name stop the boot.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pyramid.config import Configurator

from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.extensions import (
    Action,
    ApprovalStrategy,
    AuditSink,
    ConditionEvaluator,
    Eraser,
    Heartbeat,
    MetricCalculator,
    Resource,
    TenantResolver,
    Trigger,
)
from nexus_marketing.core.storages import Storage
from nexus_marketing.plugin import conditions, resources
from nexus_marketing.plugin.conformity import missing_parts
from nexus_marketing.plugin.contexts import PluginContext, own_settings
from nexus_marketing.plugin.hosts import Host
from nexus_marketing.plugin.manifests import SINGLE, Capability, Manifest, check_manifest
from nexus_marketing.plugin.registry import Entry, PluginRegistry, module_of

CONTRACTS = {
    Capability.CHANNEL: Channel,
    Capability.ACTION: Action,
    Capability.CONDITION: ConditionEvaluator,
    Capability.TRIGGER: Trigger,
    Capability.METRIC: MetricCalculator,
    Capability.APPROVAL_STRATEGY: ApprovalStrategy,
    Capability.STORAGE: Storage,
    Capability.ERASER: Eraser,
    Capability.HEARTBEAT: Heartbeat,
    Capability.RESOURCE: Resource,
    Capability.AUDIT_SINK: AuditSink,
    Capability.TENANT_RESOLVER: TenantResolver,
}
#: What a thing says of itself beside what its contract wants to be there.
_DECLARATIONS: Mapping[Capability, Callable[[Any], list[str]]] = {
    Capability.CONDITION: conditions.declaration_faults,
    Capability.RESOURCE: resources.declaration_faults,
}


def includeme(config: Configurator) -> None:
    """Make the directives known; ``nexus.plugins`` of the registry takes what they add."""
    if "nexus.host" not in config.registry:
        config.registry["nexus.host"] = Host.read(config.registry.settings)
    for directive in (
        add_marketing_plugin,
        add_marketing_channel,
        add_marketing_action,
        add_marketing_condition,
        add_marketing_trigger,
        add_marketing_metric,
        add_marketing_approval_strategy,
        set_marketing_storage,
        add_marketing_eraser,
        add_marketing_heartbeat,
        add_marketing_resource,
        add_marketing_audit_sink,
        add_marketing_tenant_resolver,
    ):
        config.add_directive(directive.__name__, directive)


def add_marketing_plugin(config: Configurator, manifest: Manifest | str) -> PluginContext:
    """Say who the plugin is; everything else that its include adds is the plugin's. Answers what it is given."""
    found: Manifest = _resolved(config, manifest)
    check_manifest(found)
    _registry(config).admit(found, tuple(config.includepath))
    shown = config.introspectable("marketing plugins", found.name, f"{found.name} {found.version}", "marketing plugin")
    shown["manifest"] = found
    config.action(("marketing", "plugin", found.name), introspectables=(shown,))
    host: Host = config.registry["nexus.host"]
    settings = own_settings(config.registry.settings, found.name, module_of(tuple(config.includepath)))
    return PluginContext(found.name, host.http(found, is_trusted=True), host.clock, settings)


def add_marketing_channel(config: Configurator, channel: Channel | type[Channel] | str) -> None:
    """Add a way to reach people."""
    _add(config, Capability.CHANNEL, channel)


def add_marketing_action(config: Configurator, action: Action | type[Action] | str) -> None:
    """Add something that is done by its name."""
    _add(config, Capability.ACTION, action)


def add_marketing_condition(
    config: Configurator, condition: ConditionEvaluator | type[ConditionEvaluator] | str
) -> None:
    """Add a word to the language of conditions."""
    _add(config, Capability.CONDITION, condition)


def add_marketing_trigger(config: Configurator, trigger: Trigger | type[Trigger] | str) -> None:
    """Add something that sets actions off."""
    _add(config, Capability.TRIGGER, trigger)


def add_marketing_metric(config: Configurator, metric: MetricCalculator | type[MetricCalculator] | str) -> None:
    """Add a number of one's own."""
    _add(config, Capability.METRIC, metric)


def add_marketing_approval_strategy(
    config: Configurator, strategy: ApprovalStrategy | type[ApprovalStrategy] | str
) -> None:
    """Add a way to decide when enough people agreed."""
    _add(config, Capability.APPROVAL_STRATEGY, strategy)


def set_marketing_storage(config: Configurator, storage: Storage | type[Storage] | str) -> None:
    """Keep the campaigns of ``HasMarketing`` objects of this process there, as ``nexus_marketing.use_storage`` does."""
    _add(config, Capability.STORAGE, storage)


def add_marketing_eraser(config: Configurator, eraser: Eraser | type[Eraser] | str) -> None:
    """Be told of leads that are erased; an erasure is finished when every eraser is."""
    _add(config, Capability.ERASER, eraser)


def add_marketing_heartbeat(config: Configurator, heartbeat: Heartbeat | type[Heartbeat] | str) -> None:
    """Be asked by ``/__heartbeat__``."""
    _add(config, Capability.HEARTBEAT, heartbeat)


def add_marketing_resource(config: Configurator, resource: Resource | type[Resource] | str) -> None:
    """Add to the API, below ``/api/v1/x/{plugin}/``; the plugin has said before who it is."""
    thing = _add(config, Capability.RESOURCE, resource)
    owner = _registry(config).announced(tuple(config.includepath))
    resources.add_views(config, resources.check_owner(owner, thing.name), thing)


def add_marketing_audit_sink(config: Configurator, sink: AuditSink | type[AuditSink] | str) -> None:
    """Take a copy of the audit elsewhere."""
    _add(config, Capability.AUDIT_SINK, sink)


def add_marketing_tenant_resolver(config: Configurator, resolver: TenantResolver | type[TenantResolver] | str) -> None:
    """Say for whom requests act that bring no API key; one plugin of a process does, and none in the sandbox."""
    _add(config, Capability.TENANT_RESOLVER, resolver)


def _add(config: Configurator, kind: Capability, given: object) -> Any:
    thing = _made(_resolved(config, given), kind)
    name = str(kind) if kind in SINGLE else str(getattr(thing, "name", ""))
    label = _label(thing)
    missing = missing_parts(CONTRACTS[kind], thing)
    if missing:
        raise ConfigurationError(f"{label} is no {kind.replace('_', ' ')}: it lacks {', '.join(missing)}.")
    if not _is_name(name):
        raise ConfigurationError(f"{label} is named {name!a:.60}: write up to 40 of a-z, 0-9 and _, a letter first.")
    faults = _DECLARATIONS[kind](thing) if kind in _DECLARATIONS else []
    if faults:
        raise ConfigurationError(f"{label} is no {kind}: {' '.join(faults)}")
    entry = Entry(kind, name, thing, tuple(config.includepath))
    registry = _registry(config)
    registry.claim(entry)
    shown = config.introspectable(f"marketing {kind}s", name, label, f"marketing {kind}")
    shown["thing"] = thing
    config.action(("marketing", str(kind), name), registry.put, (entry,), introspectables=(shown,))
    return thing


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name.islower() and len(name) <= 40


def _registry(config: Configurator) -> PluginRegistry:
    registry: PluginRegistry = config.registry["nexus.plugins"]
    return registry


def _resolved(config: Configurator, given: object) -> Any:
    try:
        return config.maybe_dotted(given)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{given!a:.100} cannot be loaded: {error}.") from error


def _made(given: Any, kind: Capability) -> Any:
    if not inspect.isclass(given):
        return given
    try:
        return given()
    except TypeError as error:
        said = f"add an object of it instead ({error})."
        raise ConfigurationError(f"{_label(given)} is no {kind} that can be made without arguments: {said}") from error


def _label(thing: object) -> str:
    kind = thing if inspect.isclass(thing) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
