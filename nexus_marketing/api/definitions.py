"""``/api/v1/definitions``: what campaigns are made from."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply, show
from nexus_marketing.api.resources import Document, document_of, path_id
from nexus_marketing.api.schemas import definitions as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import CampaignDefinition
from nexus_marketing.db.queries.resources.campaigns import DEFINITIONS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services import definitions as services

_PATH = "/api/v1/definitions"


def includeme(config: Configurator) -> None:
    """The routes of definitions."""
    read, write = Permission.CAMPAIGNS_READ, Permission.CAMPAIGNS_WRITE
    one = f"{_PATH}/{{id}}"
    activate = partial(services.activate_definition, active=True)
    deactivate = partial(services.activate_definition, active=False)
    config.add_api_route("GET", _PATH, list_definitions, permission=read)
    config.add_api_route("POST", _PATH, writes(create_definition), permission=write)
    config.add_api_route("GET", one, show_definition, permission=read)
    config.add_api_route("PATCH", one, writes(update_definition), permission=write)
    config.add_api_route("GET", f"{one}/versions", list_versions, permission=read)
    config.add_api_route("POST", f"{one}/publish", writes(_acts(services.publish_definition)), permission=write)
    config.add_api_route("POST", f"{one}/activate", writes(_acts(activate)), permission=write)
    config.add_api_route("POST", f"{one}/deactivate", writes(_acts(deactivate)), permission=write)
    config.add_api_route("POST", f"{one}/duplicate", writes(duplicate_definition), permission=write)


def definition_document(request: Request, definition: CampaignDefinition) -> Document:
    """A definition as the API shows it; ``notices`` name what its document mentions and the tenant does not have."""
    document = document_of(definition, DEFINITIONS.fields, DEFINITIONS.ids)
    notices = services.notices_of(request.nexus, definition)
    document["notices"] = [{"path": each.path, "code": each.code, "message": each.message} for each in notices]
    return document


def list_definitions(request: Request) -> Response:
    return respond_page(request, DEFINITIONS)


def show_definition(request: Request) -> Response:
    definition = find(request.nexus.session, CampaignDefinition, path_id(request, "definition"))
    return show(definition_document(request, definition), definition.revision)


def create_definition(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE, schemas.READ_ONLY)
    return _reply(request, services.create_definition(request.nexus, data), 201)


def update_definition(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH, schemas.READ_ONLY, patch=True)
    revision = _expected_revision(request, data)
    definition = services.update_definition(
        request.nexus, path_id(request, "definition"), data, expected_revision=revision
    )
    return _reply(request, definition)


def duplicate_definition(request: Request) -> Reply:
    data = read_object(request, schemas.DUPLICATE)
    return _reply(
        request, services.duplicate_definition(request.nexus, path_id(request, "definition"), data["code"]), 201
    )


def list_versions(request: Request) -> Response:
    versions = services.versions_of(request.nexus, path_id(request, "definition"))
    data = [
        {
            "version": each.version,
            "schema": each.schema,
            "published_by": each.published_by,
            "published_at": each.published_at,
        }
        for each in versions
    ]
    return show({"data": data, "has_more": False, "next": None})


def _acts(action: Callable[..., CampaignDefinition]) -> Callable[[Request], Reply]:
    def change(request: Request) -> Reply:
        data = read_object(request, schemas.ACTION) if request.content_length else {}
        revision = _expected_revision(request, data)
        return _reply(request, action(request.nexus, path_id(request, "definition"), expected_revision=revision))

    return change


def _expected_revision(request: Request, data: dict[str, Any]) -> int | None:
    """``version`` is the published one here; the lock is ``revision``, and the ETag is it."""
    body = {"version": data.pop("revision")} if "revision" in data else {}
    return expected_version(request, body)


def _reply(request: Request, definition: CampaignDefinition, status: int = 200) -> Reply:
    return Reply(definition_document(request, definition), status, f"{_PATH}/{definition.id}", definition.revision)
