"""``/api/v1/x/{plugin}/…``: what plugins add to the API, for tenants that have them on; for others it is not there."""

from collections.abc import Callable

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.replies import json_response
from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.extensions import Resource, ResourceCall, Route
from nexus_marketing.core.permissions import Permission
from nexus_marketing.plugin.resources import VIEWS
from nexus_marketing.services.audit import record
from nexus_marketing.services.plugins.resources import ask_resource

_PATH = "/api/v1/x"


def includeme(config: Configurator) -> None:
    """Let plugins, which are included later, have their routes made."""
    config.registry[VIEWS] = add_resource


def add_resource(config: Configurator, plugin: str, resource: Resource) -> None:
    """The routes of one resource: its permission is asked, its tenant's key and limit as of any route."""
    for route in resource.routes:
        pattern = f"{_PATH}/{plugin}/{resource.name}{route.path}"
        view = _view(plugin, resource, route)
        config.add_api_route(route.method, pattern, view, permission=Permission(route.permission))


def _view(plugin: str, resource: Resource, route: Route) -> Callable[[Request], Response]:
    def view(request: Request) -> Response:
        ctx = request.nexus
        owner = ctx.runtime.plugins.plugins.get(plugin)
        # A transaction of its own, so that none is open while the plugin works.
        with ctx.runtime.work(ctx.tenant_id, ctx.actor, mode="read", role="app") as before:
            settings = None if owner is None else ctx.runtime.settings_of(before.session, owner)
        if owner is None or settings is None:
            raise NotFound(f"There is nothing at {request.path}.")
        call = ResourceCall(
            ctx.tenant_id,
            ctx.actor.label,
            ctx.now,
            route.method,
            route.path,
            dict(request.matchdict),
            dict(request.GET),
            None if route.schema is None else read_object(request, route.schema, patch=route.method == "PATCH"),
            request.headers.get("Idempotency-Key"),
            settings,
        )
        status, body = ask_resource(ctx.runtime, owner, resource, call)
        if route.method != "GET" and status < 400:
            record(ctx, f"plugin.{route.method.lower()}", "plugin", plugin, {"path": (None, request.path)})
        return json_response(body, status) if body else Response(status=204, content_type=None)

    return view
