"""``/api/v1/templates``."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import templates as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Template
from nexus_marketing.db.queries.resources.messages import TEMPLATES
from nexus_marketing.services import templates as services

_PATH = "/api/v1/templates"


def includeme(config: Configurator) -> None:
    """The routes of templates."""
    read, write = Permission.TEMPLATES_READ, Permission.TEMPLATES_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_templates, permission=read)
    config.add_api_route("POST", _PATH, writes(create_template), permission=write)
    config.add_api_route("GET", one, shows(Template, "template", template_document), permission=read)
    config.add_api_route("PATCH", one, writes(update_template), permission=write)
    config.add_api_route("DELETE", one, writes(delete_template), permission=write)
    config.add_api_route("POST", f"{one}/duplicate", writes(duplicate_template), permission=write)


def template_document(template: Template) -> Document:
    """A template as the API shows it."""
    return document_of(template, TEMPLATES.fields, TEMPLATES.ids)


def list_templates(request: Request) -> Response:
    return respond_page(request, TEMPLATES)


def create_template(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return created(template_document(services.create_template(request.nexus, data)), _PATH)


def update_template(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    template = services.update_template(request.nexus, path_id(request, "template"), data, expected_version=version)
    return changed(template_document(template), _PATH)


def delete_template(request: Request) -> Reply:
    version = expected_version(request)
    services.delete_template(request.nexus, path_id(request, "template"), expected_version=version)
    return Reply(None, 204)


def duplicate_template(request: Request) -> Reply:
    data = read_object(request, schemas.DUPLICATE) if request.content_length else {}
    copy = services.duplicate_template(request.nexus, path_id(request, "template"), data.get("name"))
    return created(template_document(copy), _PATH)
