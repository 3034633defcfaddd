"""``/api/v1/leads/{id}/messages/{send_id}``: a message as it left."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.resources import path_id
from nexus_marketing.core.ids import parse_id
from nexus_marketing.core.permissions import Permission
from nexus_marketing.services.sent_messages import sent_message


def includeme(config: Configurator) -> None:
    """The route of messages."""
    config.add_api_route("GET", "/api/v1/leads/{id}/messages/{send_id}", message, permission=Permission.LEADS_READ)


def message(request: Request) -> Response:
    """Its bytes; headers say when it was composed, and by which version it was sent and made again."""
    send_id = parse_id(request.matchdict["send_id"], "send")
    found = sent_message(request.nexus, path_id(request, "lead"), send_id)
    headers = {
        "Content-Type": found.rendered.media_type,
        "Content-Disposition": f'attachment; filename="message-{send_id}.eml"',
        "Nexus-Composed-At": found.at.isoformat(),
        "Nexus-Sent-By": found.sent_by,
        "Nexus-Made-By": found.made_by,
    }
    return Response(found.rendered.content, headers=headers)
