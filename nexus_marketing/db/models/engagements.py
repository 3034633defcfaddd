"""What people did: raw hits as they arrive, and the engagements made of them."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Date, Identity, Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain
from nexus_marketing.db.types import BigInt

_CUSTOM = text("name IS NOT NULL")


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
    """An interaction with a lead. Monthly partitions on PostgreSQL, by ``tracked_at``.

    ``name`` is a custom event's own; ``words`` is what search looks through (``core.engagements.search_words``),
    indexed as a ``tsvector`` on PostgreSQL and by a table of words on SQLite. ``machine_hint`` is all that is kept of
    a request, so that later hits of one recipient can change what earlier ones are taken for.
    """

    __tablename__ = "marketing_engagements"
    __table_args__ = (
        Index("ix_marketing_engagements_type", "tenant_id", "type", "tracked_at", postgresql_include=["lead_id"]),
        Index("ix_marketing_engagements_lead", "tenant_id", "lead_id", "tracked_at"),
        Index(
            "ix_marketing_engagements_name",
            "tenant_id",
            "name",
            "tracked_at",
            postgresql_include=["lead_id"],
            postgresql_where=_CUSTOM,
            sqlite_where=_CUSTOM,
        ),
        Index("ix_marketing_engagements_campaign", "tenant_id", "campaign_id", "tracked_at"),
        {"postgresql_partition_by": "RANGE (tracked_at)"},
    )

    tracked_at: Mapped[datetime] = plain(primary_key=True)
    id: Mapped[int] = plain(BigInt, Identity(), primary_key=True, autoincrement=True)
    type: Mapped[str] = plain()
    name: Mapped[str | None] = plain()
    lead_id: Mapped[int] = plain()
    campaign_id: Mapped[int | None] = plain()
    send_id: Mapped[int | None] = plain()
    seq: Mapped[int | None] = plain()
    link: Mapped[int | None] = plain()
    channel: Mapped[str | None] = plain()
    verdict: Mapped[str] = plain()
    machine_hint: Mapped[str | None] = plain()
    notes: Mapped[str | None] = personal()
    attributes: Mapped[dict[str, Any]] = personal("metadata")
    words: Mapped[str | None] = personal()


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


class EngagementDelta(TenantKeyed, Base):
    """A change of counters that waits to be folded into the roll-ups; appended, never changed.

    Whoever writes engagements appends one per group in the same transaction, so that no counter is a row
    that many wait for. ``campaign_id`` 0 stands for none.
    """

    __tablename__ = "marketing_engagement_deltas"
    __table_args__ = (Index("ix_marketing_engagement_deltas_campaign", "tenant_id", "campaign_id"),)

    campaign_id: Mapped[int] = plain()
    day: Mapped[date] = plain(Date)
    type: Mapped[str] = plain()
    verdict: Mapped[str] = plain()
    hits: Mapped[int] = plain()
    recipients: Mapped[int] = plain()


class EngagementRollup(TenantScoped, Base):
    """Engagements (``hits``) and recipients of messages by campaign, day (UTC), type and verdict."""

    __tablename__ = "marketing_engagement_rollups"

    campaign_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    day: Mapped[date] = plain(Date, primary_key=True)
    type: Mapped[str] = plain(primary_key=True)
    verdict: Mapped[str] = plain(primary_key=True)
    hits: Mapped[int] = plain()
    recipients: Mapped[int] = plain()


class PublicEvent(TenantKeyed, Base):
    """An event from somebody's browser, as it came; the worker finds out whose it is, or lets it go.

    Written without a look at leads, so that the answer, and the time it takes, tell nothing about them.
    """

    __tablename__ = "marketing_public_events"

    received_at: Mapped[datetime] = plain()
    machine_hint: Mapped[str | None] = plain()
    body: Mapped[dict[str, Any]] = personal()


class EngagementComment(TenantKeyed, Base):
    """What somebody of the tenant wrote about an engagement."""

    __tablename__ = "marketing_engagement_comments"
    __table_args__ = (
        Index("ix_marketing_engagement_comments_engagement", "tenant_id", "engagement_id", "id"),
        Index("ix_marketing_engagement_comments_lead", "tenant_id", "lead_id"),
    )

    engagement_id: Mapped[int] = plain()
    tracked_at: Mapped[datetime] = plain()
    lead_id: Mapped[int] = plain()
    author: Mapped[str] = plain()
    text: Mapped[str] = personal()
    created_at: Mapped[datetime] = plain()


class EngagementAttachment(TenantKeyed, Base):
    """A file that belongs to an engagement; its bytes lie in the blob store under ``blob_key``."""

    __tablename__ = "marketing_engagement_attachments"
    __table_args__ = (
        Index("ix_marketing_engagement_attachments_engagement", "tenant_id", "engagement_id", "id"),
        Index("ix_marketing_engagement_attachments_lead", "tenant_id", "lead_id"),
    )

    engagement_id: Mapped[int] = plain()
    tracked_at: Mapped[datetime] = plain()
    lead_id: Mapped[int] = plain()
    name: Mapped[str] = personal()
    content_type: Mapped[str] = plain()
    size_bytes: Mapped[int] = plain()
    sha256: Mapped[bytes] = personal()
    blob_key: Mapped[str] = plain()
    author: Mapped[str] = plain()
    created_at: Mapped[datetime] = plain()
