"""What surrounds every request: its id, the bound on its body, the headers of every answer."""

import re
import secrets
from collections.abc import Callable
from tempfile import SpooledTemporaryFile

import structlog
from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import INGRESS

from nexus_marketing.api.errors import HttpFault, fault_response
from nexus_marketing.security.sessions import BY_SESSION

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")
#: A JSON API shows nothing, runs nothing, is embedded nowhere and is kept by no cache (A02).
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


_BLOCK = 65_536
#: Longer bodies wait in a file that has no name.
_IN_MEMORY = 1_048_576
#: What may depend on who is signed in.
_FOR_SESSIONS = (
    ("Vary", "Authorization, Cookie, Origin, Sec-Fetch-Site"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FOR_BROWSERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Retry-After, X-Request-Id"),
)


def includeme(config: Configurator) -> None:
    """Outside of transactions and error pages, so that their answers have these headers too."""
    config.add_tween("nexus_marketing.api.surroundings.surround", under=INGRESS)


def bound_body(config: Configurator, path: str, max_bytes: int) -> None:
    """Let one path take longer bodies than the others."""
    config.registry.setdefault("nexus.body_bounds", {})[path] = max_bytes


def open_to_browsers(config: Configurator, path: str) -> None:
    """Let pages of any origin read one path's answers, faults included; there are no cookies to steal with."""
    config.registry.setdefault("nexus.open_paths", set()).add(path)


def surround(handler: Callable[[Request], Response], registry: Registry) -> Callable[[Request], Response]:
    """The outermost tween."""
    settings = registry["nexus.runtime"].settings
    limit = settings.max_body_bytes
    bounds: dict[str, int] = registry.setdefault("nexus.body_bounds", {})
    open_paths: set[str] = registry.setdefault("nexus.open_paths", set())
    headers = dict(_HEADERS)
    if settings.public_url.startswith("https:"):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    constant = tuple(headers.items())

    def tween(request: Request) -> Response:
        request_id = _request_id(request)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            fault = _body_fault(request, bounds.get(request.environ["PATH_INFO"], limit))
            response = handler(request) if fault is None else fault_response(request, fault)
        present = {name.lower() for name, _ in response.headerlist}
        response.headerlist.extend(pair for pair in constant if pair[0].lower() not in present)
        response.headerlist.append(("X-Request-Id", request_id))
        if BY_SESSION in request.environ:
            response.headerlist.extend(_FOR_SESSIONS)
        if request.environ["PATH_INFO"] in open_paths:
            response.headerlist.extend(_FOR_BROWSERS)
        return response

    return tween


def _request_id(request: Request) -> str:
    """The caller's id if it is a plain word, else a new one; the same for every attempt."""
    known: str | None = request.environ.get("nexus.request_id")
    if known is None:
        sent = request.environ.get("HTTP_X_REQUEST_ID", "")
        known = sent if _REQUEST_ID.match(sent) else secrets.token_hex(16)
        request.environ["nexus.request_id"] = known
    return known


def _body_fault(request: Request, limit: int) -> HttpFault | None:
    length = request.content_length
    if length is None:
        return _take_unmeasured_body(request, limit)
    return _too_large(limit) if length > limit else None


def _take_unmeasured_body(request: Request, limit: int) -> HttpFault | None:
    """Bodies without a length (chunked, HTTP/2) are read up to the bound, from servers that end them."""
    environ = request.environ
    if environ.get("wsgi.input_terminated"):
        spool, size = SpooledTemporaryFile(_IN_MEMORY), 0  # noqa: SIM115 - it lives as long as the request
        while block := environ["wsgi.input"].read(min(_BLOCK, limit + 1 - size)):
            size += spool.write(block)
            if size > limit:
                return _too_large(limit)
        spool.seek(0)
        request.body_file, request.content_length = spool, size
        return None
    if "HTTP_TRANSFER_ENCODING" in environ:
        return HttpFault(411, "length_required", "Send the body with a Content-Length.")
    return None


def _too_large(limit: int) -> HttpFault:
    return HttpFault(413, "body_too_large", f"The body is larger than {limit} bytes. Send less at once.")
