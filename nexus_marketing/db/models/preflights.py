"""Pre-flights: what would become of a campaign if it were launched."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.preflight import PreflightStatus
from nexus_marketing.db.base import Base, TenantKeyed, one_of, plain, tenant_fk
from nexus_marketing.db.types import OrderedJson

_WAITING = text("status = 'waiting'")


class Preflight(TenantKeyed, Base):
    """One look at a campaign's whole audience; workers go on from ``cursor``, the last lead that was looked at."""

    __tablename__ = "marketing_preflights"
    __table_args__ = (
        one_of("status", PreflightStatus),
        tenant_fk("campaign_id", "marketing_campaigns"),
        Index("ix_marketing_preflights_tenant_id_campaign_id", "tenant_id", "campaign_id"),
        # For the sweep: its size is what waits.
        Index("ix_marketing_preflights_waiting", "tenant_id", "id", postgresql_where=_WAITING, sqlite_where=_WAITING),
    )

    campaign_id: Mapped[int] = plain()
    campaign_version: Mapped[int] = plain()
    status: Mapped[str] = plain()
    #: Version of the template of each channel.
    templates: Mapped[dict[str, Any]] = plain()
    cursor: Mapped[int] = plain(server_default=text("0"))
    #: What was found so far, by channel (core.preflight.Tally); in the order of the channels.
    tallies: Mapped[dict[str, Any]] = plain(OrderedJson)
    #: What stands in the way of a launch, and what became of this: problems, and the answer when it is done.
    problems: Mapped[list[Any]] = plain()
    audience: Mapped[int] = plain(server_default=text("0"))
    error: Mapped[str | None] = plain()
    created_at: Mapped[datetime] = plain()
    finished_at: Mapped[datetime | None] = plain()
