"""``/api/v1/actions``: what was asked for by name, and what became of it."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import document_of, path_id, shows
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import TakenAction
from nexus_marketing.db.queries.resources.campaigns import ACTIONS
from nexus_marketing.services.actions.requests import retry_action

_PATH = "/api/v1/actions"


def includeme(config: Configurator) -> None:
    """The routes of actions."""
    read = Permission.CAMPAIGNS_READ
    one = shows(TakenAction, "action", lambda row: document_of(row, ACTIONS.fields, ACTIONS.ids))
    config.add_api_route("GET", _PATH, list_actions, permission=read)
    config.add_api_route("GET", f"{_PATH}/{{id}}", one, permission=read)
    config.add_api_route("POST", f"{_PATH}/{{id}}/retry", writes(retry), permission=Permission.CAMPAIGNS_LAUNCH)


def list_actions(request: Request) -> Response:
    return respond_page(request, ACTIONS)


def retry(request: Request) -> Reply:
    """Once more, under the same key; 202, since a worker takes it."""
    row = retry_action(request.nexus, path_id(request, "action"))
    return Reply(document_of(row, ACTIONS.fields, ACTIONS.ids), 202)
