"""How tenants use channels: their accounts at providers."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, plain


class ChannelAccount(TenantKeyed, Base):
    """How a tenant uses a channel: sender identity, settings, and what it is worth among the tenant's others.

    ``config`` never holds secrets: they are sealed in ``secrets``, and ``secrets_set`` names those that there are.
    ``version`` counts what people change; ``health`` is what workers saw last, and since when.
    """

    __tablename__ = "marketing_channels"
    __table_args__ = (Index("uq_marketing_channels_name", "tenant_id", "type", "name", unique=True),)

    type: Mapped[str] = plain()
    name: Mapped[str] = plain()
    config: Mapped[dict[str, Any]] = plain()
    secrets: Mapped[bytes | None] = plain()
    secrets_set: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    enabled: Mapped[bool] = plain()
    weight: Mapped[int] = plain(server_default=text("1"))
    rates: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    health: Mapped[str] = plain(server_default=text("'unknown'"))
    health_reason: Mapped[str | None] = plain()
    health_at: Mapped[datetime | None] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
