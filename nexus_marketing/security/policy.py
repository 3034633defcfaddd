"""Pyramid's security policy: a bearer key is an identity, its scopes are permissions."""

from typing import Any

from pyramid.request import Request
from pyramid.security import Allowed, Denied

from nexus_marketing.core.errors import AuthenticationFailed, PermissionDenied
from nexus_marketing.core.permissions import Permission
from nexus_marketing.security.keys import Credentials
from nexus_marketing.security.routes import ANY_KEY

_PUBLIC_ONLY = frozenset({Permission.EVENTS_WRITE_PUBLIC})
_SCHEME = "Bearer "
_MAX_KEY = 200


class KeyPolicy:
    """Reads ``Authorization: Bearer nmk_…``; keys in URLs or cookies are not looked at."""

    def identity(self, request: Request) -> Credentials | None:
        """Whose key the request carries; ``None`` without a usable one."""
        found = request.environ.get("nexus.identity")
        if found is None:
            found = request.environ["nexus.identity"] = self._identify(request)
        return found or None

    def authenticated_userid(self, request: Request) -> str | None:
        """``key:<id>`` of a live key."""
        identity = self.identity(request)
        return identity.actor.label if identity else None

    def permits(self, request: Request, _context: Any, permission: str) -> Allowed | Denied:
        """Whether the key has the scope.

        Raises:
            PermissionDenied: names the missing permission.
        """
        identity = self.identity(request)
        if identity is None:
            return Denied("no live key")
        granted = identity.actor.permissions
        # A key that stands in a page opens nothing that any key opens.
        allowed = granted != _PUBLIC_ONLY if permission == ANY_KEY else permission in granted
        if not allowed:
            request.registry["nexus.runtime"].telemetry.count("security.permission_denied", permission=permission)
            raise PermissionDenied(
                f"This needs the permission {permission}: ask for a key with that scope.", permission=permission
            )
        return Allowed(permission)

    def remember(self, _request: Request, _userid: str, **_options: Any) -> list[tuple[str, str]]:
        """Nothing: there are no sessions."""
        return []

    def forget(self, _request: Request, **_options: Any) -> list[tuple[str, str]]:
        """What a client is told when its key is refused (RFC 6750)."""
        return [("WWW-Authenticate", 'Bearer realm="nexus-marketing"')]

    @staticmethod
    def _identify(request: Request) -> Credentials | bool:
        header = request.environ.get("HTTP_AUTHORIZATION", "")
        if not header.startswith(_SCHEME) or len(header) > _MAX_KEY:
            return False
        # The socket's peer, not X-Forwarded-For, which anybody may write.
        address = request.environ.get("REMOTE_ADDR", "")
        try:
            return request.registry["nexus.keys"].identify(header[len(_SCHEME) :].strip(), address)
        except AuthenticationFailed:
            return False
