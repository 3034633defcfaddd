"""A plugin's part of the API: there for tenants that have it on, with permissions and limits, and its faults are its own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.config import rehearse
from nexus_marketing.core.conditions import Evaluation, parse_text
from nexus_marketing.core.errors import ConditionUnavailable, ConfigurationError
from nexus_marketing.db.models import AuditEntry
from nexus_marketing.plugin import Capability, NotFound, ResourceAnswer, ResourceCall, Route
from nexus_marketing.plugin.circuits import PluginFailed
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.plugins.resources import ask_resource
from tests.common.plugins import SETTINGS, manifest, with_plugins
from tests.common.sandboxes import needs_namespaces, sandboxes
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-018", "SR-001", "MAINT-004")

NAME = "nexus-pages"
PATH = f"/api/v1/x/{NAME}/pages"


class Pages:
    """Keeps pages by tenant, and does what a bug of its author would do where it is told so."""

    name = "pages"
    routes = (
        Route("GET", "leads:read", "/{id}"),
        Route("PUT", "leads:write", "/{id}", {"text": {"type": "string", "required": True, "maxlength": 20}}),
        Route("DELETE", "leads:write", "/{id}"),
    )

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], str] = {}
        self.calls: list[ResourceCall] = []

    def answer(self, call: ResourceCall) -> Any:
        self.calls.append(call)
        place = call.tenant_id, call.names["id"]
        odd = {
            "raise": None,
            "garbage": object(),
            "huge": ResourceAnswer("x" * 1_000_001),
            "status": ResourceAnswer(status=500),
        }
        if call.names["id"] in odd:
            return odd[call.names["id"]] or 1 / 0
        if call.method == "PUT" and call.body is not None:
            self.kept[place] = call.body["text"]
        if call.method == "DELETE":
            self.kept.pop(place, None)
            return ResourceAnswer()
        if place not in self.kept:
            raise NotFound("There is no such page.")
        return ResourceAnswer({"text": self.kept[place], "station": call.settings.get("station")}, 200)


PAGES = Pages()


def includeme(config: Any) -> None:
    """As a deployment includes it."""
    config.add_marketing_plugin(manifest(NAME, Capability.RESOURCE, settings=SETTINGS))
    config.add_marketing_resource(PAGES)


@pytest.fixture
def ini() -> dict[str, str]:
    return {"nexus.includes": __name__}


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime) -> Runtime:
    PAGES.kept.clear()
    PAGES.calls.clear()
    return with_plugins(sqlite_only_runtime, includeme)


@pytest.fixture
def on(runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant) as ctx:
        switch_on(ctx, NAME, {"station": "north"})


@pytest.mark.usefixtures("on")
def test_it_is_there_for_the_tenant_that_has_it_on(client: Client, stranger: Client, runtime: Runtime) -> None:
    answer = client.put(f"{PATH}/1", {"text": "hello"}, headers={"Idempotency-Key": "k1"})
    assert answer.json == {"text": "hello", "station": "north"}
    assert client.get(f"{PATH}/1?x=y").json["text"] == "hello"
    put, get = PAGES.calls
    assert (put.key, put.body, get.query, get.method) == ("k1", {"text": "hello"}, {"x": "y"}, "GET")
    assert put.tenant_id == client.tenant_id
    client.delete(f"{PATH}/1", status=204)
    assert client.get(f"{PATH}/1", status=404).json["detail"] == "There is no such page."
    assert stranger.get(f"{PATH}/1", status=404).json["code"] == "not_found"
    assert len(PAGES.calls) == 4
    with runtime.work(client.tenant_id, mode="read") as ctx:
        actions = ctx.session.scalars(select(AuditEntry.action).where(AuditEntry.action.startswith("plugin.")))
        assert list(actions) == ["plugin.enabled", "plugin.put", "plugin.delete"]


@pytest.mark.usefixtures("on")
def test_permissions_and_schemas_are_those_of_its_routes(client: Client, make_client: Any) -> None:
    reader = make_client(client.tenant_id, scopes=["leads:read"])
    reader.get(f"{PATH}/1", status=404)
    reader.put(f"{PATH}/1", {"text": "x"}, status=403)
    (problem,) = client.put(f"{PATH}/1", {"text": "x" * 21}, status=422).json["errors"]
    assert problem["path"] == "text"
    client.post(f"{PATH}/1", {}, status=405)
    assert [call.method for call in PAGES.calls] == ["GET"]


@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("fault", ["raise", "garbage", "huge", "status"])
def test_what_it_does_wrong_is_its_own(client: Client, fault: str, runtime: Runtime) -> None:
    runtime.plugins.host.circuit(NAME).succeeded()
    answer = client.put(f"{PATH}/{fault}", {"text": "x"}, status=503)
    assert answer.json["code"] == "plugin_failed"
    assert f"The plugin {NAME} failed" in answer.json["detail"]
    assert runtime.plugins.host.circuit(NAME).failures == 1
    client.get("/api/v1/leads")


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ((), "routes are at least one"),
        ((Route("GET", "everything"),), "is no permission"),
        ((Route("GET", "leads:read", "/../leads"),), "the path is empty, or up to six"),
        ((Route("BREW", "leads:read"),), "the method is one of GET"),
        ((Route("POST", "leads:write"),), "a schema belongs to PATCH, POST, PUT"),
        ((Route("POST", "leads:write", "", {"a": {"typ": "x"}}),), "its schema is none"),
        ((Route("GET", "leads:read"), Route("GET", "leads:read")), "routes say twice what GET is"),
    ],
)
def test_routes_that_cannot_be_stop_the_boot(routes: Any, said: str) -> None:
    made = Pages()
    made.routes = routes  # type: ignore[misc]

    def include(config: Any) -> None:
        config.add_marketing_plugin(manifest(NAME, Capability.RESOURCE))
        config.add_marketing_resource(made)

    with pytest.raises(ConfigurationError, match=said):
        rehearse({}, include)


def test_nobodys_resource_stops_the_boot() -> None:
    with pytest.raises(ConfigurationError, match="is added by nobody: call config"):
        rehearse({}, lambda config: config.add_marketing_resource(Pages))


SANDBOXED = """
from nexus_marketing.plugin import API_VERSION, Capability, Manifest, ResourceAnswer, Route

MANIFEST = Manifest("nexus-strange", "1.0", API_VERSION, frozenset({Capability.RESOURCE, Capability.CONDITION}))


class Echo:
    name = "echo"
    routes = (Route("POST", "leads:write", "/{id}", {"text": {"type": "string"}}),)

    def answer(self, call):
        if call.names["id"] == "0":
            raise RuntimeError("ann@example.com")
        return ResourceAnswer({"said": call.body["text"], "by": call.actor, "at": call.now.isoformat()}, 201)


class Rich:
    name = "rich"
    version = 2
    parameters = ()
    reads = frozenset({"score"})
    reads_clock = False

    def evaluate(self, context):
        if context.values.get("score") == 13:
            raise RuntimeError("ann@example.com")
        return "yes" if context.values.get("score") == 14 else context.values.get("score", 0) > 10

    def to_sql(self, arguments):
        return {"field": "score", "operator": ">", "value": 10}


def includeme(config):
    config.add_marketing_plugin(MANIFEST)
    config.add_marketing_resource(Echo)
    config.add_marketing_condition(Rich)
"""


@needs_namespaces
def test_in_the_sandbox_it_is_asked_the_same_and_its_words_stay_there(runtime: Runtime, tmp_path: Path) -> None:
    with sandboxes(tmp_path) as start:
        process = replace(runtime, plugins=start(SANDBOXED))
        plugin, echo = process.plugins.plugins["nexus-strange"], process.plugins.of(Capability.RESOURCE)["echo"]
        call = ResourceCall(1, "key:1", process.clock.now(), "POST", "/{id}", {"id": "1"}, body={"text": "hello"})
        status, body = ask_resource(process, plugin, echo, call)
        assert (status, json.loads(body)["said"], json.loads(body)["by"]) == (201, "hello", "key:1")
        with pytest.raises(PluginFailed) as failed:
            ask_resource(process, plugin, echo, replace(call, names={"id": "0"}))
        assert "ann@" not in failed.value.message
        rich = process.plugins.conditions().operators["rich"]
        assert (rich.version, rich.to_tree is not None and rich.to_tree(())) == (2, parse_text("score > 10"))
        now = Evaluation(process.clock.now())
        assert rich.answers((), [{"score": number} for number in (9, 11)] * 60, now) == [False, True] * 60
        for odd in (13, 14):
            with pytest.raises(ConditionUnavailable) as unavailable:
                rich.answers((), [{"score": odd}], now)
            assert "ann@" not in unavailable.value.message
