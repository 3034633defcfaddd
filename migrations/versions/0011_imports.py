"""Imports: uploads, options, dry runs, leases, profiles, and what it takes to undo one."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

IMPORTS = "marketing_lead_imports"
TABLES = ("marketing_lead_import_pieces", "marketing_lead_import_changes", "marketing_lead_import_profiles")
AT_WORK = "status IN ('checking', 'running', 'undoing')"
ERASED = "reason = 'erased'"
COUNTS = ("suppressed", "consents", "consents_refused", "restored", "removed", "kept")
KEPT = ("upload", "traces")
ADDED = (
    "form",
    "blob_key",
    "size_bytes",
    "options",
    "inspection",
    "report",
    *COUNTS,
    "actor",
    "may_consent",
    "error",
    "lease_token",
    "leased_until",
    "upload_until",
    "traces_until",
)


def upgrade() -> None:
    """Three tables, and columns of the imports that are there."""
    for column in (
        sa.Column("form", Text, server_default=sa.text("'csv'"), nullable=False),
        sa.Column("blob_key", Text, nullable=True),
        sa.Column("size_bytes", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("options", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("inspection", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("report", Json, nullable=True),
        *(sa.Column(name, BigInt, server_default=sa.text("0"), nullable=False) for name in COUNTS),
        sa.Column("actor", Text, server_default=sa.text("'system'"), nullable=False),
        sa.Column("may_consent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("error", Text, nullable=True),
        sa.Column("lease_token", Text, nullable=True),
        *(sa.Column(f"{name}_until", UtcDateTime(), nullable=True) for name in ("leased", "upload", "traces")),
    ):
        op.add_column(IMPORTS, column)
    at_work = {"postgresql_where": sa.text(AT_WORK), "sqlite_where": sa.text(AT_WORK)}
    op.create_index("ix_marketing_lead_imports_at_work", IMPORTS, ["tenant_id", "id"], **at_work)
    op.create_index("ix_marketing_lead_imports_started", IMPORTS, ["tenant_id", "started_at"])
    for name in KEPT:
        kept = sa.text(f"{name}_until IS NOT NULL")
        index = f"ix_marketing_lead_imports_{name}"
        op.create_index(index, IMPORTS, [f"{name}_until", "tenant_id"], postgresql_where=kept, sqlite_where=kept)
    erased = {"postgresql_where": sa.text(ERASED), "sqlite_where": sa.text(ERASED)}
    op.create_index(
        "ix_marketing_suppressions_erased", "marketing_suppressions", ["tenant_id", "address_hash"], **erased
    )
    create_traces()
    create_profiles()
    for table in TABLES:
        fence(table)


def downgrade() -> None:
    """Back to imports of the command line; they can no longer be undone."""
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_index("ix_marketing_suppressions_erased", table_name="marketing_suppressions")
    for name in (*KEPT, "started", "at_work"):
        op.drop_index(f"ix_marketing_lead_imports_{name}", table_name=IMPORTS)
    for name in reversed(ADDED):
        op.drop_column(IMPORTS, name)


def key(name: str) -> sa.Column[int]:
    return sa.Column(name, BigInt, autoincrement=False, nullable=False)


def of_import(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "import_id"],
        [f"{IMPORTS}.tenant_id", f"{IMPORTS}.id"],
        name=op.f(f"fk_{table}_tenant_id_import_id"),
        ondelete="CASCADE",
    )


def create_traces() -> None:
    """What an import made and what it changed."""
    name = "marketing_lead_import_pieces"
    op.create_table(
        name,
        key("tenant_id"),
        key("import_id"),
        key("row_count"),
        sa.Column("created", Json, nullable=False),
        sa.Column("consented", Json, nullable=False),
        of_import(name),
        sa.PrimaryKeyConstraint("tenant_id", "import_id", "row_count", name=op.f(f"pk_{name}")),
    )
    name = "marketing_lead_import_changes"
    op.create_table(
        name,
        key("tenant_id"),
        key("import_id"),
        key("row_count"),
        key("lead_id"),
        sa.Column("before", Json, nullable=False),
        sa.Column("after", Json, nullable=False),
        of_import(name),
        sa.PrimaryKeyConstraint("tenant_id", "import_id", "row_count", "lead_id", name=op.f(f"pk_{name}")),
    )
    op.create_index("ix_marketing_lead_import_changes_lead", name, ["tenant_id", "lead_id"])


def create_profiles() -> None:
    """Options under a name."""
    name = "marketing_lead_import_profiles"
    op.create_table(
        name,
        key("tenant_id"),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("options", Json, nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f(f"uq_{name}_tenant_id_name")),
    )
