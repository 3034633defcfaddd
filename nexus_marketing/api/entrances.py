"""``POST /entrances/{token}``: where a program brings a lead into a journey, at the address that it was given for it."""

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.journeys import answer_document
from nexus_marketing.api.replies import show
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.security.visitors import Crowd
from nexus_marketing.services.journeys.entrances import PATH, EntranceCall, receive_entrance


def includeme(config: Configurator) -> None:
    """Public: the address is what a program needs to know."""
    config.add_api_route("POST", f"{PATH}/{{token}}", receive, permission=PUBLIC, crowd=Crowd.CALLS)


def receive(request: Request) -> Response:
    """What became of it; 200 too where the lead is not let in, which a repetition would not change."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    call = EntranceCall(request.matchdict["token"], headers, request.body)
    # Of a token the last part is secret; what stands before it says which journey.
    with request.registry["nexus.visitors"].guarding(call.token.rpartition("-")[0][:40], request.environ):
        found = receive_entrance(request.registry["nexus.runtime"], call)
    return show(
        {"data": [answer_document(each) for each in found]} if isinstance(found, list) else answer_document(found)
    )
