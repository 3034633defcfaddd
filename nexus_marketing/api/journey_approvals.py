"""``/api/v1/journey-approvals``: what runs of journeys ask, and the answers."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import Document, document_of, path_id, shows
from nexus_marketing.api.schemas import journeys as schemas
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import JourneyApproval
from nexus_marketing.db.queries.resources.journeys import JOURNEY_APPROVALS
from nexus_marketing.services.journeys.runs import answer_question

_PATH = "/api/v1/journey-approvals"


def includeme(config: Configurator) -> None:
    """The routes of approvals."""
    one, read = f"{_PATH}/{{id}}", Permission.CAMPAIGNS_READ
    config.add_api_route("GET", _PATH, list_approvals, permission=read)
    config.add_api_route("GET", one, shows(JourneyApproval, "approval", approval_document), permission=read)
    config.add_api_route("POST", f"{one}/answer", writes(answer), permission=Permission.CAMPAIGNS_LAUNCH)


def approval_document(question: JourneyApproval) -> Document:
    """A question as the API shows it."""
    return document_of(question, JOURNEY_APPROVALS.fields, JOURNEY_APPROVALS.ids)


def list_approvals(request: Request) -> Response:
    return respond_page(request, JOURNEY_APPROVALS)


def answer(request: Request) -> Reply:
    """The run goes on in the same transaction."""
    approval_id = path_id(request, "approval")
    approved = read_object(request, schemas.ANSWER)["approved"]
    return Reply(approval_document(answer_question(request.nexus, approval_id, approved=approved)))
