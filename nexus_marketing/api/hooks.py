"""``POST /hooks/{tenant}/{channel}[/{provider}]``: where providers say what became of messages.

No key: the provider's signature is the whole of it, and it is looked at before anything else. The answer says nothing but
that it was heard, so that providers do not repeat what we know or do not care for.
"""

from collections.abc import Mapping

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.security.visitors import Crowd
from nexus_marketing.services.hooks import HookCall, receive_call


def includeme(config: Configurator) -> None:
    """Public, because providers have no key of ours."""
    config.add_api_route("POST", "/hooks/{tenant}/{channel}", receive, permission=PUBLIC, crowd=Crowd.CALLS)
    config.add_api_route("POST", "/hooks/{tenant}/{channel}/{provider}", receive, permission=PUBLIC, crowd=Crowd.CALLS)


def receive(request: Request) -> Response:
    """An empty answer, which is also no answer to somebody's text message."""
    place = request.matchdict
    provider = place.get("provider", "")
    call = HookCall(place["tenant"], place["channel"], provider, _headers(request, provider), request.body)
    # One tenant's wrong key must not shut out the same provider's reports to others.
    with request.registry["nexus.visitors"].guarding(request.path_info[:200], request.environ):
        receive_call(request.registry["nexus.runtime"], call)
    return Response(b"", content_type="text/plain", charset="utf-8")


def _headers(request: Request, provider: str) -> Mapping[str, str]:
    """Of the request, and where it was sent: providers sign the address that they know, whatever proxies made of it."""
    environ = request.environ
    sent = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    query = environ.get("QUERY_STRING", "")
    url = request.registry["nexus.runtime"].settings.public_url + request.path + (f"?{query}" if query else "")
    return {**sent, "content-type": environ.get("CONTENT_TYPE", ""), ":url": url, ":provider": provider}
