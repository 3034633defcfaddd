"""Segments and who is in them. Membership is a table, never a list on the lead (DESIGN.md 4.14)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, plain, tenant_fk


class Segment(TenantKeyed, Base):
    """An audience by rule (``dynamic``) or by hand (``static``).

    ``conditions`` is the JSON spelling of the condition language; ``as_of`` says when membership
    was last computed, ``generation`` counts computations, ``error`` is what stopped the last one.
    """

    __tablename__ = "marketing_segments"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        Index(
            "ix_marketing_segments_requested",
            "requested_at",
            postgresql_where=text("requested_at IS NOT NULL"),
            sqlite_where=text("requested_at IS NOT NULL"),
        ),
    )

    name: Mapped[str] = plain()
    kind: Mapped[str] = plain()
    conditions: Mapped[dict[str, Any] | None] = plain()
    lead_count: Mapped[int] = plain(server_default=text("0"))
    generation: Mapped[int] = plain(server_default=text("0"))
    cost_class: Mapped[str | None] = plain()
    as_of: Mapped[datetime | None] = plain()
    duration_ms: Mapped[int | None] = plain()
    error: Mapped[str | None] = plain()
    requested_at: Mapped[datetime | None] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()


class SegmentMember(TenantScoped, Base):
    """A lead is in a segment since ``entered_at``."""

    __tablename__ = "marketing_segment_members"
    __table_args__ = (
        tenant_fk("segment_id", "marketing_segments", ondelete="CASCADE"),
        tenant_fk("lead_id", "marketing_leads", ondelete="CASCADE"),
        Index("ix_marketing_segment_members_tenant_id_lead_id", "tenant_id", "lead_id"),
    )

    segment_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    entered_at: Mapped[datetime] = plain()
    generation: Mapped[int] = plain()
