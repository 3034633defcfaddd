"""Pyramid's security policy: a bearer key is an identity, or else who is signed in; scopes and roles are permissions."""

from typing import Any

from pyramid.request import Request
from pyramid.security import Allowed, Denied

from nexus_marketing.core.actors import lacking
from nexus_marketing.core.errors import AuthenticationFailed, NexusError
from nexus_marketing.core.permissions import PUBLIC_PERMISSIONS
from nexus_marketing.security.keys import Credentials
from nexus_marketing.security.routes import ANY_KEY, IDENTITY
from nexus_marketing.security.sessions import Sessions

_SCHEME = "Bearer "
_MAX_KEY = 200


class KeyPolicy:
    """Reads ``Authorization: Bearer nmk_…``; keys in URLs or cookies are not looked at. Without such a header the plugin that
    resolves tenants is asked, if there is one. Whoever sends a key means it: a wrong one is refused, whoever is signed in.
    """

    def identity(self, request: Request) -> Credentials | None:
        """Whom the request acts for; ``None`` where nobody is let in, and the environment says then why."""
        found = request.environ.get(IDENTITY)
        if found is None:
            request.environ[IDENTITY] = False  # a resolver that asks who this is hears: nobody
            try:
                found = request.environ[IDENTITY] = self._identify(request)
            except BaseException:
                del request.environ[IDENTITY]  # another try of this request asks again
                raise
        return found if isinstance(found, Credentials) else None

    def authenticated_userid(self, request: Request) -> str | None:
        """``key:<id>`` of a live key, or ``member:<id>`` of who is signed in."""
        identity = self.identity(request)
        return identity.actor.label if identity else None

    def permits(self, request: Request, _context: Any, permission: str) -> Allowed | Denied:
        """Whether the key has the scope, or the member the role.

        Raises:
            PermissionDenied: names the missing permission.
        """
        identity = self.identity(request)
        if identity is None:
            return Denied("nobody is let in")
        granted = identity.actor.permissions
        # A key that stands in a page opens nothing that any key opens.
        allowed = granted != PUBLIC_PERMISSIONS if permission == ANY_KEY else permission in granted
        if not allowed:
            request.registry["nexus.runtime"].telemetry.count("security.permission_denied", permission=permission)
            raise lacking(permission)
        return Allowed(permission)

    def remember(self, _request: Request, _userid: str, **_options: Any) -> list[tuple[str, str]]:
        """Nothing: sessions are the application's around us."""
        return []

    def forget(self, _request: Request, **_options: Any) -> list[tuple[str, str]]:
        """What a client is told when its key is refused (RFC 6750)."""
        return [("WWW-Authenticate", 'Bearer realm="nexus-marketing"')]

    @staticmethod
    def _identify(request: Request) -> Credentials | NexusError | bool:
        header = request.environ.get("HTTP_AUTHORIZATION", "").lstrip()
        sessions: Sessions = request.registry["nexus.sessions"]
        if header[: len(_SCHEME)].rstrip().lower() != _SCHEME.rstrip().lower():
            return sessions.identify(request) or False
        if not header.startswith(_SCHEME) or len(header) > _MAX_KEY:
            return False
        # The socket's peer, not X-Forwarded-For, which anybody may write.
        address = request.environ.get("REMOTE_ADDR", "")
        try:
            found = request.registry["nexus.keys"].identify(header[len(_SCHEME) :].strip(), address)
        except AuthenticationFailed:
            return False
        return sessions.confirm(request, found)
