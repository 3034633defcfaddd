"""``/api/v1/lead-import-profiles``."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import Reply
from nexus_marketing.api.resources import Document, changed, created, document_of, path_id, shows
from nexus_marketing.api.schemas import lead_imports as schemas
from nexus_marketing.api.versions import expected_version
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadImportProfile
from nexus_marketing.db.queries.resources.leads import LEAD_IMPORT_PROFILES
from nexus_marketing.services.imports import profiles as services

_PATH = "/api/v1/lead-import-profiles"


def includeme(config: Configurator) -> None:
    """The routes of profiles."""
    read, write = Permission.LEADS_READ, Permission.LEADS_WRITE
    one = f"{_PATH}/{{id}}"
    config.add_api_route("GET", _PATH, list_profiles, permission=read)
    config.add_api_route("POST", _PATH, writes(create_profile), permission=write)
    config.add_api_route("GET", one, shows(LeadImportProfile, "profile", profile_document), permission=read)
    config.add_api_route("PATCH", one, writes(update_profile), permission=write)
    config.add_api_route("DELETE", one, writes(delete_profile), permission=write)


def profile_document(row: LeadImportProfile) -> Document:
    """A profile as the API shows it."""
    return document_of(row, LEAD_IMPORT_PROFILES.fields, LEAD_IMPORT_PROFILES.ids)


def list_profiles(request: Request) -> Response:
    return respond_page(request, LEAD_IMPORT_PROFILES)


def create_profile(request: Request) -> Reply:
    data = read_object(request, schemas.CREATE_PROFILE, schemas.READ_ONLY)
    return created(profile_document(services.create_profile(request.nexus, data)), _PATH)


def update_profile(request: Request) -> Reply:
    data = read_object(request, schemas.PATCH_PROFILE, schemas.READ_ONLY, patch=True)
    version = expected_version(request, data)
    row = services.update_profile(request.nexus, path_id(request, "profile"), data, expected_version=version)
    return changed(profile_document(row), _PATH)


def delete_profile(request: Request) -> Reply:
    version = expected_version(request)
    services.delete_profile(request.nexus, path_id(request, "profile"), expected_version=version)
    return Reply(None, 204)
