"""Comments and attachments of engagements."""

from urllib.parse import quote

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.pages import respond_page
from nexus_marketing.api.replies import ApiResponse, Reply
from nexus_marketing.api.resources import created, document_of, path_id
from nexus_marketing.api.schemas.comments import COMMENT
from nexus_marketing.api.writes import writes
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.queries.resources.engagements import ENGAGEMENT_ATTACHMENTS, ENGAGEMENT_COMMENTS
from nexus_marketing.runtime import new_blob_key
from nexus_marketing.services import conversations as services

_ONE = "/api/v1/engagements/{id}"
_ATTACHMENT = "/api/v1/attachments"
_ANY_BYTES = "application/octet-stream"


def includeme(config: Configurator) -> None:
    """The routes of both."""
    read, write = Permission.ENGAGEMENTS_READ, Permission.ENGAGEMENTS_WRITE
    config.add_api_route("GET", f"{_ONE}/comments", list_comments, permission=read)
    config.add_api_route("POST", f"{_ONE}/comments", writes(add_comment), permission=write)
    config.add_api_route("GET", f"{_ONE}/attachments", list_attachments, permission=read)
    config.add_api_route("POST", f"{_ONE}/attachments", add_attachment, permission=write)
    config.add_api_route("GET", f"{_ATTACHMENT}/{{id}}", show_attachment, permission=read)
    config.add_api_route("DELETE", f"{_ATTACHMENT}/{{id}}", writes(remove_attachment), permission=write)


def list_comments(request: Request) -> Response:
    engagement = services.find_engagement(request.nexus, path_id(request, "engagement"))
    return respond_page(request, ENGAGEMENT_COMMENTS, scope={"engagement_id": engagement.id})


def add_comment(request: Request) -> Reply:
    text = read_object(request, COMMENT)["text"]
    comment = services.add_comment(request.nexus, path_id(request, "engagement"), text)
    return Reply(document_of(comment, ENGAGEMENT_COMMENTS.fields, ENGAGEMENT_COMMENTS.ids), 201)


def list_attachments(request: Request) -> Response:
    engagement = services.find_engagement(request.nexus, path_id(request, "engagement"))
    return respond_page(request, ENGAGEMENT_ATTACHMENTS, scope={"engagement_id": engagement.id})


def add_attachment(request: Request) -> Response:
    """The body is the file, ``?name=`` what it is called; its bytes are stored before any transaction begins."""
    blobs = request.registry["nexus.runtime"].blobs
    key, content = new_blob_key(request.identity.tenant_id), request.body

    def note(request: Request) -> Reply:
        attachment = services.add_attachment(
            request.nexus,
            path_id(request, "engagement"),
            blob_key=key,
            content=content,
            name=request.GET.get("name", "attachment"),
            content_type=request.content_type or _ANY_BYTES,
        )
        document = document_of(attachment, ENGAGEMENT_ATTACHMENTS.fields, ENGAGEMENT_ATTACHMENTS.ids)
        return created(document, _ATTACHMENT)

    blobs.put(key, content)
    try:
        response = writes(note)(request)
    except BaseException:
        blobs.delete(key)
        raise
    if "Idempotency-Replayed" in response.headers:
        blobs.delete(key)
    return response


def show_attachment(request: Request) -> Response:
    """To be saved, never shown: what somebody uploaded must not run as a page of ours."""
    attachment, content = services.read_attachment(request.nexus, path_id(request, "attachment"))
    name = quote(attachment.name, safe="")
    response = ApiResponse(content, content_type=_ANY_BYTES)
    response.headerlist.append(("Content-Disposition", f"attachment; filename*=UTF-8''{name}"))
    return response


def remove_attachment(request: Request) -> Reply:
    services.remove_attachment(request.nexus, path_id(request, "attachment"))
    return Reply(None, 204)
