"""Consent and suppression: append-only events whose fold is the current state."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, personal, plain, tenant_fk

_ERASED = text("reason = 'erased'")


class Consent(TenantKeyed, Base):
    """One act of giving (``granted_at``) or withdrawing (``revoked_at``) consent, with its evidence.

    The newest row of (lead, channel, type) by ``at`` and ``id`` is what counts.
    """

    __tablename__ = "marketing_consents"
    __table_args__ = (
        tenant_fk("lead_id", "marketing_leads", ondelete="CASCADE"),
        Index("ix_marketing_consents_lead", "tenant_id", "lead_id", "channel", "type", "at", "id"),
        Index(
            "ix_marketing_consents_expiry",
            "tenant_id",
            "channel",
            "type",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
            sqlite_where=text("expires_at IS NOT NULL"),
        ),
    )

    lead_id: Mapped[int] = plain()
    channel: Mapped[str] = plain()
    type: Mapped[str] = plain()
    at: Mapped[datetime] = plain()
    granted_at: Mapped[datetime | None] = plain()
    revoked_at: Mapped[datetime | None] = plain()
    expires_at: Mapped[datetime | None] = plain()
    source: Mapped[str] = plain()
    text_version: Mapped[str | None] = plain()
    ip_address: Mapped[str | None] = personal()
    evidence: Mapped[dict[str, Any]] = personal()


class Suppression(TenantKeyed, Base):
    """An address that must not be written to (``lifted_at`` empty), or may be again.

    Keyed by a keyed hash, so that the wish outlives the erasure of the person. ``type`` says what is
    covered: ``marketing`` or ``all``. The newest row of (address, channel, type) counts.
    """

    __tablename__ = "marketing_suppressions"
    __table_args__ = (
        Index("ix_marketing_suppressions_address", "tenant_id", "address_hash", "channel", "type", "id"),
        Index("ix_marketing_suppressions_newest", "tenant_id", "id"),
        Index(
            "ix_marketing_suppressions_erased",
            "tenant_id",
            "address_hash",
            postgresql_where=_ERASED,
            sqlite_where=_ERASED,
        ),
    )

    address_hash: Mapped[bytes] = personal()
    email: Mapped[str | None] = personal()
    channel: Mapped[str] = plain()
    type: Mapped[str] = plain()
    reason: Mapped[str] = plain()
    source: Mapped[str] = plain()
    suppressed_at: Mapped[datetime | None] = plain()
    lifted_at: Mapped[datetime | None] = plain()
