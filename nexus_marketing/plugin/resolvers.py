"""What a tenant resolver may answer, wherever it is asked."""

from collections.abc import Set as AbstractSet
from typing import Any

from nexus_marketing.core.extensions import TenantMember
from nexus_marketing.core.permissions import parse_scopes


def read_claim(found: Any) -> TenantMember | None:
    """What a resolver answered, if it keeps the contract.

    Raises:
        TypeError: it is no answer.
        ValidationError: it names a scope that there is not.
    """
    if found is None:
        return None
    if not isinstance(found, TenantMember):
        raise TypeError("it is no TenantMember")
    tenant: Any = found.tenant
    member: Any = found.member
    if not isinstance(tenant, str) or not isinstance(member, str | int) or isinstance(member, bool):
        raise TypeError("a TenantMember has the name of a tenant, and the address or the id of a member")
    scopes: Any = found.scopes
    if scopes is not None:
        if not isinstance(scopes, AbstractSet):
            raise TypeError("the scopes of a TenantMember are a frozenset of words")
        parse_scopes(scopes)
    return found
