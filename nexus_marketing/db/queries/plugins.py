"""SQL about which plugins tenants have on."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus_marketing.db.models import TenantPlugin
from nexus_marketing.db.tenancy import run_for_all

_BY_TENANT = """
SELECT p.tenant_id, t.slug, p.name FROM marketing_plugins p JOIN marketing_tenants t ON t.id = p.tenant_id
WHERE p.enabled ORDER BY p.name, t.slug LIMIT 10000
"""


class PluginSettings(NamedTuple):
    """What a tenant set for a plugin; ``secrets`` are sealed."""

    settings: Mapping[str, Any]
    secrets: bytes | None = None
    id: int = 0


def plugins_on(session: Session) -> dict[str, PluginSettings]:
    """The settings of each plugin that the session's tenant has on, by name."""
    columns = (TenantPlugin.name, TenantPlugin.settings, TenantPlugin.secrets, TenantPlugin.id)
    wanted = select(*columns).where(TenantPlugin.enabled.is_(True)).limit(1_000)
    return {row.name: PluginSettings(row.settings, row.secrets, row.id) for row in session.execute(wanted)}


def tenants_by_plugin(session: Session) -> dict[str, list[str]]:
    """The slugs of the tenants that have a plugin on, by its name; for the operator."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in run_for_all(session, _BY_TENANT, writes=False):
        found[row.name].append(row.slug)
    return dict(found)
