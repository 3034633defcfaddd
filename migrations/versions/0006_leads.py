"""Leads: declared fields, owners, phones that can be looked up, merging, erasure, keys that tell duplicates."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Bytes, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import APP, WORKER, fence, is_postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ADDED = ("owner_id", "gone_at", "merged_into")
UNFINISHED = "finished_at IS NULL"
MERGED = "merged_into IS NOT NULL"
#: Evidence and audit are written once; merging moves the person, erasure clears what is personal, nothing else changes.
CHANGEABLE = {"marketing_consents": "lead_id, ip_address, evidence", "marketing_audit_values": '"values"'}


def upgrade() -> None:
    """Three tables more, columns and indexes on leads."""
    create_tables()
    fence("marketing_lead_fields")
    fence("marketing_lead_keys")
    fence("marketing_lead_removals", grants="SELECT, INSERT, UPDATE")
    for column in (
        sa.Column("owner_id", BigInt, nullable=True),
        sa.Column("gone_at", UtcDateTime(), nullable=True),
        sa.Column("merged_into", BigInt, nullable=True),
    ):
        op.add_column("marketing_leads", column)
    op.create_index("ix_marketing_leads_tenant_id_phone", "marketing_leads", ["tenant_id", "phone"])
    op.create_index(
        "ix_marketing_leads_merged",
        "marketing_leads",
        ["tenant_id", "merged_into"],
        postgresql_where=sa.text(MERGED),
        sqlite_where=sa.text(MERGED),
    )
    op.create_index("ix_marketing_audit_values_lead", "marketing_audit_values", ["tenant_id", "lead_id"])
    if is_postgresql():
        for table, columns in CHANGEABLE.items():
            op.execute(f"GRANT UPDATE ({columns}) ON {table} TO {APP}, {WORKER}")


def create_tables() -> None:
    """What a tenant declares of its own fields, what tells duplicates, and who is gone."""
    op.create_table(
        "marketing_lead_fields",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("required", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("personal", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("allowed", Json, nullable=True),
        sa.Column("bounds", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_lead_fields")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_marketing_lead_fields_tenant_id_name")),
    )
    op.create_table(
        "marketing_lead_keys",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("key_hash", Bytes, nullable=False),
        sa.Column("lead_id", BigInt, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lead_id"],
            ["marketing_leads.tenant_id", "marketing_leads.id"],
            name=op.f("fk_marketing_lead_keys_tenant_id_lead_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "key_hash", "lead_id", name=op.f("pk_marketing_lead_keys")),
    )
    op.create_index("ix_marketing_lead_keys_tenant_id_lead_id", "marketing_lead_keys", ["tenant_id", "lead_id"])
    op.create_table(
        "marketing_lead_removals",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("into_id", BigInt, nullable=True),
        sa.Column("actor", Text, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("policy", Json, nullable=False),
        sa.Column("counts", Json, nullable=False),
        sa.Column("before", Json, nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("kind IN ('merged', 'erased')", name=op.f("ck_marketing_lead_removals_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lead_id"],
            ["marketing_leads.tenant_id", "marketing_leads.id"],
            name=op.f("fk_marketing_lead_removals_tenant_id_lead_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "into_id"],
            ["marketing_leads.tenant_id", "marketing_leads.id"],
            name=op.f("fk_marketing_lead_removals_tenant_id_into_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_lead_removals")),
        sa.UniqueConstraint("tenant_id", "lead_id", name=op.f("uq_marketing_lead_removals_tenant_id_lead_id")),
    )
    op.create_index("ix_marketing_lead_removals_into", "marketing_lead_removals", ["tenant_id", "into_id", "at"])
    op.create_index(
        "ix_marketing_lead_removals_unfinished",
        "marketing_lead_removals",
        ["tenant_id", "id"],
        postgresql_where=sa.text(UNFINISHED),
        sqlite_where=sa.text(UNFINISHED),
    )


def downgrade() -> None:
    """Back to leads without owners; who was merged or erased stays an empty lead."""
    if is_postgresql():
        for table, columns in CHANGEABLE.items():
            op.execute(f"REVOKE UPDATE ({columns}) ON {table} FROM {APP}, {WORKER}")
    op.drop_index("ix_marketing_audit_values_lead", table_name="marketing_audit_values")
    op.drop_index("ix_marketing_leads_merged", table_name="marketing_leads")
    op.drop_index("ix_marketing_leads_tenant_id_phone", table_name="marketing_leads")
    for name in reversed(ADDED):
        op.drop_column("marketing_leads", name)
    for table in ("marketing_lead_removals", "marketing_lead_keys", "marketing_lead_fields"):
        op.drop_table(table)
