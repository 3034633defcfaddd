"""``/api/v1/segments``."""

from dataclasses import asdict

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import segments as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries.resources.segments import SEGMENT_CHANGES, SEGMENT_LEADS, SEGMENTS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.segments import records as services
from nexus_marketing.services.segments.estimates import estimate_size
from nexus_marketing.services.segments.rules import lead_schema

_PATH = "/api/v1/segments"


def includeme(config: Configurator) -> None:
    """The routes of segments."""
    read, write = Permission.SEGMENTS_READ, Permission.SEGMENTS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_segments, permission=read)
    config.add_api_route("POST", _PATH, writes(create_segment), permission=write)
    config.add_api_route("POST", f"{_PATH}/estimate", estimate, permission=read, mode="read")
    config.add_api_route("GET", one, shows(Segment, "segment", segment_document), permission=read)
    config.add_api_route("PATCH", one, writes(update_segment), permission=write)
    config.add_api_route("DELETE", one, writes(delete_segment), permission=write)
    config.add_api_route("POST", f"{one}/recalculate", writes(recalculate), permission=write)
    config.add_api_route("GET", f"{one}/leads", list_segment_leads, permission=Permission.LEADS_READ)
    config.add_api_route("GET", f"{one}/changes", list_changes, permission=Permission.LEADS_READ)
    config.add_api_route("GET", f"{one}/references", show_references, permission=read)


def segment_document(segment: Segment) -> Document:
    """A segment as the API shows it."""
    return document_of(segment, SEGMENTS.fields, SEGMENTS.ids)


def list_segments(request: Request) -> Response:
    return respond_page(request, SEGMENTS)


def create_segment(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(segment_document(services.create_segment(request.nexus, data)), _PATH)


def update_segment(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    segment = services.update_segment(request.nexus, path_id(request, "segment"), data, expected_version=version)
    return changed(segment_document(segment), _PATH)


def delete_segment(request: Request) -> Reply:
    version = expected_version(request)
    services.delete_segment(request.nexus, path_id(request, "segment"), expected_version=version)
    return Reply(None, 204)


def recalculate(request: Request) -> Reply:
    """202: the workers do it; ``as_of`` says when it was done last."""
    segment = services.request_recalculation(request.nexus, path_id(request, "segment"))
    return Reply(segment_document(segment), 202, f"{_PATH}/{segment.id}", segment.version)


def estimate(request: Request) -> Response:
    """How many leads a rule would have, before it is saved."""
    data = read_object(request, schemas.ESTIMATE)
    size, budget = estimate_size(request.nexus, data["conditions"])
    return show({**asdict(size), "budget": asdict(budget)})


def show_references(request: Request) -> Response:
    """What the segment cannot be deleted for."""
    return show({"data": services.references(request.nexus, path_id(request, "segment"))})


def list_changes(request: Request) -> Response:
    """Who entered and left, oldest first."""
    segment = find(request.nexus.session, Segment, path_id(request, "segment"))
    return respond_page(request, SEGMENT_CHANGES, scope={"segment_id": segment.id})


def list_segment_leads(request: Request) -> Response:
    segment = find(request.nexus.session, Segment, path_id(request, "segment"))
    names = lambda: lead_schema(request.nexus)  # noqa: E731
    return respond_page(request, SEGMENT_LEADS, schema=names, scope={"segment_id": segment.id})
