"""Which plugins a tenant has on."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, plain


class TenantPlugin(TenantKeyed, Base):
    """A tenant's switch and settings of a plugin; what was set stays while it is off. Without a row it is off."""

    __tablename__ = "marketing_plugins"
    __table_args__ = (Index("uq_marketing_plugins_name", "tenant_id", "name", unique=True),)

    name: Mapped[str] = plain()
    enabled: Mapped[bool] = plain()
    #: As the manifest's schema takes them, without secrets: those are sealed.
    settings: Mapped[dict[str, Any]] = plain()
    secrets: Mapped[bytes | None] = plain()
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
