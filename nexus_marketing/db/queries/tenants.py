"""Tenants themselves: the one table above all tenants, written by the owner role only."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus_marketing.core.errors import NotFound
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.rowsets import is_postgresql
from nexus_marketing.db.tenancy import run, run_for_all
from nexus_marketing.db.types import read_json, read_moment


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


def find_tenant_id(session: Session, slug: str) -> int | None:
    """The tenant whose name stands in an address; on PostgreSQL the web role sees none by itself."""
    if is_postgresql(session):
        statement = "SELECT nexus_find_tenant(:slug)"
    else:
        statement = "SELECT id FROM marketing_tenants WHERE slug = :slug"
    found = run_for_all(session, statement, {"slug": slug}, writes=False).scalar()
    return None if found is None else int(found)


def list_tenants(session: Session, limit: int = 1000) -> list[Tenant]:
    """Tenants by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.slug).limit(limit)))


def work_for(session: Session, tenant: Tenant) -> None:
    """Let an owner's session that has no tenant go on as one of this tenant, made in the same transaction."""
    session.info["tenant_id"] = tenant.id


class Decisions(NamedTuple):
    """What a tenant decided, the database's moment at which it stood so, and the rates of one campaign."""

    settings: Mapping[str, Any]
    now: datetime
    send_rates: Sequence[Mapping[str, Any]] | None


# By hand: every chunk of a send asks for it, and it takes the mapper four times as long.
_DECISIONS = """
SELECT t.settings, nexus_now() AS now, (
    SELECT c.send_rates FROM marketing_campaigns c WHERE c.tenant_id = :tenant_id AND c.id = :campaign_id) AS send_rates
FROM marketing_tenants t WHERE t.id = :tenant_id
"""


def decisions(session: Session, campaign_id: int) -> Decisions:
    """What the session's tenant decided for a campaign of its."""
    row = run(session, _DECISIONS, {"campaign_id": campaign_id}, writes=False).one()
    return Decisions(read_json(row.settings) or {}, read_moment(row.now), read_json(row.send_rates))
