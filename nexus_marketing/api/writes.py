"""What every POST, PATCH and DELETE has in common: one answer per ``Idempotency-Key``."""

from collections.abc import Callable

from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.replies import Reply, dump, json_response
from nexus_marketing.security.repeats import repeatable
from nexus_marketing.security.routes import IDENTITY
from nexus_marketing.services.idempotency import MAX_BODY_BYTES, Answer

Change = Callable[[Request], Reply]
#: JSON never begins with it: what follows is the address of the resource, whose body was too long to keep.
_REFERENCE = b"@"
_NO_CONTENT = 204


def writes(change: Change) -> Callable[[Request], Response]:
    """The view of a change: raise to roll back; what it returns is committed and, with a key, kept."""

    def view(request: Request) -> Response:
        claim = repeatable(request)
        if claim is None:
            return _respond(change(request))
        known = claim.recall(request.nexus)
        if known is not None:
            return _replay(request, known)
        reply = change(request)
        claim.keep(request.nexus, _answer(reply))
        return _respond(reply)

    return view


def _replay(request: Request, known: Answer) -> Response:
    """The kept answer again, marked as such."""
    if known.body.startswith(_REFERENCE):
        response = _current(request, known.body[1:].decode())
        response.status_int = known.status
    elif known.status == _NO_CONTENT:
        response = Response(status=known.status, content_type=None)
    else:
        response = json_response(known.body, known.status)
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _current(request: Request, path: str) -> Response:
    again = Request.blank(path)
    again.environ |= {name: request.environ[name] for name in ("nexus.request_id", IDENTITY)}
    again.registry = request.registry
    again.tm = request.tm
    again.nexus = request.nexus
    return request.invoke_subrequest(again)


def _answer(reply: Reply) -> Answer:
    body = b"" if reply.document is None else dump(reply.document)
    if len(body) > MAX_BODY_BYTES and reply.path:
        body = _REFERENCE + reply.path.encode()
    return Answer(reply.status, body)


def _respond(reply: Reply) -> Response:
    if reply.document is None:
        return Response(status=_NO_CONTENT, content_type=None)
    headers = {}
    if reply.version is not None:
        headers["ETag"] = f'"{reply.version}"'
    if reply.status == 201:
        headers["Location"] = reply.path
    return json_response(dump(reply.document), reply.status, headers)
