"""Tenants themselves: the one table above all tenants, written by the owner role only."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus_marketing.core.errors import NotFound
from nexus_marketing.db.models import Tenant


def find_tenant(session: Session, slug: str) -> Tenant | None:
    """The tenant of this name."""
    return session.scalars(select(Tenant).where(Tenant.slug == slug)).one_or_none()


def require_tenant(session: Session, slug: str) -> Tenant:
    """The tenant of this name.

    Raises:
        NotFound: names the remedy.
    """
    tenant = find_tenant(session, slug)
    if tenant is None:
        raise NotFound(f"There is no tenant {slug!r}: see `nexus-marketing tenants list`.", slug=slug)
    return tenant


def list_tenants(session: Session, limit: int = 1000) -> list[Tenant]:
    """Tenants by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.slug).limit(limit)))


def work_for(session: Session, tenant: Tenant) -> None:
    """Let an owner's session that has no tenant go on as one of this tenant, made in the same transaction."""
    session.info["tenant_id"] = tenant.id
