"""Whether a page of our own made a request that acts by somebody's session (ADR 0026).

A browser sends cookies and client certificates along whoever asks. What it says of who asks cannot be written by a page:
``Sec-Fetch-Site`` (Fetch Metadata), and ``Origin`` where it is older or the connection is not encrypted.
"""

from typing import Final

from pyramid.request import Request

from nexus_marketing.core.errors import CrossSiteRefused, ValidationError

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: What a form of any site can send without being asked for leave (CORS-safelisted); nothing of ours is written so.
_FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_PORTS: Final = {"http": ":80", "https": ":443"}


def refuse_other_sites(request: Request, *, is_secure: bool) -> None:
    """Let only pages of the request's own origin act by a session.

    What changes something must be shown to come from there; what reads may also come from the address bar, or from
    something that is no browser and says nothing.

    Args:
        request: that has no key.
        is_secure: the installation is reached by ``https``, whatever a proxy in front of us made of that.

    Raises:
        CrossSiteRefused: it comes from elsewhere, or nobody can tell.
        ValidationError: it has a form's type (415).
    """
    environ = request.environ
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    reads = request.method in _SAFE
    if site is not None:
        allowed = site == "same-origin" or (reads and site == "none")
    elif origin is not None:
        allowed = _is_own(origin, environ.get("HTTP_HOST", ""), is_secure=is_secure or request.scheme == "https")
    else:
        allowed = reads
    if not allowed:
        raise CrossSiteRefused
    if not reads and request.content_type.strip().lower() in _FORMS:
        said = "A session takes no forms: send application/json, and files as application/octet-stream."
        raise ValidationError.at("", "unsupported_media_type", said)


def _is_own(origin: str, host: str, *, is_secure: bool) -> bool:
    """Whether an origin is where the request went: scheme, host and port (RFC 6454)."""
    scheme, _, place = origin.lower().partition("://")
    if scheme not in _PORTS or (is_secure and scheme != "https"):
        return False
    return bool(place) and place == host.lower().removesuffix(_PORTS[scheme])
