"""One unit of work per request: ``request.nexus``, committed by pyramid_tm."""

from pyramid.request import Request

from nexus_marketing.core.actors import Actor
from nexus_marketing.runtime import Access, Context


class ApiRequest(Request):
    """A request whose body stays in memory: it is bounded, and a temporary file for 10 KB costs more."""

    request_body_tempfile_limit = 2**63


def request_context(request: Request) -> Context:
    """The tenant's context of an authenticated request; its transaction begins with the first statement."""
    identity = request.identity
    route = request.matched_route
    mode = request.registry["nexus.routes"].mode(route.name if route else "", request.method)
    return open_context(request, identity.tenant_id, identity.actor, mode)


def open_context(
    request: Request, tenant_id: int, actor: Actor, mode: str, *, timeout_seconds: float | None = None
) -> Context:
    """A context whose fate is the request's: raise to roll back.

    Args:
        request: whose transaction manager decides.
        tenant_id: from a key or from a signed token, never from a parameter.
        actor: who acts.
        mode: ``read`` or ``write``.
        timeout_seconds: when the database gives up a statement of it.
    """
    return Context(
        request.registry["nexus.runtime"],
        tenant_id,
        actor,
        request.tm,
        Access(mode, timeout_seconds=timeout_seconds),
        request_id=request.environ["nexus.request_id"],
    )
