"""Plugins as strangers write them, for tests of the host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nexus_marketing.config import rehearse
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.db.switches import Switches
from nexus_marketing.plugin import (
    API_VERSION,
    ActionCall,
    ActionOutcome,
    ActionResult,
    Capability,
    ConditionContext,
    Erasure,
    Manifest,
    Occasion,
    OccasionKind,
    Parameter,
    ValueKind,
)
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime

SETTINGS = {"station": {"type": "string", "maxlength": 20}, "pages": {"type": "integer", "min": 1}}


@dataclass(slots=True)
class FaxChannel(RecordingChannel):
    """Remembers also what it was opened with; a station named ``closed`` is refused, one named ``broken`` breaks it."""

    name: str = "fax"
    address_kind: AddressKind = AddressKind.NONE
    opened: list[dict[str, Any]] = field(default_factory=list)

    def validate(self, settings: Any) -> None:
        """Look at the station."""
        if settings.get("station") == "broken":
            raise RuntimeError("a bug of its author")
        if settings.get("station") == "closed":
            raise ValidationError.at("station", "closed", "This station is closed: name another.")

    def open(self, settings: Any, content: Any) -> Any:
        """Remember the settings."""
        self.opened.append(dict(settings))
        return RecordingChannel.open(self, settings, content)


@dataclass(slots=True)
class Shredder:
    """Clears what it is told of, after failing so many times."""

    name: str = "fax_papers"
    failures: int = 0
    asked: list[Erasure] = field(default_factory=list)

    def erase(self, erasure: Erasure) -> int:
        """Clear."""
        self.asked.append(erasure)
        if self.failures:
            self.failures -= 1
            raise OSError("the archive is closed")
        return 3


@dataclass(slots=True)
class Pulse:
    """Alive until told otherwise."""

    name: str = "fax_line"
    state: bool | Exception = True

    def answers(self) -> bool:
        """The state."""
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


@dataclass(slots=True)
class Deed:
    """An action that does a thing once for a key, answers as its script says, then that it is done, and may die over it."""

    name: str
    script: list[Any] = field(default_factory=list)
    calls: list[ActionCall] = field(default_factory=list)
    #: Keys in the order in which something was done for them.
    done: list[str] = field(default_factory=list)

    def run(self, call: ActionCall) -> Any:
        """Do it, unless the script says that it fails."""
        self.calls.append(call)
        answer = self.script.pop(0) if self.script else ActionOutcome(ActionResult.DONE, "did it")
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, ActionOutcome) and answer.result is ActionResult.DONE and call.key not in self.done:
            self.done.append(call.key)
        return answer


@dataclass(slots=True)
class Multiple:
    """``multiple(n)``: the lead's score is a multiple of it, and never where a bug of its author is turned on."""

    name: str = "multiple"
    version: int = 1
    parameters: tuple[Parameter, ...] = (Parameter("of", ValueKind.NUMBER),)
    reads: frozenset[str] = frozenset({"score"})
    reads_clock: bool = False
    is_broken: bool = False
    asked: int = 0

    def evaluate(self, context: ConditionContext) -> bool:
        """By the score alone."""
        self.asked += 1
        if self.is_broken:
            raise RuntimeError("a bug of its author")
        score = context.values.get("score")
        return type(score) in (int, float) and score % context.arguments["of"] == 0


class Warm:
    """``warm()``: a score of 50 and more, as the databases answer it."""

    name = "warm"
    version = 1
    parameters = ()
    reads = frozenset({"score"})
    reads_clock = False

    def evaluate(self, context: ConditionContext) -> bool:
        """The same in Python."""
        score = context.values.get("score", 0)
        return type(score) in (int, float) and bool(score >= 50)

    def to_sql(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """In the language."""
        return {"field": "score", "operator": ">=", "value": 50}


def words_plugin(*conditions: Any) -> Callable[[Any], None]:
    """A plugin that adds these conditions."""

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("nexus-words", Capability.CONDITION))
        for condition in conditions:
            config.add_marketing_condition(condition)

    return include


@dataclass(slots=True)
class Bell:
    """A trigger that lets in whom its script says, in order; what is no list of firings is raised or answered as it is."""

    name: str
    kinds: frozenset[OccasionKind]
    script: list[Any] = field(default_factory=list)
    asked: list[Occasion] = field(default_factory=list)

    def fire(self, occasion: Occasion) -> Any:
        """Answer as the script says; nobody where it is at its end."""
        self.asked.append(occasion)
        answer = self.script.pop(0) if self.script else []
        if isinstance(answer, BaseException):
            raise answer
        return answer


def bells_plugin(*bells: Any, name: str = "nexus-bells") -> Callable[[Any], None]:
    """A plugin that adds these triggers."""

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest(name, Capability.TRIGGER, settings=SETTINGS))
        for bell in bells:
            config.add_marketing_trigger(bell)

    return include


def deeds_plugin(*deeds: Any, name: str = "nexus-deeds") -> Callable[[Any], None]:
    """A plugin that adds these actions."""

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest(name, Capability.ACTION, settings=SETTINGS))
        for deed in deeds:
            config.add_marketing_action(deed)

    return include


def manifest(name: str, *capabilities: Capability, **values: Any) -> Manifest:
    """A manifest for this version."""
    return Manifest(name, "1.0", API_VERSION, frozenset(capabilities), **values)


def includeme(config: Any) -> None:
    """The plugin as a deployment includes it."""
    fax_plugin(FaxChannel())(config)


def with_storage(config: Any) -> None:
    """A plugin that keeps campaigns."""
    config.add_marketing_plugin(manifest("keeper", Capability.STORAGE))
    config.set_marketing_storage(MemoryStorage)


def as_email(config: Any) -> None:
    """A plugin that wants a name that is taken."""
    config.add_marketing_plugin(manifest("pretender", Capability.CHANNEL))
    config.add_marketing_channel(RecordingChannel)


def fax_plugin(channel: Any, *others: Any) -> Callable[[Any], None]:
    """A plugin with this channel, and with erasers and heartbeats."""

    def include(config: Any) -> None:
        kinds = (Capability.CHANNEL, Capability.ERASER, Capability.HEARTBEAT)
        config.add_marketing_plugin(manifest("nexus-fax", *kinds, settings=SETTINGS))
        config.add_marketing_channel(channel)
        for other in others:
            add = config.add_marketing_eraser if isinstance(other, Shredder) else config.add_marketing_heartbeat
            add(other)

    return include


def with_plugins(runtime: Runtime, *includes: Any, settings: Mapping[str, str] | None = None) -> Runtime:
    """A process that has these plugins, on the databases of a runtime."""
    registry = rehearse(settings or {}, *includes)
    return replace(runtime, plugins=registry, channels={**runtime.channels, **registry.channels}, switches=Switches())


@dataclass(slots=True)
class Claims:
    """A tenant resolver that says what a request's environment has for it; raises what is an exception, calls what can be."""

    def resolve(self, request: Any) -> Any:
        """As the environment says."""
        claim = request.environ.get("test.claim")
        if isinstance(claim, Exception):
            raise claim
        return claim(request) if callable(claim) else claim


def claims_plugin(config: Any) -> None:
    """An application around the product that asks for tokens wherever it can, and has a view of its own."""
    config.add_marketing_plugin(manifest("nexus-claims", Capability.TENANT_RESOLVER, settings=SETTINGS))
    config.add_marketing_tenant_resolver(Claims)
    config.set_default_csrf_options(require_csrf=True)
    config.add_route("own", "/own")
    config.add_view(
        lambda request: {"who": request.authenticated_userid},
        route_name="own",
        renderer="json",
        permission="leads:read",
    )
