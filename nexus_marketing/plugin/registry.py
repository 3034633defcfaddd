"""What the plugins of this process added: filled while it starts, frozen before it works.

Web, workers and command line all get theirs from ``config``, so that they agree.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nexus_marketing.core.conditions import CustomOperator, Vocabulary
from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.extensions import AuditSink, Eraser, Heartbeat, TenantResolver
from nexus_marketing.core.storages import Storage
from nexus_marketing.plugin.conditions import operator_of, vocabulary_of
from nexus_marketing.plugin.hosts import Host
from nexus_marketing.plugin.manifests import SINGLE, Capability, Manifest

#: How an include is reached: one ``module:function`` after another.
Path = tuple[str, ...]
_BUILTINS = "nexus_marketing.builtins."
#: How the include of a plugin begins that runs in the sandbox; its module follows.
SANDBOXED = "sandboxed "


@dataclass(frozen=True, slots=True)
class Plugin:
    """An active plugin; ``module`` is what ``nexus.includes`` names. Built-in ones are on for every tenant."""

    manifest: Manifest
    module: str
    is_builtin: bool
    is_sandboxed: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was added."""

    kind: Capability
    name: str
    thing: Any
    path: Path


class PluginRegistry:
    """Plugins and what they added, by kind and name."""

    def __init__(self, host: Host | None = None) -> None:
        #: What the plugins of this process are given.
        self.host = host or Host()
        self._manifests: dict[Path, Manifest] = {}
        self._claims: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
        self._entries: dict[tuple[str, str], Entry] = {}
        self._owners: dict[tuple[str, str], Plugin] = {}
        self._plugins: dict[str, Plugin] = {}
        self._by_kind: dict[str, dict[str, Any]] = {kind: {} for kind in Capability}
        self._at_end: list[Callable[[], None]] = []
        self._is_frozen = False
        self._refused: dict[str, str] = {}
        self._operators: dict[str, tuple[str, CustomOperator]] = {}
        self._vocabularies: dict[tuple[frozenset[str] | None, bool], Vocabulary] = {}

    def admit(self, manifest: Manifest, path: Path) -> None:
        """A plugin says who it is."""
        self._refuse_late()
        if path in self._manifests:
            raise ConfigurationError(f"{module_of(path)} says twice who it is: {manifest.name} is the second name.")
        self._manifests[path] = manifest
        self._claims["plugin", manifest.name].append(path)

    def announced(self, path: Path) -> str | None:
        """The name of the plugin that an include belongs to, if it has said by now who it is."""
        owner = self._owner(path)
        return None if owner is None else self._manifests[owner].name

    def claim(self, entry: Entry) -> None:
        """Remember who wants a name, so that a conflict can name both."""
        self._refuse_late()
        self._claims[entry.kind, entry.name].append(entry.path)

    def is_claimed(self, kind: str, name: str) -> bool:
        """Whether somebody wants this name already."""
        return (kind, name) in self._claims

    def put(self, entry: Entry) -> None:
        """Take what was added."""
        self._refuse_late()
        self._entries[entry.kind, entry.name] = entry

    def refuse(self, module: str, reason: str) -> None:
        """A sandboxed plugin could not be started."""
        self._refused[module] = reason

    def freeze(self) -> None:
        """Nothing is added from here on.

        Raises:
            ConfigurationError: something was added by nobody, or by a plugin that had not said that it would.
        """
        self._refuse_late()
        plugins = {path: _plugin(manifest, path) for path, manifest in self._manifests.items()}
        for key, entry in self._entries.items():
            owner = self._owner(entry.path)
            if owner is None:
                said = "call config.add_marketing_plugin(Manifest(…)) beside it."
                raise ConfigurationError(f"{module_of(entry.path)} adds the {_said(*key)} and not who it is: {said}")
            if entry.kind not in self._manifests[owner].capabilities:
                said = f"add Capability.{entry.kind.name} to its manifest."
                raise ConfigurationError(f"The plugin {plugins[owner].name} adds the {_said(*key)} unannounced: {said}")
            self._owners[key] = plugins[owner]
            self._by_kind[entry.kind][entry.name] = entry.thing
        self._plugins = {each.name: each for each in plugins.values()}
        self._operators = {name: self._operator(name, thing) for name, thing in self.of(Capability.CONDITION).items()}
        self._is_frozen = True

    def conflict(self, kind: str, name: str) -> str:
        """Who claims one name, for people."""
        paths = self._claims[kind, name]
        claimants = [self._who(path) for path in paths]
        if len(set(paths)) == 1:
            return f"{claimants[0]} adds the {_said(kind, name)} twice: take one of them out."
        both = " and ".join(claimants)
        return f"{both} both claim the {_said(kind, name)}: take one of them out of nexus.includes."

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """The active ones by name, built-in ones included."""
        return MappingProxyType(self._plugins)

    @property
    def refused(self) -> Mapping[str, str]:
        """Why plugins that are not trusted were not started, by module."""
        return MappingProxyType(self._refused)

    @property
    def channels(self) -> Mapping[str, Channel]:
        """The channels by name; filled once the registry is frozen."""
        return self.of(Capability.CHANNEL)

    @property
    def erasers(self) -> Mapping[str, Eraser]:
        """Who is told of erased leads."""
        return self.of(Capability.ERASER)

    @property
    def audit_sinks(self) -> Mapping[str, AuditSink]:
        """Who is told what the audit holds."""
        return self.of(Capability.AUDIT_SINK)

    @property
    def tenant_resolver(self) -> tuple[Plugin, TenantResolver] | None:
        """Who says for whom a request without a key acts, and whose it is."""
        kind = Capability.TENANT_RESOLVER
        return next(((self._owners[kind, name], thing) for name, thing in self.of(kind).items()), None)

    @property
    def heartbeats(self) -> Mapping[str, Heartbeat]:
        """Who is asked by ``/__heartbeat__``."""
        return self.of(Capability.HEARTBEAT)

    def conditions(self, on: frozenset[str] | None = None, *, is_saved: bool = False) -> Vocabulary:
        """The conditions that plugins added: the same object for the same question, to be a key of what is kept.

        Args:
            on: the plugins that a tenant has on; all where it is left out.
            is_saved: for what was saved, and may name what is gone or off by now.
        """
        asked = on if on is None else on & {plugin for plugin, _ in self._operators.values()}
        found = self._vocabularies.get((asked, is_saved))
        if found is None:
            made = vocabulary_of(self._operators, asked, is_saved=is_saved)
            found = self._vocabularies.setdefault((asked, is_saved), made)
        return found

    @property
    def storage(self) -> Storage | None:
        """What keeps the campaigns of this process's objects, where a plugin said so."""
        return next(iter(self.of(Capability.STORAGE).values()), None)

    def of(self, kind: Capability) -> Mapping[str, Any]:
        """Everything of a kind by name."""
        return MappingProxyType(self._by_kind[kind])

    def owner_of(self, kind: Capability, name: str) -> Plugin | None:
        """The plugin that added it; nothing where it came from elsewhere."""
        return self._owners.get((kind, name))

    def added_by(self, plugin: str) -> Iterable[Entry]:
        """Everything that a plugin added."""
        return [self._entries[key] for key, owner in self._owners.items() if owner.name == plugin]

    def at_end(self, action: Callable[[], None]) -> None:
        """Do this when the process lets go of its parts."""
        self._at_end.append(action)

    def close(self) -> None:
        """Undo what was done to the process."""
        while self._at_end:
            self._at_end.pop()()

    def _operator(self, name: str, thing: Any) -> tuple[str, CustomOperator]:
        plugin, host = self._owners[Capability.CONDITION, name], self.host
        made = operator_of(thing, host.circuit(plugin.name), host.plugins.call_seconds)
        return "" if plugin.is_builtin else plugin.name, made

    def _owner(self, path: Path) -> Path | None:
        return next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self._manifests), None)

    def _who(self, path: Path) -> str:
        owner = self._owner(path)
        return module_of(path) if owner is None else f"{self._manifests[owner].name} ({module_of(path)})"

    def _refuse_late(self) -> None:
        if self._is_frozen:
            raise ConfigurationError(
                "The registry of plugins is frozen: add to it from an includeme in nexus.includes."
            )


def module_of(path: Path) -> str:
    """Whose include this is, as ``nexus.includes`` names it."""
    return path[-1].removesuffix(":includeme").rpartition(SANDBOXED)[2] if path else "The application"


def _plugin(manifest: Manifest, path: Path) -> Plugin:
    # Whoever is included by somebody else is theirs, whatever its name says.
    is_builtin = len(path) == 1 and path[0].startswith(_BUILTINS)
    return Plugin(manifest, module_of(path), is_builtin, bool(path) and SANDBOXED in path[-1])


def _said(kind: str, name: str) -> str:
    said = kind.replace("_", " ")
    return said if kind in SINGLE else f"{said} {name!r}"
