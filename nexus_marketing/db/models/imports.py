"""Files of leads on their way in: the import, its pieces, what it rejected and what it changed."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped

from nexus_marketing.db.base import Base, TenantKeyed, TenantScoped, personal, plain, tenant_fk
from nexus_marketing.db.types import Json

_AT_WORK = text("status IN ('checking', 'running', 'undoing')")


class LeadImport(TenantKeyed, Base):
    """A file on its way in (``core.audience.ImportStatus``): checkpoint and counts are committed with each piece.

    ``blob_key`` is set where the file was uploaded, so that a worker can read it; who holds the import
    at the moment is ``lease_token``, until ``leased_until``.
    """

    __tablename__ = "marketing_lead_imports"
    __table_args__ = (
        Index(
            "ix_marketing_lead_imports_at_work",
            "tenant_id",
            "id",
            postgresql_where=_AT_WORK,
            sqlite_where=_AT_WORK,
        ),
        Index("ix_marketing_lead_imports_started", "tenant_id", "started_at"),
        *(
            Index(
                f"ix_marketing_lead_imports_{name}",
                f"{name}_until",
                "tenant_id",
                postgresql_where=text(f"{name}_until IS NOT NULL"),
                sqlite_where=text(f"{name}_until IS NOT NULL"),
            )
            for name in ("upload", "traces")
        ),
    )

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
    form: Mapped[str] = plain(server_default=text("'csv'"))
    blob_key: Mapped[str | None] = plain()
    size_bytes: Mapped[int] = plain(server_default=text("0"))
    #: As of ``core.audience.ImportOptions``.
    options: Mapped[dict[str, Any]] = plain(server_default=text("'{}'"))
    #: What the bytes told: encoding, how sure that is, delimiter, and the field of each column.
    inspection: Mapped[dict[str, Any]] = plain(server_default=text("'{}'"))
    #: The last dry run: counts and samples, without a value of any row.
    report: Mapped[dict[str, Any] | None] = plain(Json)
    suppressed: Mapped[int] = plain(server_default=text("0"))
    consents: Mapped[int] = plain(server_default=text("0"))
    consents_refused: Mapped[int] = plain(server_default=text("0"))
    #: Undoing: leads put back, leads taken away, and those that were touched since and stay.
    restored: Mapped[int] = plain(server_default=text("0"))
    removed: Mapped[int] = plain(server_default=text("0"))
    kept: Mapped[int] = plain(server_default=text("0"))
    actor: Mapped[str] = plain(server_default=text("'system'"))
    #: Whether who started it may write consent.
    may_consent: Mapped[bool] = plain(server_default=text("false"))
    error: Mapped[str | None] = plain()
    lease_token: Mapped[str | None] = plain()
    leased_until: Mapped[datetime | None] = plain()
    #: When the uploaded file goes, and when what it takes to undo the import and the rejected rows do.
    upload_until: Mapped[datetime | None] = plain()
    traces_until: Mapped[datetime | None] = plain()


class LeadImportError(TenantScoped, Base):
    """A row of a file that did not come in, and why."""

    __tablename__ = "marketing_lead_import_errors"
    __table_args__ = (tenant_fk("import_id", "marketing_lead_imports", ondelete="CASCADE"),)

    import_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    row_no: Mapped[int] = plain(primary_key=True, autoincrement=False)
    column: Mapped[str] = plain()
    code: Mapped[str] = plain()
    message: Mapped[str] = personal()


class LeadImportPiece(TenantScoped, Base):
    """What one transaction of an import made: kept until it can no longer be undone.

    ``row_count`` is how far the file was read at its end; ``created`` and ``consented`` are ranges of
    lead ids, both ends included.
    """

    __tablename__ = "marketing_lead_import_pieces"
    __table_args__ = (tenant_fk("import_id", "marketing_lead_imports", ondelete="CASCADE"),)

    import_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    row_count: Mapped[int] = plain(primary_key=True, autoincrement=False)
    created: Mapped[list[Any]] = plain()
    consented: Mapped[list[Any]] = plain()


class LeadImportChange(TenantScoped, Base):
    """What a piece changed of a lead that was known: only the fields it changed, as they were and as it left them."""

    __tablename__ = "marketing_lead_import_changes"
    __table_args__ = (
        tenant_fk("import_id", "marketing_lead_imports", ondelete="CASCADE"),
        Index("ix_marketing_lead_import_changes_lead", "tenant_id", "lead_id"),
    )

    import_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    row_count: Mapped[int] = plain(primary_key=True, autoincrement=False)
    lead_id: Mapped[int] = plain(primary_key=True, autoincrement=False)
    before: Mapped[dict[str, Any]] = personal()
    after: Mapped[dict[str, Any]] = personal()


class LeadImportProfile(TenantKeyed, Base):
    """Options under a name, for files that come again and again."""

    __tablename__ = "marketing_lead_import_profiles"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    name: Mapped[str] = plain()
    options: Mapped[dict[str, Any]] = plain()
    version: Mapped[int] = plain(server_default=text("1"))
    created_at: Mapped[datetime] = plain()
    updated_at: Mapped[datetime] = plain()
