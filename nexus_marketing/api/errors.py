"""Errors as problem documents (RFC 9457); the one place where our error tree meets HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPException, HTTPForbidden, HTTPMethodNotAllowed
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import mark_error_retryable
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from nexus_marketing.api.html import page
from nexus_marketing.core.errors import (
    AuthenticationFailed,
    Conflict,
    Gone,
    NexusError,
    NotFound,
    PermissionDenied,
    Problem,
    RateLimited,
    StaleVersion,
    Unavailable,
    ValidationError,
)
from nexus_marketing.db.retry import is_transient
from nexus_marketing.security.routes import limit_headers
from nexus_marketing.security.visitors import PAGE
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
#: First match by class wins; what is missing here is our own fault.
_STATUS: Sequence[tuple[type[NexusError], int]] = (
    (ValidationError, 422),
    (Gone, 410),
    (NotFound, 404),
    (Conflict, 409),
    (PermissionDenied, 403),
    (AuthenticationFailed, 401),
    (RateLimited, 429),
    (Unavailable, 503),
)
#: Faults of the request's form, before anybody looked at its meaning.
_BY_PROBLEM = {
    "not_json": 400,
    "not_an_object": 400,
    "cursor_invalid": 400,
    "bad_idempotency_key": 400,
    "unknown_operation": 400,
    "unsupported_media_type": 415,
}
#: What of an error's context a program can use, and its name in the problem document.
_MEMBERS = {"current": "current_version", "merged_into": "merged_into", "lead_ids": "lead_ids", "used_by": "used_by"}
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not answer that method.",
    500: "Something went wrong on our side. Quote the request id when you ask about it.",
    503: "A part we depend on does not answer: nothing was changed, try again.",
}
_UNIQUE = ("23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")


@dataclass(eq=False)
class HttpFault(Exception):
    """A fault that only HTTP knows; ``members`` are extra members of the problem document."""

    status: int
    code: str
    detail: str
    headers: Sequence[tuple[str, str]] = ()
    problems: Sequence[Problem] = ()
    members: Mapping[str, Any] = field(default_factory=dict)


def includeme(config: Configurator) -> None:
    """Translate every exception that reaches the top of a request."""
    config.add_exception_view(fault_view, context=HttpFault)
    config.add_exception_view(nexus_view, context=NexusError)
    config.add_exception_view(http_view, context=HTTPException)
    config.add_exception_view(database_view, context=DBAPIError)
    config.add_exception_view(unavailable_view, context=PoolTimeout)
    config.add_exception_view(unexpected_view, context=Exception)
    # Pyramid's default pages for these are HTML.
    config.add_notfound_view(http_view)
    config.add_forbidden_view(http_view)


def fault_view(fault: HttpFault, request: Request) -> Response:
    """A fault that was raised as such."""
    return fault_response(request, fault)


def nexus_view(error: NexusError, request: Request) -> Response:
    """An error of the tree."""
    status = _status(error, request)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Unavailable):
        return unexpected_view(error, request)
    if isinstance(error, RateLimited) and request.environ.get(PAGE):
        return _busy_page(error, request)
    members = {name: error.context[key] for key, name in _MEMBERS.items() if key in error.context}
    fault = HttpFault(status, error.code, error.message, tuple(_headers(error, request)), error.problems, members)
    return fault_response(request, fault)


def _busy_page(error: RateLimited, request: Request) -> Response:
    response = page("One moment", "<p>Too many requests come from your network. Try again in a minute.</p>", 429)
    response.headerlist.extend(_headers(error, request))
    return response


def http_view(error: HTTPException, request: Request) -> Response:
    """An error of Pyramid's own, without what it would say about our inside."""
    status = error.status_int
    if isinstance(error, HTTPForbidden):
        return nexus_view(PermissionDenied(), request)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    detail = _SENTENCES.get(status, HTTPStatus(status).description or HTTPStatus(status).phrase)
    headers = []
    if isinstance(error, HTTPMethodNotAllowed):
        headers.append(("Allow", error.headers["Allow"]))
        detail = f"This address answers {error.headers['Allow']}."
    return fault_response(request, HttpFault(status, code, detail, headers))


def database_view(error: DBAPIError, request: Request) -> Response:
    """A database that is busy, gone, or says that somebody was faster."""
    if is_transient(error):
        return unavailable_view(error, request)
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", "")
    if isinstance(error, IntegrityError) and state in _UNIQUE:
        detail = "Somebody else wrote the same at the same moment: load it and try again."
        return fault_response(request, HttpFault(409, Conflict.code, detail))
    return unexpected_view(error, request)


def unavailable_view(error: Exception, request: Request) -> Response:
    """Try again: at once by ourselves where that is safe, later by the caller."""
    mark_error_retryable(error)
    log.warning("unavailable", error=type(error).__name__, path=_pattern(request))
    return fault_response(request, HttpFault(503, Unavailable.code, _SENTENCES[503], [("Retry-After", "1")]))


def unexpected_view(error: Exception, request: Request) -> Response:
    """Our own fault: logged with its trace, told without it."""
    log.error("request_failed", exc_info=error, path=_pattern(request), method=request.method)
    return fault_response(request, HttpFault(500, "internal_error", _SENTENCES[500]))


def fault_response(request: Request, fault: HttpFault) -> Response:
    """The problem document of a fault."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(fault.status).phrase,
        "status": fault.status,
        "detail": fault.detail,
        "code": fault.code,
        "errors": [{"path": p.path, "code": p.code, "message": p.message} for p in fault.problems],
        "request_id": request.environ["nexus.request_id"],
        **fault.members,
    }
    response = Response(orjson.dumps(body), status=fault.status, content_type=CONTENT_TYPE)
    response.headerlist.extend(fault.headers)
    return response


def _status(error: NexusError, request: Request) -> int:
    for problem in error.problems:
        if problem.code in _BY_PROBLEM:
            return _BY_PROBLEM[problem.code]
    if isinstance(error, StaleVersion) and request.environ.get("nexus.if_match"):
        return 412
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _headers(error: NexusError, request: Request) -> list[tuple[str, str]]:
    headers = []
    if isinstance(error, RateLimited | Unavailable):
        headers.append(("Retry-After", str(max(1, int(error.retry_after_seconds + 0.999)))))
    elif "retry_after_seconds" in error.context:
        headers.append(("Retry-After", str(error.context["retry_after_seconds"])))
    if isinstance(error, AuthenticationFailed):
        headers.append(("WWW-Authenticate", 'Bearer realm="nexus-marketing"'))
    if isinstance(error, StaleVersion) and "current" in error.context:
        headers.append(("ETag", f'"{error.context["current"]}"'))
    if "nexus.limit" in request.environ:
        headers += limit_headers(request.environ["nexus.limit"])
    return headers


def _pattern(request: Request) -> str:
    """The route, not the path: paths of recipients' links hold their tokens."""
    route = getattr(request, "matched_route", None)
    return route.pattern if route else ""
