"""What every POST, PATCH and DELETE has in common: one answer per ``Idempotency-Key``."""

from collections.abc import Callable
from hashlib import sha256

import orjson
from pyramid.request import Request
from pyramid.response import Response

from nexus_marketing.api.errors import HttpFault
from nexus_marketing.api.replies import Reply, dump, json_response
from nexus_marketing.services.idempotency import MAX_BODY_BYTES, MAX_KEY_CHARACTERS, Answer, keep, recall

Change = Callable[[Request], Reply]
#: JSON never begins with it: what follows is the address of the resource, whose body was too long to keep.
_REFERENCE = b"@"


def writes(change: Change) -> Callable[[Request], Response]:
    """The view of a change: raise to roll back; what it returns is committed and, with a key, kept."""

    def view(request: Request) -> Response:
        key = idempotency_key(request)
        if key is None:
            return _respond(change(request))
        if request.registry["nexus.runtime"].engines.dialect != "postgresql":
            leave = request.registry["nexus.keys_in_flight"].enter(request.identity.tenant_id, key)
            request.add_finished_callback(lambda _request: leave())
        fingerprint = request_fingerprint(request)
        known = recall(request.nexus, key, fingerprint)
        if known is not None:
            return replay(request, known)
        reply = change(request)
        keep(request.nexus, key, fingerprint, _answer(reply))
        return _respond(reply)

    return view


def idempotency_key(request: Request) -> str | None:
    """The key of a request, if it has one.

    Raises:
        HttpFault: 400, it is empty, too long or not plain text.
    """
    key: str | None = request.environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise HttpFault(
            400, "bad_idempotency_key", f"Idempotency-Key takes 1 to {MAX_KEY_CHARACTERS} printable ASCII characters."
        )
    return key


def request_fingerprint(request: Request) -> bytes:
    """What makes two requests the same one: method, path and the body's meaning."""
    try:
        body = orjson.dumps(orjson.loads(request.body), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError:
        body = request.body
    condition = request.environ.get("HTTP_IF_MATCH", "")
    return sha256(b"\x00".join([request.method.encode(), request.path_qs.encode(), condition.encode(), body])).digest()


def replay(request: Request, known: Answer) -> Response:
    """The kept answer again, marked as such."""
    if known.body.startswith(_REFERENCE):
        response = _current(request, known.body[1:].decode())
        response.status_int = known.status
    else:
        response = json_response(known.body, known.status)
    if known.status == 204:
        del response.content_type
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _current(request: Request, path: str) -> Response:
    again = Request.blank(path, headers={"Authorization": request.headers["Authorization"]})
    again.environ |= {name: request.environ[name] for name in ("nexus.request_id", "nexus.identity")}
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
        return Response(status=204, content_type=None)
    headers = {}
    if reply.version is not None:
        headers["ETag"] = f'"{reply.version}"'
    if reply.status == 201:
        headers["Location"] = reply.path
    return json_response(dump(reply.document), reply.status, headers)
