"""The directives: what they take, and what stops the boot, with whose name."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid.config import Configurator

from nexus_marketing import config as composition
from nexus_marketing.config import make_runtime, rehearse
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.core.home import HOME
from nexus_marketing.core.memory import MemoryStorage
from nexus_marketing.plugin import API_VERSION, Capability, Manifest, Parameter, ResourceAnswer, Route, ValueKind
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.testing import RecordingChannel

pytestmark = pytest.mark.req("US-018", "FR-EXT-001", "FR-EXT-003", "FR-EXT-004", "FR-EXT-005", "FR-EXT-006")

Include = Callable[[Configurator], None]
ALL = frozenset(Capability)
EMBEDDED = {"nexus.database_url": "sqlite:///never.db", "nexus.secret_key": "x" * 40}


def manifest(name: str, **values: Any) -> Manifest:
    return Manifest(name, "1.0", **{"api": API_VERSION, "capabilities": ALL, **values})


class Fax(RecordingChannel):
    def __init__(self) -> None:
        super().__init__(name="fax")


class Nameless:
    def open(self, settings: Any) -> None:
        """Takes too little."""


def fax(config: Any) -> None:
    config.add_marketing_plugin(manifest("fax_one"))
    config.add_marketing_channel(Fax)


def other_fax(config: Any) -> None:
    config.add_marketing_plugin(manifest("fax_two"))
    config.add_marketing_channel(Fax())


def everything(config: Any) -> None:
    """One part of each kind."""
    config.add_marketing_plugin(manifest("everything"))
    config.add_marketing_channel("tests.common.plugins.FaxChannel")
    config.add_marketing_action(SimpleNamespace(name="act", run=lambda call: call))
    config.add_marketing_condition("tests.common.plugins.Warm")
    config.add_marketing_trigger(SimpleNamespace(name="trig", kinds=frozenset({"event"}), fire=lambda occasion: []))
    config.add_marketing_metric(SimpleNamespace(name="rate", unit="%", calculate=lambda figures: 1.0))
    config.add_marketing_approval_strategy(SimpleNamespace(name="two", can_proceed=lambda approvals: True))
    config.add_marketing_eraser(SimpleNamespace(name="wipe", erase=lambda erasure: 0))
    config.add_marketing_heartbeat(SimpleNamespace(name="pulse", answers=lambda: True))
    config.add_marketing_audit_sink(SimpleNamespace(name="vault", write=lambda batch: None))
    config.add_marketing_tenant_resolver(SimpleNamespace(resolve=lambda request: None))
    routes = (Route("GET", "leads:read"),)
    config.add_marketing_resource(SimpleNamespace(name="rates", routes=routes, answer=lambda call: ResourceAnswer()))
    config.set_marketing_storage(MemoryStorage())


def including(**changes: Any) -> Include:
    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("changed", **changes))

    return include


def adding(directive: str, thing: Any, **changes: Any) -> Include:
    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest("changed", **changes))
        getattr(config, directive)(thing)

    return include


def refusal(*includes: Include) -> str:
    with pytest.raises(ConfigurationError) as caught:
        rehearse({}, *includes)
    return caught.value.message


def test_every_kind_of_part_is_found_by_its_name() -> None:
    registry = rehearse({}, everything)
    names = {kind: list(registry.of(kind)) for kind in Capability}
    assert names == {
        "channel": ["fax"],
        "action": ["act"],
        "condition": ["warm"],
        "trigger": ["trig"],
        "metric": ["rate"],
        "approval_strategy": ["two"],
        "storage": ["storage"],
        "eraser": ["wipe"],
        "heartbeat": ["pulse"],
        "resource": ["rates"],
        "audit_sink": ["vault"],
        "tenant_resolver": ["tenant_resolver"],
    }
    owner = registry.owner_of(Capability.CHANNEL, "fax")
    assert owner is not None
    assert (owner.name, owner.is_builtin) == ("everything", False)
    assert registry.owner_of(Capability.CHANNEL, "nix") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "count"}, "count means something else in conditions"),
        ({"version": 0}, "version is below 1"),
        ({"reads": frozenset({"contry"})}, "reads 'contry', and there is no field 'contry'"),
        ({"parameters": ("n",)}, "parameters are up to 20 of nexus_marketing.plugin.Parameter"),
        ({"parameters": (Parameter("n", ValueKind.TEXT), Parameter("n", ValueKind.TEXT))}, "name one thing twice"),
        (
            {"parameters": (Parameter("a", ValueKind.TEXT, is_required=False), Parameter("b", ValueKind.TEXT))},
            "come last",
        ),
    ],
)
def test_a_condition_that_declares_nonsense_stops_the_boot(changes: dict[str, Any], said: str) -> None:
    made = {"name": "word", "version": 1, "parameters": (), "reads": frozenset(), "reads_clock": False}
    thing = SimpleNamespace(**{**made, **changes}, evaluate=lambda context: True)
    assert said in refusal(adding("add_marketing_condition", thing))


def test_two_plugins_that_claim_one_name_are_both_named() -> None:
    said = refusal(fax, other_fax)
    assert "fax_one" in said
    assert "fax_two" in said
    assert "channel 'fax'" in said
    assert "nexus.includes" in said


def test_two_plugins_of_one_name_are_both_named() -> None:
    def impostor(config: Any) -> None:
        config.add_marketing_plugin(manifest("fax_one"))

    said = refusal(fax, impostor)
    assert "plugin 'fax_one'" in said
    assert "test_directives:fax)" in said
    assert "impostor" in said


def test_a_channel_that_is_added_twice_is_told() -> None:
    def twice(config: Any) -> None:
        fax(config)
        config.add_marketing_channel(Fax)

    assert "adds the channel 'fax' twice" in refusal(twice)


@pytest.mark.parametrize(
    ("directive", "thing", "kind"),
    [
        ("set_marketing_storage", MemoryStorage, "the storage"),
        ("add_marketing_tenant_resolver", "tests.common.plugins.Claims", "the tenant resolver"),
    ],
)
def test_two_of_what_a_process_has_one_of_are_one_too_many(directive: str, thing: Any, kind: str) -> None:
    said = refusal(everything, adding(directive, thing))
    assert "everything" in said
    assert "changed" in said
    assert f"both claim {kind}: take one of them out of nexus.includes" in said


@pytest.mark.parametrize(
    ("api", "remedy"),
    [
        ("0.9", "install a release of the plugin for API 1.x"),
        ("2.0", "upgrade nexus-marketing"),
        ("1.999", "upgrade nexus-marketing"),
        ("one", "which is no version"),
        (None, "which is no version"),
    ],
)
def test_a_plugin_for_another_api_is_refused_with_the_remedy(api: Any, remedy: str) -> None:
    said = refusal(including(api=api))
    assert "changed 1.0" in said
    assert remedy in said


@pytest.mark.parametrize(
    ("include", "said"),
    [
        (including(capabilities=frozenset({"telepathy"})), "telepathy"),
        (including(settings={"x": {"type": "teapot"}}), "settings of the plugin changed are no schema"),
        (including(settings={"x": {"secret": True}}), "settings of the plugin changed are no schema"),
        (adding("add_marketing_channel", Fax, capabilities=frozenset({Capability.ACTION})), "unannounced"),
        (adding("add_marketing_channel", Nameless), "name, capabilities, validate(settings), open(settings, content)"),
        (adding("add_marketing_channel", RecordingChannel(name="No Name")), "'No Name'"),
        (adding("add_marketing_channel", RecordingChannel(name="x" * 41)), "up to 40"),
        (adding("add_marketing_channel", "nix.channels.Nix"), "'nix.channels.Nix' cannot be loaded"),
        (adding("set_marketing_storage", object), "load(key)"),
        (adding("add_marketing_eraser", lambda: 1), "it lacks name, erase(erasure)"),
        (
            adding("add_marketing_tenant_resolver", SimpleNamespace(resolve=lambda: None)),
            "resolve(request): its resolve",
        ),
        (lambda config: config.add_marketing_plugin(manifest("X Y")), "no name of a plugin"),
        (lambda config: config.add_marketing_plugin("os.path"), "no manifest"),
        (lambda config: config.add_marketing_channel(Fax), "not who it is"),
    ],
)
def test_what_stops_the_boot_says_what_to_mend(include: Include, said: str) -> None:
    assert said in refusal(include)


def test_a_class_that_needs_arguments_is_refused() -> None:
    class Picky(Fax):
        def __init__(self, needed: str) -> None:
            del needed
            super().__init__()

    assert "made without arguments" in refusal(adding("add_marketing_channel", Picky))


def test_a_plugin_that_says_twice_who_it_is_is_refused() -> None:
    def twice(config: Any) -> None:
        config.add_marketing_plugin(manifest("one"))
        config.add_marketing_plugin(manifest("two"))

    assert "says twice who it is" in refusal(twice)


def test_what_a_plugin_includes_is_its_own() -> None:
    def inner(config: Any) -> None:
        config.add_marketing_channel(Fax)

    def outer(config: Any) -> None:
        config.add_marketing_plugin(manifest("outer"))
        config.include(inner)

    owner = rehearse({}, outer).owner_of(Capability.CHANNEL, "fax")
    assert owner is not None
    assert owner.name == "outer"


def test_after_the_boot_nothing_is_added() -> None:
    config = Configurator()
    registry = config.registry["nexus.plugins"] = PluginRegistry()
    config.include("nexus_marketing.plugin.directives")
    registry.freeze()
    with pytest.raises(ConfigurationError, match="frozen"):
        config.include(fax)
    with pytest.raises(TypeError):
        registry.channels["fax"] = Fax()  # type: ignore[index]


def test_what_was_added_can_be_looked_up_in_pyramid() -> None:
    config = Configurator()
    config.registry["nexus.plugins"] = PluginRegistry()
    config.include("nexus_marketing.plugin.directives")
    config.include(fax)
    config.commit()
    shown = config.introspector.get("marketing channels", "fax")
    assert shown.title.endswith("Fax")
    assert config.introspector.get("marketing plugins", "fax_one")["manifest"].name == "fax_one"


class TestTheProcess:
    def test_the_built_in_channel_is_a_plugin_that_everybody_has(self) -> None:
        runtime = make_runtime(EMBEDDED)
        assert list(runtime.channels) == ["email"]
        assert runtime.plugins.plugins["email"].is_builtin
        assert runtime.plugin_of("email") is None
        runtime.close()

    def test_without_its_line_the_product_boots_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(composition, "BUILTINS", ())
        config = composition.build(EMBEDDED)
        config.make_wsgi_app()
        runtime = config.registry["nexus.runtime"]
        assert dict(runtime.channels) == {}
        runtime.close()

    def test_web_and_worker_get_the_same(self) -> None:
        settings = {**EMBEDDED, "nexus.includes": "tests.common.plugins"}
        worker, web = make_runtime(settings), composition.build(settings).registry["nexus.runtime"]
        assert list(worker.channels) == list(web.channels) == ["email", "fax"]
        assert list(worker.plugins.plugins) == list(web.plugins.plugins)
        plugin = worker.plugin_of("fax")
        assert plugin is not None
        assert plugin.module == "tests.common.plugins"
        worker.close()
        web.close()

    def test_a_storage_keeps_the_campaigns_until_the_process_lets_go(self) -> None:
        before = HOME.storage
        runtime = make_runtime({**EMBEDDED, "nexus.includes": "tests.common.plugins:with_storage"})
        assert HOME.storage is runtime.plugins.storage
        assert isinstance(HOME.storage, MemoryStorage)
        runtime.close()
        assert HOME.storage is before

    def test_a_program_that_opens_the_database_keeps_its_campaigns_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(HOME, "opener", MemoryStorage)
        before = HOME.storage
        runtime = make_runtime({**EMBEDDED, "nexus.includes": "tests.common.plugins:with_storage"})
        assert HOME.storage is before
        runtime.close()

    def test_a_name_that_is_built_in_is_not_taken_over(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            make_runtime({**EMBEDDED, "nexus.includes": "tests.common.plugins:as_email"})
        assert "nexus_marketing.builtins.channels.email" in caught.value.message
        assert "tests.common.plugins" in caught.value.message
