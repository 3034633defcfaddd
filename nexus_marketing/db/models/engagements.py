"""What people did: raw hits as they arrive, and the engagements made of them."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Date, Identity, Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain
from nexus_marketing.db.types import BigInt


class Hit(TenantKeyed, Base):
    """An open or click as the web process saw it, before anybody judged it.

    The worker takes hits out again (``DELETE … RETURNING``) once they have settled; features that
    tell a machine from a person are kept, the address and the agent are not (LESSONS.md 37).
    """

    __tablename__ = "marketing_hits"
    __table_args__ = (Index("ix_marketing_hits_tenant_id_at", "tenant_id", "at"),)

    at: Mapped[datetime] = plain()
    type: Mapped[str] = plain()
    send_id: Mapped[int] = plain()
    seq: Mapped[int] = plain()
    lead_id: Mapped[int] = plain()
    link: Mapped[int | None] = plain()
    machine_hint: Mapped[str | None] = plain()


class Engagement(TenantScoped, Base):
    """An interaction with a lead. Monthly partitions on PostgreSQL, by ``tracked_at``."""

    __tablename__ = "marketing_engagements"
    __table_args__ = (
        Index("ix_marketing_engagements_type", "tenant_id", "type", "tracked_at", postgresql_include=["lead_id"]),
        Index("ix_marketing_engagements_lead", "tenant_id", "lead_id", "tracked_at"),
        Index("ix_marketing_engagements_campaign", "tenant_id", "campaign_id", "type"),
        {"postgresql_partition_by": "RANGE (tracked_at)"},
    )

    tracked_at: Mapped[datetime] = plain(primary_key=True)
    id: Mapped[int] = plain(BigInt, Identity(), primary_key=True, autoincrement=True)
    type: Mapped[str] = plain()
    lead_id: Mapped[int] = plain()
    campaign_id: Mapped[int | None] = plain()
    send_id: Mapped[int | None] = plain()
    seq: Mapped[int | None] = plain()
    link: Mapped[int | None] = plain()
    channel: Mapped[str | None] = plain()
    verdict: Mapped[str] = plain()
    notes: Mapped[str | None] = personal()
    attributes: Mapped[dict[str, Any]] = personal("metadata")


class EventSeen(TenantScoped, Base):
    """Event ids already taken: what makes ingestion idempotent (DATABASE.md, Keys)."""

    __tablename__ = "marketing_event_seen"
    __table_args__ = ({"postgresql_partition_by": "RANGE (received_on)"},)

    event_id: Mapped[str] = plain(primary_key=True)
    received_on: Mapped[date] = plain(Date, primary_key=True)


class RecipientEngagement(TenantScoped, Base):
    """The first open and the first click of one ledger row, by verdict: unique counts come from here."""

    __tablename__ = "marketing_recipient_engagements"
    __table_args__ = (Index("ix_marketing_recipient_engagements_send", "tenant_id", "send_id", "type", "verdict"),)

    send_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    seq: Mapped[int] = plain(primary_key=True, autoincrement=False)
    type: Mapped[str] = plain(primary_key=True)
    verdict: Mapped[str] = plain()
    first_at: Mapped[datetime] = plain()
    hits: Mapped[int] = plain(server_default=text("1"))
