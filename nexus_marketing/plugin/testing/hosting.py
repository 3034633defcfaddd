"""A plugin taken in as a deployment does, for its own tests: in this process or in the sandbox."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.rehearsal import rehearse
from nexus_marketing.plugin.sandbox.probe import refusal


@contextmanager
def hosted(
    module: str, settings: Mapping[str, str] | None = None, *, sandboxed: bool = False
) -> Iterator[PluginRegistry]:
    """What a plugin adds, by kind: ``registry.channels["slack"]``, ``registry.of("metric")["revenue"]``.

    Args:
        module: as ``nexus.includes`` would name it.
        settings: lines of the ini file: the plugin's own, ``nexus.plugins.grants``, ``nexus.http.allow_hosts``.
        sandboxed: in a process of its own; the test is skipped where the kernel refuses one.

    Raises:
        ConfigurationError: the plugin would stop the boot, or could not be started in the sandbox.
    """
    if sandboxed and refusal():
        pytest.skip(refusal())
    registry = rehearse({**(settings or {}), **({"nexus.plugins.untrusted": module} if sandboxed else {})}, module)
    try:
        if registry.refused:
            raise ConfigurationError("; ".join(registry.refused.values()))
        yield registry
    finally:
        registry.close()
