"""Which member of which tenant a session stands for: looked up at most once a second, refused without saying why.

Whoever is turned away learns nothing: an unknown tenant, a suspended one, one that does not use the plugin and one
that has no such member look the same. The operator's log and metrics tell them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import NotAMember, RateLimited
from nexus_marketing.core.extensions import TenantMember
from nexus_marketing.core.permissions import ROLE_PERMISSIONS, Permission, parse_scopes
from nexus_marketing.db.queries.members import FoundSeat, find_seat
from nexus_marketing.db.queries.tenants import find_tenant_id
from nexus_marketing.limits.memories import ShortMemory
from nexus_marketing.limits.windows import SlidingWindows
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.keys import MEMORY_SECONDS, Credentials
from nexus_marketing.services.tenants import SLUG
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Longer than any address.
_MOST_CHARACTERS: Final = 320
#: Refusals a minute before somebody who is signed in elsewhere has to wait, whichever tenants they ask for.
_REFUSED_PER_MEMBER: Final = 60


@dataclass(frozen=True, slots=True)
class Seat:
    """What was found of a claim; ``refusal`` is for the operator and empty where the member is let in."""

    tenant_id: int | None = None
    member_id: int | None = None
    permissions: frozenset[Permission] = frozenset()
    refusal: str = ""


class Memberships:
    """Answers what a tenant resolver says with credentials."""

    def __init__(self, runtime: Runtime, now_seconds: Callable[[], float]) -> None:
        self._runtime = runtime
        self._seats: ShortMemory[tuple[str, str, int | str], Seat] = ShortMemory(MEMORY_SECONDS, now_seconds)
        self._refused = SlidingWindows(_REFUSED_PER_MEMBER, 60.0, now_seconds)

    def credentials(self, plugin: str, claim: TenantMember) -> Credentials:
        """Those of the member, with no more than role and session allow.

        Raises:
            NotAMember: there is no such member of such a tenant that lets the plugin say so.
            RateLimited: they were refused too often.
        """
        before = self._seats.last(_key(plugin, claim))
        if before is None or before.refusal:  # who was let in before is looked up whatever happened since
            self._refuse_throttled(claim.member)
        seat = self.seat(plugin, claim)
        if seat.tenant_id is None or seat.member_id is None or seat.refusal:
            self._refused.take(_short(claim.member))
            raise NotAMember
        allowed = seat.permissions if claim.scopes is None else seat.permissions & parse_scopes(claim.scopes)
        return Credentials(seat.tenant_id, None, Actor(f"member:{seat.member_id}", allowed, seat.member_id))

    def seat(self, plugin: str, claim: TenantMember) -> Seat:
        """What there is of a claim, at most a second old; whoever asks without bound asks for :meth:`credentials`."""
        if not SLUG.fullmatch(claim.tenant):  # no tenant is called so
            return Seat(refusal="unknown_tenant")
        return self._seats.ask(_key(plugin, claim), lambda: self._looked_up(plugin, claim))

    def _refuse_throttled(self, member: int | str) -> None:
        verdict = self._refused.look(_short(member))
        if not verdict.allowed:
            said = "You are no member of what you ask for: wait before you ask again."
            raise RateLimited(said, retry_after_seconds=verdict.retry_after_seconds)

    def _looked_up(self, plugin: str, claim: TenantMember) -> Seat:
        found = self._look_up(plugin, claim.tenant, claim.member)
        if found.refusal:
            known = claim.tenant if found.tenant_id is not None else ""
            log.warning("session_refused", why=found.refusal, plugin=plugin, tenant=known, member_id=found.member_id)
        return found

    def _look_up(self, plugin: str, tenant: str, member: int | str) -> Seat:
        runtime = self._runtime
        with runtime.work(None, mode="read", role="app") as ctx:
            tenant_id = find_tenant_id(ctx.session, tenant)
        if not _can_be_named(member):
            return Seat(tenant_id, refusal="no_member" if tenant_id else "unknown_tenant")
        # Of nobody's tenant as well: it takes as long.
        with runtime.work(tenant_id or 0, mode="read", role="app") as ctx:
            row = find_seat(ctx.session, plugin, member)
        if row is None:
            return Seat(refusal="unknown_tenant")
        # A role of another version may do nothing in this one.
        permissions = ROLE_PERMISSIONS.get(row.role or "", frozenset())
        return Seat(tenant_id, row.member_id, permissions, _refusal(row, permissions))


def _key(plugin: str, claim: TenantMember) -> tuple[str, str, int | str]:
    return plugin, claim.tenant, _short(claim.member)


def _short(member: int | str) -> int | str:
    """What is remembered of it: of what is too long for an address, that it is."""
    return member if isinstance(member, int) else member[: _MOST_CHARACTERS + 1]


def _refusal(row: FoundSeat, permissions: frozenset[Permission]) -> str:
    if row.is_suspended:
        return "suspended"
    if not row.is_on:
        return "plugin_off"
    if row.member_id is None:
        return "no_member"
    return "" if permissions else "no_role"


def _can_be_named(member: int | str) -> bool:
    """Whether it can be an id, or an address: the words of somebody's own user table are neither."""
    if isinstance(member, int):
        return 0 < member < 2**63
    return len(member) <= _MOST_CHARACTERS and "@" in member and member.isprintable()
