"""Taking plugins in without the rest of the product: to check them, and for tests."""

from collections.abc import Callable, Mapping

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.plugin.hosts import Host
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.sandbox.hosting import sandboxed


def rehearse(settings: Mapping[str, str], *modules: str | Callable[[Configurator], None]) -> PluginRegistry:
    """What these plugins would add, without ours; the process stays as it is. Whoever asks closes the registry.

    Those of ``nexus.plugins.untrusted`` are started in the sandbox.

    Raises:
        ConfigurationError: they would stop the boot.
    """
    registry: PluginRegistry = rehearsed(settings, *modules).registry["nexus.plugins"]
    return registry


def rehearsed(settings: Mapping[str, str], *modules: str | Callable[[Configurator], None]) -> Configurator:
    """The same with what else they told Pyramid; ``nexus.plugins`` of its registry is what :func:`rehearse` answers.

    Raises:
        ConfigurationError: they would stop the boot.
    """
    config = Configurator(settings=dict(settings))
    host = config.registry["nexus.host"] = Host.read(settings)
    registry = config.registry["nexus.plugins"] = PluginRegistry(host)
    registry.at_end(host.close)
    config.include("nexus_marketing.plugin.directives")
    try:
        for module in modules:
            config.include(sandboxed(module) if module in host.plugins.untrusted else module)
        settle(config)
    except BaseException:
        registry.close()
        raise
    return config


def settle(config: Configurator) -> None:
    """Commit what was included and freeze the registry.

    Raises:
        ConfigurationError: two claim one name, each named, or one adds what it did not announce.
    """
    registry: PluginRegistry = config.registry["nexus.plugins"]
    try:
        config.commit()
    except ConfigurationConflictError as error:
        ours = [key for key in error._conflicts if isinstance(key, tuple) and key[0] == "marketing"]  # noqa: SLF001 - its text names lines, not plugins
        if not ours:
            raise
        raise ConfigurationError(" ".join(registry.conflict(*key[1:]) for key in ours)) from error
    registry.freeze()
