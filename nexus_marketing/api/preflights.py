"""``/api/v1/campaigns/{id}/preflights``: what would become of a campaign if it were launched now."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import path_id
from nexus_marketing.api.writes import writes
from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Preflight
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.campaigns.preflights import preflight_document, request_preflight

_PATH = "/api/v1/campaigns/{id}/preflights"


def includeme(config: Configurator) -> None:
    """The routes of pre-flights."""
    config.add_api_route("POST", _PATH, writes(ask), permission=Permission.CAMPAIGNS_WRITE)
    config.add_api_route("GET", f"{_PATH}/{{preflight_id}}", look, permission=Permission.CAMPAIGNS_READ)


def ask(request: Request) -> Reply:
    """202: a worker counts; the body says where it is."""
    preflight = request_preflight(request.nexus, path_id(request, "campaign"))
    return Reply(preflight_document(request.nexus, preflight), 202)


def look(request: Request) -> Response:
    """As far as it is."""
    preflight = find(request.nexus.session, Preflight, parse_id(request.matchdict["preflight_id"], "pre-flight"))
    if preflight.campaign_id != path_id(request, "campaign"):
        raise NotFound("The campaign has no such pre-flight.")
    return show(preflight_document(request.nexus, preflight))
