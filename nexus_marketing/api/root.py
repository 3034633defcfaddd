"""``GET /api/v1``: whose key or session this is and where everything lies."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import show
from nexus_marketing.security.routes import ANY_KEY
from nexus_marketing.version import __version__

_RESOURCES = ("leads", "segments", "templates", "channels", "definitions", "campaigns", "engagements", "members")


def includeme(config: Configurator) -> None:
    """One route."""
    config.add_api_route("GET", "/api/v1", show_root, permission=ANY_KEY)


def show_root(request: Request) -> Response:
    """What a client can learn with nothing but a key, or being signed in."""
    identity = request.identity
    return show(
        {
            "product": "nexus-marketing",
            "version": __version__,
            "tenant_id": str(identity.tenant_id),
            "member_id": None if identity.actor.member_id is None else str(identity.actor.member_id),
            "scopes": sorted(identity.actor.permissions),
            "resources": {name: f"/api/v1/{name}" for name in _RESOURCES},
            "graphql": "/graphql",
        }
    )
