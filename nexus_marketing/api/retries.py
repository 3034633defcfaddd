"""Which requests are simply done again when the database was busy or away for a moment."""

from pyramid.request import Request

_ATTEMPTS = 3
_SAFE = frozenset({"GET", "HEAD"})


def attempts(request: Request) -> int:
    """How often a request may be tried: more than once only where a repeat cannot do a thing twice.

    A body that is too large is not kept for a second try, because it is refused anyway.
    """
    environ = request.environ
    repeatable = request.method in _SAFE or "HTTP_IDEMPOTENCY_KEY" in environ
    limit = request.registry["nexus.runtime"].settings.max_body_bytes
    is_bounded = (request.content_length or 0) <= limit and "HTTP_TRANSFER_ENCODING" not in environ
    return _ATTEMPTS if repeatable and is_bounded else 1
