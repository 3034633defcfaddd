"""``/api/v1/lead-fields``: what a tenant declares of its leads' metadata."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import read_query, respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import lead_fields as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadField
from nexus_marketing.db.queries.resources.leads import LEAD_FIELDS
from nexus_marketing.services.leads import field_declarations as services

_PATH = "/api/v1/lead-fields"


def includeme(config: Configurator) -> None:
    """The routes of declared fields."""
    read, write = Permission.LEADS_READ, Permission.LEADS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_fields, permission=read)
    config.add_api_route("POST", _PATH, writes(declare_field), permission=write)
    config.add_api_route("GET", one, shows(LeadField, "field", field_document), permission=read)
    config.add_api_route("PATCH", one, writes(change_field), permission=write)
    config.add_api_route("DELETE", one, writes(remove_field), permission=write)
    config.add_api_route("GET", f"{one}/misfits", list_misfits, permission=read)


def field_document(row: LeadField) -> Document:
    """A declared field as the API shows it."""
    return document_of(row, LEAD_FIELDS.fields, LEAD_FIELDS.ids)


def misfit_document(found: services.Misfits) -> Document:
    """What does not fit, and whether all leads have been looked at."""
    return {
        "checked": found.checked,
        "misfits": found.count,
        "data": [{"lead_id": str(lead_id), "code": code} for lead_id, code in found.rows],
        "has_more": found.next_id is not None,
        "next": None if found.next_id is None else str(found.next_id),
    }


def list_fields(request: Request) -> Response:
    return respond_page(request, LEAD_FIELDS)


def declare_field(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    row, found = services.declare_field(request.nexus, data)
    return created({**field_document(row), "check": misfit_document(found)}, _PATH)


def change_field(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    row, found = services.change_field(request.nexus, path_id(request, "field"), data, expected_version=version)
    return changed({**field_document(row), "check": misfit_document(found)}, _PATH)


def remove_field(request: Request) -> Reply:
    version = expected_version(request)
    services.remove_field(request.nexus, path_id(request, "field"), expected_version=version)
    return Reply(None, 204)


def list_misfits(request: Request) -> Response:
    """Each page looks at 5,000 leads and may name none of them."""
    query = read_query(request, ("cursor",))
    after = parse_id(query["cursor"], "page") if query.get("cursor") else 0
    return show(misfit_document(services.misfits(request.nexus, path_id(request, "field"), after)))
