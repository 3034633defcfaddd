"""Requests without a key: for whom they act says the one plugin that resolves tenants (DESIGN.md §6, ADR 0026)."""

from collections.abc import Callable
from functools import cached_property

from pyramid.request import Request

from nexus_marketing.core.errors import (
    CrossSiteRefused,
    IdentitiesDisagree,
    NexusError,
    NotAMember,
    RateLimited,
    Unavailable,
)
from nexus_marketing.core.extensions import TenantMember, TenantResolver
from nexus_marketing.core.permissions import PUBLIC_PERMISSIONS
from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.plugin.circuits import Circuit, PluginFailed
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.plugin.resolvers import read_claim
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.keys import Credentials
from nexus_marketing.security.memberships import Memberships, Seat
from nexus_marketing.security.origins import refuse_other_sites
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: In a request's environment: somebody asked whose session it is, so that the answer depends on it.
BY_SESSION = "nexus.by_session"
_SAID = "Who is signed in cannot be told at the moment: try again, or use an API key."


class Sessions:
    """Asks the resolver of the process, if it has one."""

    def __init__(self, runtime: Runtime, now_seconds: Callable[[], float]) -> None:
        self._runtime = runtime
        self._now = now_seconds
        self._memberships = Memberships(runtime, now_seconds)
        self._is_secure = runtime.settings.public_url.startswith("https:")

    @cached_property
    def _resolver(self) -> tuple[Plugin, TenantResolver] | None:
        # Plugins are included after us: the first request finds them all.
        return self._runtime.plugins.tenant_resolver

    @cached_property
    def _name(self) -> str:
        return "" if self._resolver is None else self._resolver[0].name

    @cached_property
    def _circuit(self) -> Circuit:
        # Its own: what strangers make fail in other parts of the plugin shuts nobody's session out.
        return self._runtime.plugins.host.circuit(f"{self._name} (tenant resolver)")

    def identify(self, request: Request) -> Credentials | NexusError | None:
        """Whom a request without a key acts for: nobody, a member, or why they are refused."""
        try:
            claim = self._ask(request)
            if claim is None:
                return None
            refuse_other_sites(request, is_secure=self._is_secure)
            return self._memberships.credentials(self._name, claim)
        except NexusError as error:
            self._count(error)
            return error

    def confirm(self, request: Request, credentials: Credentials) -> Credentials | NexusError:
        """A key's own credentials, unless whoever is signed in is of another tenant, or another member.

        A key is enough: where the resolver fails it acts alone. One that stands in a page says nothing of who reads that.
        """
        if self._resolver is None or credentials.actor.permissions == PUBLIC_PERMISSIONS:
            return credentials
        # Nobody else counts what is refused here, and each may name another tenant that is looked up.
        limits: SlidingWindows = request.registry["nexus.limits"]
        verdict = limits.look(credentials.tenant_id)
        if not verdict.allowed:
            return RateLimited(retry_after_seconds=verdict.retry_after_seconds)
        try:
            claim = self._ask(request)
            seat = None if claim is None else self._memberships.seat(self._name, claim)
        except Unavailable:
            return credentials
        except NexusError as error:
            return error
        if seat is None or _agree(seat, credentials):
            return credentials
        limits.take(credentials.tenant_id)
        refusal = IdentitiesDisagree()
        self._count(refusal)
        return refusal

    def _ask(self, request: Request) -> TenantMember | None:
        """What the resolver says.

        Raises:
            PluginFailed: it raised, said what is none, or is left alone because it was slow.
        """
        if self._resolver is None:
            return None
        request.environ[BY_SESSION] = True
        plugin, resolver = self._resolver
        self._check()
        begun = self._now()
        try:
            return read_claim(resolver.resolve(request))
        except Exception as error:  # isolation boundary: whatever it raises stays with it
            log.exception("tenant_resolver_failed", plugin=plugin.name, reason=type(error).__name__)
            self._runtime.telemetry.count("security.resolver_failed", why="raised")
            raise PluginFailed(_SAID) from error
        finally:
            self._look(self._now() - begun)

    def _check(self) -> None:
        try:
            self._circuit.check()
        except PluginFailed as error:
            raise PluginFailed(_SAID, retry_after_seconds=error.retry_after_seconds) from error

    def _look(self, taken: float) -> None:
        """Only slow answers open the circuit, as threads that wait for them answer nobody: a request that makes it raise is one
        that anybody may send.
        """
        most = self._runtime.plugins.host.plugins.call_seconds
        if taken > most:
            self._runtime.telemetry.count("security.resolver_failed", why="slow")
            self._circuit.failed(f"it took {taken:.1f} s for one answer, more than {most:g} s")
        elif self._circuit.failures:
            self._circuit.succeeded()

    def _count(self, error: NexusError) -> None:
        if isinstance(error, CrossSiteRefused | IdentitiesDisagree):
            log.warning("session_refused", why=error.code)
        if isinstance(error, CrossSiteRefused | IdentitiesDisagree | NotAMember):
            self._runtime.telemetry.count("security.session_refused", why=error.code)


def _agree(seat: Seat, credentials: Credentials) -> bool:
    members = {seat.member_id, credentials.actor.member_id} - {None}
    return seat.tenant_id == credentials.tenant_id and len(members) < 2
