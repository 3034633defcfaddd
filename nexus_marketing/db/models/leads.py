"""Leads, what a tenant declares of them, and how they go."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.core.audience import RemovalKind
from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, one_of, personal, plain, tenant_fk
from nexus_marketing.db.types import Json

_MERGED = text("merged_into IS NOT NULL")
_UNFINISHED = text("finished_at IS NULL")


class Lead(TenantKeyed, Base):
    """A person we may write to. An address of any kind suffices.

    ``email_norm`` is the folded companion of ``email`` (CONDITIONS.md, Text): uniqueness and
    look-ups use it, because a plain ``=`` on it keeps its index under row-level security.

    A row stays when its person goes: erased (``gone_at``), or merged into another (``merged_into`` too).
    Nothing personal is left in it then, and what was sent keeps somebody to point at.
    """

    __tablename__ = "marketing_leads"
    __table_args__ = (
        Index("uq_marketing_leads_tenant_id_email_norm", "tenant_id", "email_norm", unique=True),
        Index("uq_marketing_leads_tenant_id_external_id", "tenant_id", "external_id", unique=True),
        Index("ix_marketing_leads_tenant_id_created_at", "tenant_id", "created_at"),
        Index("ix_marketing_leads_tenant_id_score", "tenant_id", "score"),
        Index("ix_marketing_leads_tenant_id_phone", "tenant_id", "phone"),
        Index(
            "ix_marketing_leads_merged",
            "tenant_id",
            "merged_into",
            postgresql_where=_MERGED,
            sqlite_where=_MERGED,
        ),
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
    #: The member who looks after this lead.
    owner_id: Mapped[int | None] = plain()
    gone_at: Mapped[datetime | None] = plain()
    merged_into: Mapped[int | None] = plain()


class LeadField(TenantKeyed, Base):
    """A field of a tenant's own, kept in leads' metadata under its name; bounds are of its type or of its length."""

    __tablename__ = "marketing_lead_fields"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    name: Mapped[str] = plain()
    type: Mapped[str] = plain()
    required: Mapped[bool] = plain(server_default=text("false"))
    #: Whether erasure clears it; what is not personal stays with the row that is nobody's any more.
    personal: Mapped[bool] = plain(server_default=text("true"))
    allowed: Mapped[list[Any] | None] = plain(Json)
    #: ``min`` and ``max``, either of which may be missing.
    bounds: Mapped[dict[str, Any]] = plain(server_default=text("'{}'"))
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()


class LeadKey(TenantScoped, Base):
    """What two leads of one person have in common, as a keyed hash: found by the search for duplicates.

    Written by that search, and so as old as its last round: whoever reads it looks at the leads again.
    """

    __tablename__ = "marketing_lead_keys"
    __table_args__ = (
        tenant_fk("lead_id", "marketing_leads", ondelete="CASCADE"),
        Index("ix_marketing_lead_keys_tenant_id_lead_id", "tenant_id", "lead_id"),
    )

    kind: Mapped[str] = plain(primary_key=True)
    key_hash: Mapped[bytes] = personal(primary_key=True)
    lead_id: Mapped[int] = plain(primary_key=True, autoincrement=False)


class LeadRemoval(TenantKeyed, Base):
    """How a lead went: merged into another or erased; ``counts`` (rows by table) grow piece by piece until finished.

    ``before`` holds what a merged lead was, until the person is erased.
    """

    __tablename__ = "marketing_lead_removals"
    __table_args__ = (
        one_of("kind", RemovalKind),
        tenant_fk("lead_id", "marketing_leads"),
        tenant_fk("into_id", "marketing_leads"),
        UniqueConstraint("tenant_id", "lead_id"),
        Index("ix_marketing_lead_removals_into", "tenant_id", "into_id", "at"),
        Index(
            "ix_marketing_lead_removals_unfinished",
            "tenant_id",
            "id",
            postgresql_where=_UNFINISHED,
            sqlite_where=_UNFINISHED,
        ),
    )

    lead_id: Mapped[int] = plain()
    kind: Mapped[str] = plain()
    into_id: Mapped[int | None] = plain()
    actor: Mapped[str] = plain()
    at: Mapped[datetime] = plain()
    policy: Mapped[dict[str, Any]] = plain()
    counts: Mapped[dict[str, Any]] = plain()
    before: Mapped[dict[str, Any] | None] = personal()
    finished_at: Mapped[datetime | None] = plain()
