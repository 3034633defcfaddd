"""What a plugin says about itself, and whether this version of the product can take it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from nexus_marketing.core.errors import ConfigurationError

#: MAJOR.MINOR of the contracts: a new minor adds, a new major changes.
API_VERSION: Final = "1.0"

_NAME = re.compile(r"[a-z][a-z0-9_-]{1,62}").fullmatch
_HOST = re.compile(r"(\*\.)?[^\s:/@*\[\]]+(:[0-9]{1,5})?").fullmatch
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})").fullmatch


class Capability(StrEnum):
    """Kinds of things that a plugin may add."""

    CHANNEL = "channel"
    ACTION = "action"
    CONDITION = "condition"
    TRIGGER = "trigger"
    METRIC = "metric"
    APPROVAL_STRATEGY = "approval_strategy"
    STORAGE = "storage"
    ERASER = "eraser"
    HEARTBEAT = "heartbeat"
    RESOURCE = "resource"
    AUDIT_SINK = "audit_sink"
    TENANT_RESOLVER = "tenant_resolver"


#: One for a process: they have no names of their own, and who adds a second stops the boot.
SINGLE: Final = frozenset({Capability.STORAGE, Capability.TENANT_RESOLVER})


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who a plugin is.

    Args:
        name: 2 to 63 of ``a-z``, ``0-9``, ``-`` and ``_``, a letter first.
        version: its own.
        api: the version of the contracts that it was written for, ``API_VERSION`` of that time.
        capabilities: what it adds; adding anything else stops the boot.
        settings: a Cerberus schema of what a tenant sets for it. ``"meta": {"secret": True}`` marks what is a secret: it
            is stored encrypted, handed over with the others, and shown to nobody.
        hosts: what it asks through ``ctx.http``: ``hooks.example.com``, ``hooks.example.com:8443`` or ``*.example.com``.
    """

    name: str
    version: str
    api: str
    capabilities: frozenset[Capability]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the settings that are marked as secrets."""
        return frozenset(name for name, rules in self.settings.items() if (rules.get("meta") or {}).get("secret"))


def check_manifest(manifest: Manifest) -> None:
    """Hold a manifest against what this version takes.

    Raises:
        ConfigurationError: names the fault and the remedy.
    """
    if not isinstance(manifest, Manifest):
        raise ConfigurationError(f"{manifest!a:.80} is no manifest: write nexus_marketing.plugin.Manifest(…).")
    if not _NAME(str(manifest.name)):
        said = "write 2 to 63 of a-z, 0-9, - and _, a letter first."
        raise ConfigurationError(f"{manifest.name!a:.80} is no name of a plugin: {said}")
    refusal = incompatible(manifest)
    if refusal:
        raise ConfigurationError(refusal)
    unknown = [str(each) for each in manifest.capabilities if each not in tuple(Capability)]
    if unknown:
        said = f"known are {', '.join(Capability)}."
        raise ConfigurationError(f"The plugin {manifest.name} names capabilities that there are not: {unknown}; {said}")
    for host in manifest.hosts:
        if not _HOST(str(host)):
            said = "write hooks.example.com, hooks.example.com:8443 or *.example.com."
            raise ConfigurationError(
                f"The plugin {manifest.name} asks for the host {host!a:.80}, which is none: {said}"
            )
    _check_schema(manifest)


def incompatible(manifest: Manifest) -> str | None:
    """Why this version cannot take a plugin, with the remedy; nothing where it can.

    >>> incompatible(Manifest("echo", "1.0", "9.0", frozenset()))
    'The plugin echo 1.0 is written for plugin API 9.0, this version has 1.0: upgrade nexus-marketing.'
    """
    name = f"The plugin {manifest.name} {manifest.version}"
    theirs, ours = _VERSION(str(manifest.api)), _VERSION(API_VERSION)
    if theirs is None or ours is None:
        return f"{name} is written for plugin API {manifest.api!a:.20}, which is no version: write {API_VERSION!r}."
    wanted, there = (tuple(map(int, each.groups())) for each in (theirs, ours))
    if wanted[0] < there[0]:
        remedy = f"install a release of the plugin for API {there[0]}.x"
    elif wanted > there:
        remedy = "upgrade nexus-marketing"
    else:
        return None
    return f"{name} is written for plugin API {manifest.api}, this version has {API_VERSION}: {remedy}."


def _check_schema(manifest: Manifest) -> None:
    from cerberus import SchemaError  # noqa: PLC0415 - programs that only listen load no Cerberus

    from nexus_marketing.core.schemas import DocumentValidator  # noqa: PLC0415 - see above

    try:
        DocumentValidator(dict(manifest.settings))
    except SchemaError as error:
        raise ConfigurationError(f"The settings of the plugin {manifest.name} are no schema: {error}.") from error
