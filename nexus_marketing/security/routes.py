"""The one table of who may do what: every route says its permission, one without refuses to boot.

``config.add_api_route`` declares a route; views that reach Pyramid another way (a plugin's own
``add_view``) are held to the same rule by :func:`entrance`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPMethodNotAllowed
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from nexus_marketing.core.errors import AuthenticationFailed, NexusError, RateLimited
from nexus_marketing.core.permissions import Permission
from nexus_marketing.limits.addresses import network_of
from nexus_marketing.limits.windows import Verdict
from nexus_marketing.security.visitors import Crowd

View = Callable[[Request], Response]

#: Any live key will do; what it may see is decided further inside (GraphQL fields).
ANY_KEY = "any_key"
#: Declared openly, with a reason beside it: recipients' links, probes of load balancers.
PUBLIC = NO_PERMISSION_REQUIRED
#: In a request's environment: credentials, an error that says why nobody is let in, or ``False``.
IDENTITY = "nexus.identity"
_DECLARABLE = frozenset({*Permission, ANY_KEY, PUBLIC})


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One method of one path. ``mode`` is the kind of transaction it gets (``db.engines``)."""

    pattern: str
    method: str
    permission: str
    mode: str
    view: View


class RouteTable:
    """Every declared route; read by dispatch, by the permission tests and by documentation."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], ApiRoute] = {}

    def __iter__(self) -> Iterator[ApiRoute]:
        """The routes in the order of their declaration."""
        return iter(self._routes.values())

    def add(self, route: ApiRoute) -> None:
        """Note one."""
        self._routes[(route.pattern, route.method)] = route

    def methods(self, pattern: str) -> list[str]:
        """The methods that a path answers."""
        found = [method for path, method in self._routes if path == pattern]
        return sorted({*found, "HEAD"}) if "GET" in found else sorted(found)

    def mode(self, pattern: str, method: str) -> str:
        """The kind of transaction a request gets."""
        route = self._routes.get((pattern, "GET" if method == "HEAD" else method))
        if route is not None:
            return route.mode
        return "read" if method in ("GET", "HEAD") else "write"


def add_api_route(
    config: Configurator,
    method: str,
    pattern: str,
    view: View,
    *,
    permission: str,
    mode: str | None = None,
    crowd: Crowd | None = Crowd.PAGES,
) -> None:
    """Declare what a method of a path does and which permission it needs.

    Args:
        config: Pyramid's configurator.
        method: one HTTP method; ``GET`` answers ``HEAD`` too.
        pattern: a Pyramid route pattern.
        view: request → response.
        permission: a :class:`Permission`, ``ANY_KEY`` or ``PUBLIC``.
        mode: the kind of transaction; by the method unless given (a GET that writes says so here).
        crowd: among whom the requests of an address are counted where no key is asked for; ``None`` where an answer costs
            next to nothing, or must come whatever happens.
    """
    if permission not in _DECLARABLE:
        raise ConfigurationError(f"{method} {pattern}: {permission!r} is no permission of this product.")
    table: RouteTable = config.registry["nexus.routes"]
    is_new_path = not table.methods(pattern)
    route = ApiRoute(pattern, method, str(permission), mode or ("read" if method == "GET" else "write"), view)
    table.add(route)
    # An application around us may ask for tokens everywhere: programs with a key have none, and for sessions origins are looked at.
    options = {"route_name": pattern, "require_csrf": False}
    if is_new_path:
        config.add_route(pattern, pattern)
        config.add_view(_refuse_method, permission=PUBLIC, crowd=None, **options)
    config.add_view(view, request_method=method, permission=str(permission), crowd=crowd, **options)


def _refuse_method(request: Request) -> Response:
    """Pyramid answers a wrong method with an HTML 404; HTTP has a word for it (RFC 9110 15.5.6)."""
    allowed = request.registry["nexus.routes"].methods(request.matched_route.name)
    raise HTTPMethodNotAllowed(headers={"Allow": ", ".join(allowed)})


def entrance(view: Callable[[Any, Request], Response], info: Any) -> Callable[[Any, Request], Response]:
    """View deriver: key and rate limit before anything else; refuses views without a permission.

    Raises:
        ConfigurationError: at boot, for a view that declares no permission.
    """
    if info.exception_only:
        return view
    permission = info.options.get("permission")
    if permission is None:
        raise ConfigurationError(
            f"The view {info.original_view!r} declares no permission: pass permission=… (SECURITY.md, S04)."
        )
    if permission == PUBLIC:
        crowd: Crowd | None = info.options.get("crowd", Crowd.PAGES)
        return view if crowd is None else _counted(view, crowd)
    is_public_key = permission == Permission.EVENTS_WRITE_PUBLIC

    def admit(context: Any, request: Request) -> Response:
        identity = request.identity
        if identity is None or (is_public_key and identity.is_ambient):
            refusal = request.environ.get(IDENTITY)
            raise refusal if isinstance(refusal, NexusError) else AuthenticationFailed
        verdict = _take_public(request) if is_public_key else request.registry["nexus.limits"].take(identity.tenant_id)
        request.environ["nexus.limit"] = verdict
        if not verdict.allowed:
            raise RateLimited(retry_after_seconds=verdict.retry_after_seconds)
        response = view(context, request)
        response.headerlist.extend(limit_headers(verdict))
        return response

    return admit


#: What a view may say about itself beyond what Pyramid knows.
entrance.options = ("crowd",)  # type: ignore[attr-defined]


def _counted(view: Callable[[Any, Request], Response], crowd: Crowd) -> Callable[[Any, Request], Response]:
    def admit(context: Any, request: Request) -> Response:
        request.registry["nexus.visitors"].admit(crowd, request.environ)
        return view(context, request)

    return admit


def _take_public(request: Request) -> Verdict:
    """From the window of an address, and only what that lets through from the key's."""
    key = request.identity.key_row_id
    verdict: Verdict = request.registry["nexus.public_limits"].take((key, network_of(request.environ["REMOTE_ADDR"])))
    if not verdict.allowed:
        return verdict
    of_key: Verdict = request.registry["nexus.public_key_limits"].take(key)
    return verdict if of_key.allowed else of_key


def limit_headers(verdict: Verdict) -> list[tuple[str, str]]:
    """What a client needs to pace itself (draft-ietf-httpapi-ratelimit-headers)."""
    return [
        ("RateLimit-Limit", str(verdict.limit)),
        ("RateLimit-Remaining", str(verdict.remaining)),
        ("RateLimit-Reset", str(int(verdict.reset_seconds) + 1)),
    ]
