"""``/api/v1/leads``."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import leads as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Lead
from nexus_marketing.db.queries.resources import LEAD_ENGAGEMENTS, LEADS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services import leads as services
from nexus_marketing.services.segments import lead_schema

_PATH = "/api/v1/leads"


def includeme(config: Configurator) -> None:
    """The routes of leads."""
    read, write = Permission.LEADS_READ, Permission.LEADS_WRITE
    config.add_api_route("GET", _PATH, list_leads, permission=read)
    config.add_api_route("POST", _PATH, writes(create_lead), permission=write)
    config.add_api_route("GET", f"{_PATH}/{{id}}", shows(Lead, "lead", lead_document), permission=read)
    config.add_api_route("PATCH", f"{_PATH}/{{id}}", writes(update_lead), permission=write)
    config.add_api_route("POST", f"{_PATH}/{{id}}/score", writes(set_score), permission=write)
    config.add_api_route("GET", f"{_PATH}/{{id}}/engagements", list_engagements, permission=Permission.ENGAGEMENTS_READ)


def lead_document(lead: Lead) -> Document:
    """A lead as the API shows it."""
    return document_of(lead, LEADS.fields, LEADS.ids)


def list_leads(request: Request) -> Response:
    return respond_page(request, LEADS, schema=lambda: lead_schema(request.nexus))


def create_lead(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(lead_document(services.create_lead(request.nexus, data)), _PATH)


def update_lead(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    lead = services.update_lead(request.nexus, path_id(request, "lead"), data, expected_version=version)
    return changed(lead_document(lead), _PATH)


def set_score(request: Request) -> Reply:
    data = read_object(request, schemas.SCORE)
    lead = services.set_score(request.nexus, path_id(request, "lead"), data["score"], data["reason"])
    return changed(lead_document(lead), _PATH)


def list_engagements(request: Request) -> Response:
    lead = find(request.nexus.session, Lead, path_id(request, "lead"))
    return respond_page(request, LEAD_ENGAGEMENTS, scope={"lead_id": lead.id})
