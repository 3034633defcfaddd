"""Taking a sandboxed plugin in: its process says what it adds, and proxies of that are registered like anybody's.

One that cannot be started stops nobody's boot. It is not there, and the operator is told why.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyramid.config import Configurator

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.contexts import own_settings
from nexus_marketing.plugin.hosts import Host
from nexus_marketing.plugin.manifests import Capability, Manifest
from nexus_marketing.plugin.registry import SANDBOXED, PluginRegistry
from nexus_marketing.plugin.sandbox.children import Order
from nexus_marketing.plugin.sandbox.pools import Pool
from nexus_marketing.plugin.sandbox.remote_channels import channel_kind
from nexus_marketing.plugin.sandbox.remotes import remote_kind
from nexus_marketing.plugin.sandbox.wire import Garbage, reader
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_MANIFEST = reader(Manifest)


def sandboxed(module: str) -> Callable[[Configurator], None]:
    """An include that runs a module's plugin in the sandbox; the module is not imported here."""

    def include(config: Configurator) -> None:
        registry: PluginRegistry = config.registry["nexus.plugins"]
        host: Host = config.registry["nexus.host"]
        name = module.partition(".")[0].replace("_", "-")
        own = own_settings(config.registry.settings, name, module)
        limits = host.plugins
        order = Order(module, own, limits.memory_mb << 20, limits.call_seconds)
        pool = Pool(order, host.circuit(name))
        registry.at_end(pool.close)
        try:
            described = pool.described()
            manifest = _manifest(described, module)
            things = [_remote(pool, number, each) for number, each in enumerate(described["things"])]
            add = _adding(module, manifest, things)
            _try_alone(host, add)
            _refuse_taken(registry, module, things)
        except (PluginFailed, Garbage, ConfigurationError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = getattr(error, "message", None) or f"{module} is not started: it says nothing sensible ({error!r})"
            registry.refuse(module, reason)
            return
        pool.grant(host.http(manifest, is_trusted=False))
        add(config)

    # Whose include this is, is read off its name.
    include.__name__ = f"{SANDBOXED}{module}"
    return include


def _adding(
    module: str, manifest: Manifest, things: Sequence[tuple[Capability, Any]]
) -> Callable[[Configurator], None]:
    def add(config: Configurator) -> None:
        config.add_marketing_plugin(manifest)
        for kind, thing in things:
            getattr(config, f"add_marketing_{kind}")(thing)

    add.__name__ = f"{SANDBOXED}{module}"
    return add


def _try_alone(host: Host, add: Callable[[Configurator], None]) -> None:
    """What a plugin adds, taken in where nobody else is.

    Raises:
        ConfigurationError: it would stop a boot.
    """
    from nexus_marketing.plugin.rehearsal import settle  # noqa: PLC0415 - which takes in sandboxed ones by this module

    trial = Configurator()
    trial.registry["nexus.host"], trial.registry["nexus.plugins"] = host, PluginRegistry(host)
    trial.include("nexus_marketing.plugin.directives")
    trial.include(add)
    settle(trial)


def _refuse_taken(registry: PluginRegistry, module: str, things: Sequence[tuple[Capability, Any]]) -> None:
    for kind, thing in things:
        if registry.is_claimed(kind, thing.name):
            said = f"somebody else has the {kind.replace('_', ' ')} {thing.name!r} already"
            raise ConfigurationError(f"{module} is not started: {said}.")


def _manifest(described: Mapping[str, Any], module: str) -> Manifest:
    manifest: Manifest = _MANIFEST(described["manifest"])
    if manifest.name.replace("-", "_") != module.partition(".")[0]:
        # Grants and secrets go by the name: nobody may take another's.
        wanted = module.partition(".")[0].replace("_", "-")
        raise Garbage(f"{module} is not started: in the sandbox a plugin is named after its module, {wanted}")
    return manifest


def _remote(pool: Pool, number: int, described: Mapping[str, Any]) -> tuple[Capability, Any]:
    kind, optional = Capability(described["kind"]), described["optional"]
    make = channel_kind(optional) if kind is Capability.CHANNEL else remote_kind(kind, optional)
    return kind, make(pool, number, described["attributes"])


def log_refused(registry: PluginRegistry) -> None:
    """What could not be started, in the log of a process that works; commands show it in their own way."""
    for module, reason in registry.refused.items():
        log.error("plugin_not_started", plugin=module, reason=reason)
