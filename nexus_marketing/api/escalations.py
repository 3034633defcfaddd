"""``/api/v1/escalations``: which levels acted, and who has seen it; ``/api/v1/campaigns/{id}/escalation-rules``."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import document_of, path_id, shows
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Escalation
from nexus_marketing.db.queries.resources.campaigns import ESCALATIONS
from nexus_marketing.services.actions.escalations import acknowledge, rules_of

_PATH = "/api/v1/escalations"


def includeme(config: Configurator) -> None:
    """The routes of escalation."""
    read, write = Permission.CAMPAIGNS_READ, Permission.CAMPAIGNS_WRITE
    config.add_api_route("GET", _PATH, list_escalations, permission=read)
    one = shows(Escalation, "escalation", lambda row: document_of(row, ESCALATIONS.fields, ESCALATIONS.ids))
    config.add_api_route("GET", f"{_PATH}/{{id}}", one, permission=read)
    config.add_api_route("POST", f"{_PATH}/{{id}}/acknowledge", writes(acknowledge_escalation), permission=write)
    config.add_api_route("GET", "/api/v1/campaigns/{id}/escalation-rules", list_rules, permission=read)


def list_escalations(request: Request) -> Response:
    return respond_page(request, ESCALATIONS)


def acknowledge_escalation(request: Request) -> Reply:
    """Somebody has seen it; a second time changes nothing."""
    line = acknowledge(request.nexus, path_id(request, "escalation"))
    return Reply(document_of(line, ESCALATIONS.fields, ESCALATIONS.ids))


def list_rules(request: Request) -> Response:
    rules = rules_of(request.nexus, path_id(request, "campaign"))
    return show({"data": rules, "has_more": False, "next": None})
