"""Whether somebody acts for a tenant."""

from typing import NamedTuple

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from nexus_marketing.core.values import email_norm
from nexus_marketing.db.models import Member, Tenant, TenantPlugin
from nexus_marketing.db.tenancy import tenant_of


class FoundSeat(NamedTuple):
    """Of a tenant: whether it is suspended, whether it has the plugin on, and the member with the role, if there is one."""

    is_suspended: bool
    is_on: bool
    member_id: int | None
    role: str | None


def find_seat(session: Session, plugin: str, member: int | str) -> FoundSeat | None:
    """In one look, for the session's tenant: the member with this id, or this address; nothing where there is no such tenant."""
    named = Member.id == member if isinstance(member, int) else Member.email_norm == email_norm(member)
    is_on = (TenantPlugin.tenant_id == Tenant.id, TenantPlugin.name == plugin, TenantPlugin.enabled.is_(True))
    wanted = (
        select(Tenant.suspended_at, TenantPlugin.id, Member.id, Member.role)
        .select_from(Tenant)
        .outerjoin(TenantPlugin, and_(*is_on))
        .outerjoin(Member, and_(Member.tenant_id == Tenant.id, named))
        .where(Tenant.id == tenant_of(session))
    )
    row = session.execute(wanted).one_or_none()
    if row is None:
        return None
    suspended_at, switch, member_id, role = row
    return FoundSeat(suspended_at is not None, switch is not None, member_id, role)
