"""Who does something: a member, a key, or the product itself."""

from dataclasses import dataclass, field

from nexus_marketing.core.errors import PermissionDenied
from nexus_marketing.core.permissions import ALL_PERMISSIONS, Permission


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever history and audit name. ``label`` is ``kind:id`` and never a person's name."""

    label: str
    permissions: frozenset[Permission] = field(default=ALL_PERMISSIONS)
    member_id: int | None = None

    def require(self, permission: Permission) -> None:
        """Refuse what this actor may not do.

        Raises:
            PermissionDenied: names the missing permission.
        """
        if permission not in self.permissions:
            raise lacking(permission)


def lacking(permission: str) -> PermissionDenied:
    """What somebody is told who may not."""
    remedy = "ask for a key with that scope, or for a role that has it"
    return PermissionDenied(f"This needs the permission {permission}: {remedy}.", permission=permission)


SYSTEM = Actor("system")
