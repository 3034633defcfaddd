"""``/api/v1/members``: who acts for the tenant."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.resources import Document, document_of, shows
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Member
from nexus_marketing.db.queries.resources.messages import MEMBERS

_PATH = "/api/v1/members"


def includeme(config: Configurator) -> None:
    """The routes of members."""
    read = Permission.MEMBERS_READ
    config.add_api_route("GET", _PATH, list_members, permission=read)
    config.add_api_route("GET", f"{_PATH}/{{id}}", shows(Member, "member", member_document), permission=read)


def member_document(member: Member) -> Document:
    """A member as the API shows it."""
    return document_of(member, MEMBERS.fields, MEMBERS.ids)


def list_members(request: Request) -> Response:
    return respond_page(request, MEMBERS)
