"""Timers: every wait that ends by the clock is a row (DESIGN.md 4.6)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.timers import TimerStatus
from nexus_marketing.db.base import Base, TenantKeyed, one_of, plain, tenant_fk

_WAITING = text("status = 'waiting'")
_DEAD = text("status = 'dead'")


class Timer(TenantKeyed, Base):
    """Something to be done at ``trigger_at``, named by ``type`` and ``key``: of each there is at most one.

    A worker leases it (``lease_until``, ``lease_token``; ``attempts`` counts leases) and fires it in a transaction
    that removes it first. ``crashes`` counts leases whose worker never came back; ``error`` says why it failed last.
    """

    __tablename__ = "marketing_timers"
    __table_args__ = (
        UniqueConstraint("tenant_id", "type", "key"),
        tenant_fk("campaign_id", "marketing_campaigns", ondelete="CASCADE"),
        one_of("status", TimerStatus),
        Index("ix_marketing_timers_due", "tenant_id", "trigger_at", postgresql_where=_WAITING, sqlite_where=_WAITING),
        Index("ix_marketing_timers_dead", "trigger_at", postgresql_where=_DEAD, sqlite_where=_DEAD),
        Index(
            "ix_marketing_timers_campaign",
            "tenant_id",
            "campaign_id",
            postgresql_where=text("campaign_id IS NOT NULL"),
            sqlite_where=text("campaign_id IS NOT NULL"),
        ),
    )

    campaign_id: Mapped[int | None] = plain()
    type: Mapped[str] = plain()
    key: Mapped[str] = plain()
    trigger_at: Mapped[datetime] = plain()
    payload: Mapped[dict[str, Any]] = plain()
    status: Mapped[str] = plain(server_default=text("'waiting'"))
    attempts: Mapped[int] = plain(server_default=text("0"))
    crashes: Mapped[int] = plain(server_default=text("0"))
    lease_until: Mapped[datetime | None] = plain()
    lease_token: Mapped[int | None] = plain()
    error: Mapped[str | None] = plain()
    created_at: Mapped[datetime] = plain()
