"""Asking a plugin for what its resource answers: outside of any transaction, and whatever it does stays with it."""

from typing import Final

import orjson

from nexus_marketing.core.errors import Conflict, NotFound, PermissionDenied, ValidationError
from nexus_marketing.core.extensions import Resource, ResourceAnswer, ResourceCall
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.plugins.asking import ask_plugin

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
    return ask_plugin(runtime, plugin, resource.name, lambda: _read(resource.answer(call)), _REFUSALS)


def _read(answer: object) -> tuple[int, bytes]:
    if not isinstance(answer, ResourceAnswer) or answer.status not in _STATUSES:
        raise TypeError("not a ResourceAnswer with a status from 200 to 499")
    body = b"" if answer.body is None else orjson.dumps(answer.body)
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    return answer.status, body
