"""Which requests are simply done again when the database was busy or away for a moment."""

from io import BytesIO

from pyramid.request import Request

_ATTEMPTS = 3
_SAFE = frozenset({"GET", "HEAD"})


def attempts(request: Request) -> int:
    """How often a request may be tried: more than once only where a repeat cannot do a thing twice.

    A second try needs the body kept, so only bodies of a known, bounded length have one. What somebody
    sends along with a GET has no meaning (RFC 9110 9.3.1) and is not read.
    """
    environ = request.environ
    if request.method in _SAFE:
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(), "0"
        return _ATTEMPTS
    length = request.content_length
    limit = request.registry["nexus.runtime"].settings.max_body_bytes
    is_bounded = length is not None and length <= limit
    return _ATTEMPTS if "HTTP_IDEMPOTENCY_KEY" in environ and is_bounded else 1
