"""Segments and who is in them. Membership is a table, never a list on the lead (DESIGN.md 4.14)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.segments import SegmentCause, SegmentMove
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, plain, tenant_fk


class Segment(TenantKeyed, Base):
    """An audience by rule (``dynamic``, ``composite``), by hand (``static``) or frozen (``snapshot``).

    ``conditions`` is the JSON spelling of the condition language and ``depends_on`` what it reads; ``as_of`` says
    when membership was last computed whole, ``generation`` counts computations, ``error`` is what stopped the last
    one. ``pending`` says why membership is not that of the rule yet: ``build`` or ``rule``. ``building_until`` keeps
    upkeep away from a computation in pieces (SQLite).
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
    depends_on: Mapped[list[Any]] = plain(server_default=text("'[]'"))
    pending: Mapped[str | None] = plain()
    building_until: Mapped[datetime | None] = plain()
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


class SegmentMark(TenantKeyed, Base):
    """Leads whose membership may have changed: written with the change, removed once they were evaluated.

    ``names`` says what changed (``core.segments``). Only ever appended: whoever changes a lead waits for nobody.
    """

    __tablename__ = "marketing_segment_marks"

    names: Mapped[list[Any]] = plain()
    lead_ids: Mapped[list[Any]] = plain()
    marked_at: Mapped[datetime] = plain()


class SegmentChange(TenantKeyed, Base):
    """A lead entered or left a segment, and why; the first computation of a segment writes none."""

    __tablename__ = "marketing_segment_changes"
    __table_args__ = (
        one_of("change", SegmentMove),
        one_of("cause", SegmentCause),
        Index("ix_marketing_segment_changes_segment", "tenant_id", "segment_id", "id"),
        Index("ix_marketing_segment_changes_lead", "tenant_id", "lead_id", "id"),
    )

    segment_id: Mapped[int] = plain()
    lead_id: Mapped[int] = plain()
    change: Mapped[str] = plain()
    cause: Mapped[str] = plain()
    generation: Mapped[int] = plain()
    at: Mapped[datetime] = plain()
