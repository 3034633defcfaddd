"""Who changed what. The row that is never changed holds no personal value (DESIGN.md 4.18)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain
from nexus_marketing.db.types import BigInt


class AuditEntry(TenantScoped, Base):
    """One change. ``body`` names changed fields; personal values appear as salted commitments."""

    __tablename__ = "marketing_audit"
    __table_args__ = (Index("ix_marketing_audit_subject", "tenant_id", "subject_type", "subject_id", "at"),)

    at: Mapped[datetime] = plain(primary_key=True)
    id: Mapped[int] = plain(BigInt, Identity(), primary_key=True, autoincrement=True)
    actor: Mapped[str] = plain()
    action: Mapped[str] = plain()
    subject_type: Mapped[str] = plain()
    subject_id: Mapped[str] = plain()
    request_id: Mapped[str | None] = plain()
    body: Mapped[dict[str, Any]] = plain()
    body_hash: Mapped[bytes] = plain()


class AuditValue(TenantScoped, Base):
    """Salt and value behind the commitments of one audit row: what erasure clears."""

    __tablename__ = "marketing_audit_values"
    __table_args__ = (Index("ix_marketing_audit_values_lead", "tenant_id", "lead_id"),)

    at: Mapped[datetime] = plain(primary_key=True)
    audit_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int | None] = plain()
    values: Mapped[dict[str, Any] | None] = personal()


class AuditUntold(TenantKeyed, Base):
    """That a sink is still to be told of an audit row; it goes once the sink has taken it."""

    __tablename__ = "marketing_audit_untold"
    __table_args__ = (Index("ix_marketing_audit_untold_sink", "tenant_id", "sink", "id"),)

    sink: Mapped[str] = plain()
    at: Mapped[datetime] = plain()
    audit_id: Mapped[int] = plain()
