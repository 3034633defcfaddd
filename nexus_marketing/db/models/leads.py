"""Leads and the jobs that bring them in."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain, tenant_fk


class Lead(TenantKeyed, Base):
    """A person we may write to. An address of any kind suffices.

    ``email_norm`` is the folded companion of ``email`` (CONDITIONS.md, Text): uniqueness and
    look-ups use it, because a plain ``=`` on it keeps its index under row-level security.
    """

    __tablename__ = "marketing_leads"
    __table_args__ = (
        Index("uq_marketing_leads_tenant_id_email_norm", "tenant_id", "email_norm", unique=True),
        Index("uq_marketing_leads_tenant_id_external_id", "tenant_id", "external_id", unique=True),
        Index("ix_marketing_leads_tenant_id_created_at", "tenant_id", "created_at"),
        Index("ix_marketing_leads_tenant_id_score", "tenant_id", "score"),
    )

    score: Mapped[float] = plain(server_default=text("0"))
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
    email: Mapped[str | None] = personal()
    email_norm: Mapped[str | None] = personal()
    external_id: Mapped[str | None] = personal()
    phone: Mapped[str | None] = personal()
    name: Mapped[str | None] = personal()
    first_name: Mapped[str | None] = personal()
    last_name: Mapped[str | None] = personal()
    country: Mapped[str | None] = personal()
    locale: Mapped[str | None] = personal()
    time_zone: Mapped[str | None] = personal()
    tags: Mapped[list[Any]] = personal()
    attributes: Mapped[dict[str, Any]] = personal("metadata")


class LeadImport(TenantKeyed, Base):
    """A CSV on its way in: the checkpoint and the counts are committed with each piece."""

    __tablename__ = "marketing_lead_imports"

    source: Mapped[str] = plain()
    digest: Mapped[bytes] = plain()
    status: Mapped[str] = plain()
    row_count: Mapped[int] = plain(server_default=text("0"))
    byte_offset: Mapped[int] = plain(server_default=text("0"))
    created: Mapped[int] = plain(server_default=text("0"))
    updated: Mapped[int] = plain(server_default=text("0"))
    unchanged: Mapped[int] = plain(server_default=text("0"))
    duplicate: Mapped[int] = plain(server_default=text("0"))
    rejected: Mapped[int] = plain(server_default=text("0"))
    started_at: Mapped[datetime] = plain()
    finished_at: Mapped[datetime | None] = plain()


class LeadImportError(TenantScoped, Base):
    """A row of a CSV that did not come in, and why."""

    __tablename__ = "marketing_lead_import_errors"
    __table_args__ = (tenant_fk("import_id", "marketing_lead_imports", ondelete="CASCADE"),)

    import_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    row_no: Mapped[int] = plain(primary_key=True, autoincrement=False)
    column: Mapped[str] = plain()
    code: Mapped[str] = plain()
    message: Mapped[str] = personal()
