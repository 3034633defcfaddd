"""``/api/v1/events``: what happens in browsers, from pages that hold a public key.

Whoever opens the page has the key, so it can do nothing but this, and the answer tells nothing: it is the
same whether there is such a lead, whether the token is ours, and whether the event is new.
"""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.bodies import read_object
from nexus_marketing.api.replies import json_response, show
from nexus_marketing.api.resources import path_id
from nexus_marketing.api.schemas.events import MAX_BYTES, PUBLIC_EVENT
from nexus_marketing.api.surroundings import bound_body, open_to_browsers
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.services.public_events import lead_token, receive_event

_PATH = "/api/v1/events"
_RECEIVED = b'{"status":"received"}'
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Max-Age", "86400"),
)


def includeme(config: Configurator) -> None:
    """Events, the browser's question before it sends one, and tokens that say whose browser it is."""
    config.add_api_route("POST", _PATH, receive, permission=Permission.EVENTS_WRITE_PUBLIC)
    # Browsers ask without a key (Fetch, CORS-preflight request).
    config.add_api_route("OPTIONS", _PATH, answer_preflight, permission=PUBLIC, mode="read", crowd=None)
    config.add_api_route("GET", "/api/v1/leads/{id}/token", show_token, permission=Permission.ENGAGEMENTS_WRITE)
    bound_body(config, _PATH, MAX_BYTES)
    open_to_browsers(config, _PATH)


def receive(request: Request) -> Response:
    """202 for whatever is in the right form."""
    event = read_object(request, PUBLIC_EVENT)
    if ("token" in event) == ("email" in event):
        raise ValidationError.at("token", "required", "Say whose browser it is by either token or email.")
    receive_event(request.nexus, event, user_agent=request.environ.get("HTTP_USER_AGENT", ""))
    return json_response(_RECEIVED, 202)


def answer_preflight(_request: Request) -> Response:
    response = Response(status=204, content_type=None)
    response.headerlist.extend(_PREFLIGHT)
    return response


def show_token(request: Request) -> Response:
    """For pages that know who is looking: what they put beside the public key."""
    return show({"token": lead_token(request.nexus, path_id(request, "lead"))})
