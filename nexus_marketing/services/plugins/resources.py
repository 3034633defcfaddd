"""Asking a plugin for what its resource answers: outside of any transaction, and whatever it does stays with it."""

from time import perf_counter
from typing import Final

import orjson

from nexus_marketing.core.errors import Conflict, NotFound, PermissionDenied, ValidationError
from nexus_marketing.core.extensions import Resource, ResourceAnswer, ResourceCall
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.plugin.sandbox.pools import reason_of
from nexus_marketing.runtime import Runtime

MAX_ANSWER_BYTES: Final = 1_000_000
_STATUSES: Final = range(200, 500)
#: What a plugin may refuse a call with; anything else that it raises is its own fault.
_REFUSALS: Final = (ValidationError, NotFound, Conflict, PermissionDenied)


def ask_resource(runtime: Runtime, plugin: Plugin, resource: Resource, call: ResourceCall) -> tuple[int, bytes]:
    """The status and the JSON that a plugin answers a call with; no JSON where it answers nothing.

    Raises:
        ValidationError: the plugin refuses what it was sent; so for what is not found, conflicts or is not permitted.
        PluginFailed: it failed, answered what is none, or is left alone after that.
    """
    host = runtime.plugins.host
    circuit = host.circuit(plugin.name)
    circuit.check()
    begun = perf_counter()
    try:
        status, body = _read(resource.answer(call))
    except _REFUSALS:
        raise
    except PluginFailed as error:  # of one in the sandbox, which is watched where its process is
        said, after = f"The plugin {plugin.name} failed: {reason_of(error)}.", error.retry_after_seconds
        raise PluginFailed(said, retry_after_seconds=after) from error
    except Exception as error:
        reason = f"{resource.name} raised {type(error).__name__}"
        circuit.failed(reason)
        raise PluginFailed(f"The plugin {plugin.name} failed: {reason}.") from error
    taken = perf_counter() - begun
    if taken > host.plugins.call_seconds:
        circuit.failed(f"{resource.name} took {taken:.1f} s, more than {host.plugins.call_seconds:g} s")
    elif circuit.failures:
        circuit.succeeded()
    return status, body


def _read(answer: object) -> tuple[int, bytes]:
    if not isinstance(answer, ResourceAnswer) or answer.status not in _STATUSES:
        raise TypeError("not a ResourceAnswer with a status from 200 to 499")
    body = b"" if answer.body is None else orjson.dumps(answer.body)
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    return answer.status, body
