"""Calls of plugins in our own process: timed, counted by their circuits, and whatever they raise stays with them."""

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.plugin.sandbox.pools import reason_of
from nexus_marketing.runtime import Runtime

Found = TypeVar("Found")


def ask_plugin(
    runtime: Runtime,
    plugin: Plugin,
    name: str,
    call: Callable[[], Found],
    refusals: tuple[type[Exception], ...] = (),
) -> Found:
    """What a call of a plugin answers, in the sandbox or not.

    Args:
        runtime: of the process.
        plugin: who is asked.
        name: of its thing that is asked, for people.
        call: asks, and makes of the answer what the caller wants.
        refusals: what it may raise without being to blame.

    Raises:
        PluginFailed: it failed, or is left alone after that.
    """
    host = runtime.plugins.host
    circuit = host.circuit(plugin.name)
    circuit.check()
    begun = perf_counter()
    try:
        found = call()
    except refusals:
        raise
    except PluginFailed as error:  # of one in the sandbox, which is watched where its process is
        said, after = f"The plugin {plugin.name} failed: {reason_of(error)}.", error.retry_after_seconds
        raise PluginFailed(said, retry_after_seconds=after) from error
    except Exception as error:
        reason = f"{name} raised {type(error).__name__}"
        circuit.failed(reason)
        raise PluginFailed(f"The plugin {plugin.name} failed: {reason}.") from error
    taken = perf_counter() - begun
    if taken > host.plugins.call_seconds:
        circuit.failed(f"{name} took {taken:.1f} s, more than {host.plugins.call_seconds:g} s")
    elif circuit.failures:
        circuit.succeeded()
    return found
