"""An import in somebody's hands: begun, found again where it was interrupted, completed."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from nexus_marketing.core.audience import ImportStatus
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.models import LeadImport
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.imports.reports import COUNTS
from nexus_marketing.services.imports.rows import RowSource


@dataclass(frozen=True, slots=True)
class Hold:
    """An import in somebody's hands: whoever has another token has taken it over."""

    import_id: int
    token: str


def new_token() -> str:
    """What tells one holder of an import from the next."""
    return secrets.token_hex(16)


def complete(ctx: Context, hold: Hold) -> LeadImport:
    """End an import whose last piece is written.

    Raises:
        Conflict: somebody else holds it, or it was stopped.
    """
    row = find(ctx.session, LeadImport, hold.import_id, lock=True)
    if row.status != ImportStatus.RUNNING or row.lease_token != hold.token:
        raise Conflict("Another process goes on with this import, or it was stopped.", id=hold.import_id)
    row.status, row.finished_at, row.lease_token, row.leased_until = ImportStatus.COMPLETED, ctx.now, None, None
    row.traces_until = ctx.now + timedelta(days=ctx.runtime.settings.import_undo_days)
    record(ctx, "import.completed", "lead_import", row.id, {name: (None, getattr(row, name)) for name in COUNTS[:5]})
    return row


def new_import(ctx: Context, source: RowSource, name: str, *, digest: bytes, status: ImportStatus) -> LeadImport:
    """Note a file that is to come in."""
    row = LeadImport(
        source=name,
        digest=digest,
        status=status,
        started_at=ctx.now,
        form=source.form,
        size_bytes=source.file.size_bytes,
        options=source.options.document(),
        inspection=inspection_of(source),
        actor=ctx.actor.label,
        may_consent=source.may_consent,
    )
    ctx.session.add(row)
    ctx.session.flush()
    return row


def inspection_of(source: RowSource) -> dict[str, Any]:
    """What the bytes told, and the field of each column."""
    file = source.file
    return {
        "encoding": file.encoding,
        "confidence": file.confidence,
        "delimiter": file.delimiter,
        "columns": [{"column": column.header, "target": column.target} for column in source.columns],
    }
