"""Every route and field has one permission; a key without it is refused, with it is let through (S04)."""

from collections.abc import Callable

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError
from webtest import TestApp

from nexus_marketing.config import build
from nexus_marketing.core.permissions import Permission
from nexus_marketing.graphql.schema import FIELD_PERMISSIONS, build_schema
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.routes import ANY_KEY, PUBLIC, ApiRoute
from tests.functional.conftest import Client

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("SR-001", "SR-006"), pytest.mark.no_cover]

#: The declared table. A new route is written down here, or this fails.
TABLE = {
    "GET /api/v1": ANY_KEY,
    "GET /api/v1/leads": "leads:read",
    "POST /api/v1/leads": "leads:write",
    "PUT /api/v1/leads": "leads:write",
    "POST /api/v1/leads/batch": "leads:write",
    "GET /api/v1/leads/{id}": "leads:read",
    "PATCH /api/v1/leads/{id}": "leads:write",
    "DELETE /api/v1/leads/{id}": "leads:write",
    "GET /api/v1/leads/{id}/erasure": "leads:read",
    "GET /api/v1/leads/{id}/timeline": "leads:read",
    "GET /api/v1/leads/duplicates": "leads:read",
    "POST /api/v1/leads/{id}/merge": "leads:write",
    "POST /api/v1/leads/{id}/tags": "leads:write",
    "POST /api/v1/leads/{id}/score": "leads:write",
    "GET /api/v1/leads/{id}/messages/{send_id}": "leads:read",
    "GET /api/v1/leads/{id}/explanation": "leads:read",
    "GET /api/v1/leads/{id}/engagements": "engagements:read",
    "GET /api/v1/leads/{id}/scores": "leads:read",
    "GET /api/v1/leads/{id}/scores/{name}/explanation": "leads:read",
    "GET /api/v1/scores": "scores:read",
    "POST /api/v1/scores": "scores:write",
    "GET /api/v1/scores/{id}": "scores:read",
    "PATCH /api/v1/scores/{id}": "scores:write",
    "DELETE /api/v1/scores/{id}": "scores:write",
    "GET /api/v1/scores/{id}/versions": "scores:read",
    "POST /api/v1/scores/{id}/publish": "scores:write",
    "POST /api/v1/scores/{id}/recompute": "scores:write",
    "GET /api/v1/scores/{id}/recompute": "scores:read",
    "POST /api/v1/scores/{id}/preview": "leads:read",
    "GET /api/v1/lead-fields": "leads:read",
    "POST /api/v1/lead-fields": "leads:write",
    "GET /api/v1/lead-fields/{id}": "leads:read",
    "PATCH /api/v1/lead-fields/{id}": "leads:write",
    "DELETE /api/v1/lead-fields/{id}": "leads:write",
    "GET /api/v1/lead-fields/{id}/misfits": "leads:read",
    "GET /api/v1/lead-imports": "leads:read",
    "POST /api/v1/lead-imports": "leads:write",
    "GET /api/v1/lead-imports/{id}": "leads:read",
    "GET /api/v1/lead-imports/{id}/errors": "leads:read",
    "POST /api/v1/lead-imports/{id}/check": "leads:write",
    "POST /api/v1/lead-imports/{id}/start": "leads:write",
    "POST /api/v1/lead-imports/{id}/cancel": "leads:write",
    "POST /api/v1/lead-imports/{id}/undo": "leads:write",
    "GET /api/v1/lead-import-profiles": "leads:read",
    "POST /api/v1/lead-import-profiles": "leads:write",
    "GET /api/v1/lead-import-profiles/{id}": "leads:read",
    "PATCH /api/v1/lead-import-profiles/{id}": "leads:write",
    "DELETE /api/v1/lead-import-profiles/{id}": "leads:write",
    "GET /api/v1/lead-exports": "leads:read",
    "GET /api/v1/segments": "segments:read",
    "POST /api/v1/segments": "segments:write",
    "POST /api/v1/segments/estimate": "segments:read",
    "GET /api/v1/segments/{id}": "segments:read",
    "PATCH /api/v1/segments/{id}": "segments:write",
    "DELETE /api/v1/segments/{id}": "segments:write",
    "POST /api/v1/segments/{id}/recalculate": "segments:write",
    "GET /api/v1/segments/{id}/leads": "leads:read",
    "GET /api/v1/segments/{id}/changes": "leads:read",
    "GET /api/v1/segments/{id}/references": "segments:read",
    "GET /api/v1/channels": "channels:read",
    "POST /api/v1/channels": "channels:write",
    "GET /api/v1/channels/types": "channels:read",
    "GET /api/v1/channels/{id}": "channels:read",
    "PATCH /api/v1/channels/{id}": "channels:write",
    "DELETE /api/v1/channels/{id}": "channels:write",
    "POST /api/v1/channels/{id}/check": "channels:write",
    "POST /api/v1/channels/{id}/test": "channels:write",
    "GET /api/v1/journeys": "campaigns:read",
    "POST /api/v1/journeys": "campaigns:write",
    "GET /api/v1/journeys/{id}": "campaigns:read",
    "PATCH /api/v1/journeys/{id}": "campaigns:write",
    "GET /api/v1/journeys/{id}/versions": "campaigns:read",
    "POST /api/v1/journeys/{id}/publish": "campaigns:launch",
    "POST /api/v1/journeys/{id}/drain": "campaigns:launch",
    "POST /api/v1/journeys/{id}/pause": "campaigns:launch",
    "POST /api/v1/journeys/{id}/resume": "campaigns:launch",
    "POST /api/v1/journeys/{id}/stop": "campaigns:launch",
    "POST /api/v1/journeys/{id}/entries": "campaigns:launch",
    "GET /api/v1/journeys/{id}/runs": "leads:read",
    "POST /api/v1/journeys/{id}/migrate": "campaigns:launch",
    "POST /api/v1/journeys/{id}/patch": "campaigns:patch",
    "POST /api/v1/journeys/{id}/revive": "campaigns:launch",
    "POST /api/v1/journeys/{id}/entrance": "campaigns:launch",
    "DELETE /api/v1/journeys/{id}/entrance": "campaigns:launch",
    "POST /entrances/{token}": PUBLIC,
    "GET /api/v1/journey-approvals": "campaigns:read",
    "GET /api/v1/journey-approvals/{id}": "campaigns:read",
    "POST /api/v1/journey-approvals/{id}/answer": "campaigns:launch",
    "GET /api/v1/templates": "templates:read",
    "POST /api/v1/templates": "templates:write",
    "GET /api/v1/templates/{id}": "templates:read",
    "PATCH /api/v1/templates/{id}": "templates:write",
    "DELETE /api/v1/templates/{id}": "templates:write",
    "POST /api/v1/templates/{id}/duplicate": "templates:write",
    "GET /api/v1/campaigns": "campaigns:read",
    "POST /api/v1/campaigns": "campaigns:write",
    "GET /api/v1/campaigns/{id}": "campaigns:read",
    "PATCH /api/v1/campaigns/{id}": "campaigns:write",
    "DELETE /api/v1/campaigns/{id}": "campaigns:write",
    "POST /api/v1/campaigns/{id}/launch": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/start": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/pause": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/resume": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/complete": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/cancel": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/fail": "campaigns:launch",
    "POST /api/v1/campaigns/promote": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/moves": "campaigns:launch",
    "GET /api/v1/campaigns/{id}/history": "campaigns:read",
    "GET /api/v1/definitions": "campaigns:read",
    "POST /api/v1/definitions": "campaigns:write",
    "GET /api/v1/definitions/{id}": "campaigns:read",
    "PATCH /api/v1/definitions/{id}": "campaigns:write",
    "GET /api/v1/definitions/{id}/versions": "campaigns:read",
    "POST /api/v1/definitions/{id}/publish": "campaigns:write",
    "POST /api/v1/definitions/{id}/activate": "campaigns:write",
    "POST /api/v1/definitions/{id}/deactivate": "campaigns:write",
    "POST /api/v1/definitions/{id}/duplicate": "campaigns:write",
    "GET /api/v1/campaigns/{id}/engagements": "engagements:read",
    "GET /api/v1/campaigns/{id}/reactions": "engagements:read",
    "POST /api/v1/campaigns/{id}/reactions": "engagements:write",
    "GET /api/v1/campaigns/{id}/analytics": "campaigns:read",
    "PUT /api/v1/campaigns/{id}/next-run": "campaigns:launch",
    "GET /api/v1/campaigns/{id}/preflights/{preflight_id}": "campaigns:read",
    "POST /api/v1/campaigns/{id}/preflights": "campaigns:write",
    "GET /api/v1/campaigns/{id}/dead-letters": "campaigns:read",
    "POST /api/v1/campaigns/{id}/dead-letters/replay": "campaigns:launch",
    "POST /api/v1/campaigns/{id}/dead-letters/accept": "campaigns:launch",
    "GET /api/v1/campaigns/{id}/escalation-rules": "campaigns:read",
    "GET /api/v1/escalations": "campaigns:read",
    "GET /api/v1/escalations/{id}": "campaigns:read",
    "POST /api/v1/escalations/{id}/acknowledge": "campaigns:write",
    "GET /api/v1/actions": "campaigns:read",
    "GET /api/v1/actions/{id}": "campaigns:read",
    "POST /api/v1/actions/{id}/retry": "campaigns:launch",
    "POST /api/v1/engagements": "engagements:write",
    "POST /api/v1/engagements/bulk": "engagements:write",
    "GET /api/v1/engagements/{id}/comments": "engagements:read",
    "POST /api/v1/engagements/{id}/comments": "engagements:write",
    "GET /api/v1/engagements/{id}/attachments": "engagements:read",
    "POST /api/v1/engagements/{id}/attachments": "engagements:write",
    "GET /api/v1/attachments/{id}": "engagements:read",
    "DELETE /api/v1/attachments/{id}": "engagements:write",
    "POST /api/v1/events": "events:write_public",
    "OPTIONS /api/v1/events": PUBLIC,
    "GET /api/v1/leads/{id}/token": "engagements:write",
    "GET /api/v1/members": "members:read",
    "GET /api/v1/members/{id}": "members:read",
    "GET /t/o/{token}": PUBLIC,
    "GET /t/c/{token}": PUBLIC,
    "GET /u/{token}": PUBLIC,
    "POST /u/{token}": PUBLIC,
    "POST /hooks/{tenant}/{channel}": PUBLIC,
    "POST /hooks/{tenant}/{channel}/{provider}": PUBLIC,
    "GET /__lbheartbeat__": PUBLIC,
    "GET /__heartbeat__": PUBLIC,
    "GET /metrics": PUBLIC,
    "POST /graphql": ANY_KEY,
}


def routes(app: TestApp) -> list[ApiRoute]:
    return list(app.app.registry["nexus.routes"])


def address(route: ApiRoute) -> str:
    return route.pattern.replace("{id}", "1").replace("{token}", "x").replace("{name}", "score")


def test_the_table_of_routes_is_the_declared_one(app: TestApp) -> None:
    assert {f"{route.method} {route.pattern}": route.permission for route in routes(app)} == TABLE


def test_only_declared_routes_answer(app: TestApp) -> None:
    """API9: Pyramid knows no route that the table does not."""
    names = {each["introspectable"]["name"] for each in app.app.registry.introspector.get_category("routes")}
    assert names == {route.pattern for route in routes(app)}
    views = app.app.registry.introspector.get_category("views")
    outside = [each["introspectable"] for each in views if each["introspectable"]["route_name"] is None]
    assert all(each["exception_only"] or each["context"] is not None for each in outside)


def test_without_a_key_only_public_routes_answer(app: TestApp) -> None:
    for route in routes(app):
        status = app.request(address(route), method=route.method, status="*").status_int
        assert (status != 401) == (route.permission == PUBLIC), route


def test_a_key_without_the_permission_is_refused_everywhere(make_client: Callable[..., Client], tenant: int) -> None:
    """One key with everything but one permission, for each permission."""
    for permission in Permission:
        client = make_client(tenant, [str(each) for each in Permission if each is not permission])
        for route in routes(client.app):
            answer = client.send(route.method, address(route))
            assert (answer.status_int == 403) == (route.permission == permission), route
            if answer.status_int == 403:
                assert answer.json["code"] == "permission_denied"
                assert permission in answer.json["detail"]


def test_a_key_with_one_permission_gets_no_further(make_client: Callable[..., Client], tenant: int) -> None:
    for permission in Permission:
        client = make_client(tenant, [str(permission)])
        for route in routes(client.app):
            is_public = permission is Permission.EVENTS_WRITE_PUBLIC  # a key that anybody can read in a page
            allowed = route.permission in (permission, PUBLIC) or (route.permission == ANY_KEY and not is_public)
            assert (client.send(route.method, address(route)).status_int != 403) == allowed, route


def test_a_view_without_a_permission_refuses_to_boot(runtime: Runtime) -> None:
    config = build({}, runtime=runtime)
    config.add_route("plugin", "/api/v1/x/plugin")
    config.add_view(lambda _request: {}, route_name="plugin", renderer="json")
    with pytest.raises((ConfigurationExecutionError, ConfigurationError), match="declares no permission"):
        config.make_wsgi_app()


def test_an_unknown_permission_refuses_to_boot(runtime: Runtime) -> None:
    config = build({}, runtime=runtime)
    with pytest.raises(ConfigurationError, match="no permission of this product"):
        config.add_api_route("GET", "/api/v1/x", lambda _request: None, permission="leads:everything")


def test_a_plugin_view_is_held_to_its_permission(
    runtime: Runtime, tenant: int, make_client: Callable[..., Client]
) -> None:
    config: Configurator = build({}, runtime=runtime)
    config.add_route("plugin", "/api/v1/x/plugin")
    config.add_view(lambda _request: {"ok": 1}, route_name="plugin", renderer="json", permission="leads:read")
    app = TestApp(config.make_wsgi_app())
    good, bad = make_client(tenant, ["leads:read"]), make_client(tenant, ["leads:write"])
    assert app.get("/api/v1/x/plugin", headers=good.headers).json == {"ok": 1}
    app.get("/api/v1/x/plugin", headers=bad.headers, status=403)
    app.get("/api/v1/x/plugin", status=401)


@pytest.mark.parametrize("field", list(FIELD_PERMISSIONS))
def test_a_field_without_a_permission_refuses_to_boot(field: tuple[str, str]) -> None:
    permissions = {name: permission for name, permission in FIELD_PERMISSIONS.items() if name != field}
    with pytest.raises(ConfigurationError, match=r"declares no permission"):
        build_schema(permissions)
