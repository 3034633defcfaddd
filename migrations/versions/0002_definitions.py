"""Definitions and their versions; campaigns about a subject, with stages of their own and a time to be looked at."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, OrderedJson, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SUBJECT = "campaign_key IS NOT NULL"
TICK = "tick_at IS NOT NULL"
ADDED = (
    "campaign_key",
    "external_id",
    "definition_version",
    "program",
    "attended",
    "stage",
    "resumes_to",
    "counters",
    "starts_at",
    "tick_at",
)


def upgrade() -> None:
    """Two tables more, and columns on campaigns and their history."""
    create_tables()
    # Nobody deletes a definition: campaigns name it, and their history is to be read for ever.
    fence("marketing_definitions", grants="SELECT, INSERT, UPDATE")
    fence("marketing_definition_versions", grants="SELECT, INSERT")
    for column in (
        sa.Column("campaign_key", Text, nullable=True),
        sa.Column("external_id", Text, nullable=True),
        sa.Column("definition_version", Text, nullable=True),
        sa.Column("program", OrderedJson, nullable=True),
        sa.Column("attended", Json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("stage", Text, nullable=True),
        sa.Column("resumes_to", Text, nullable=True),
        sa.Column("counters", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=True),
        sa.Column("tick_at", UtcDateTime(), nullable=True),
    ):
        op.add_column("marketing_campaigns", column)
    op.add_column("marketing_history", sa.Column("version", BigInt, server_default=sa.text("0"), nullable=False))
    op.create_index(
        "uq_marketing_campaigns_subject",
        "marketing_campaigns",
        ["tenant_id", "subject_type", "subject_id", "campaign_key"],
        unique=True,
        postgresql_where=sa.text(SUBJECT),
        sqlite_where=sa.text(SUBJECT),
    )
    op.create_index(
        "ix_marketing_campaigns_tick",
        "marketing_campaigns",
        ["tick_at", "tenant_id", "id"],
        postgresql_where=sa.text(TICK),
        sqlite_where=sa.text(TICK),
    )


def create_tables() -> None:
    """Definitions, and what was published of them."""
    op.create_table(
        "marketing_definitions",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("code", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("schema", OrderedJson, nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", Text, nullable=True),
        sa.Column("revision", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_definitions")),
        sa.UniqueConstraint("tenant_id", "code", name=op.f("uq_marketing_definitions_tenant_id_code")),
    )
    op.create_table(
        "marketing_definition_versions",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("definition_id", BigInt, nullable=False),
        sa.Column("version", Text, nullable=False),
        sa.Column("schema", OrderedJson, nullable=False),
        sa.Column("published_by", Text, nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "definition_id"],
            ["marketing_definitions.tenant_id", "marketing_definitions.id"],
            name=op.f("fk_marketing_definition_versions_tenant_id_definition_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_definition_versions")),
        sa.UniqueConstraint(
            "tenant_id",
            "definition_id",
            "version",
            name=op.f("uq_marketing_definition_versions_tenant_id_definition_id_version"),
        ),
    )


def downgrade() -> None:
    """Back to the columns there were; what only these held is lost."""
    op.drop_index("ix_marketing_campaigns_tick", table_name="marketing_campaigns")
    op.drop_index("uq_marketing_campaigns_subject", table_name="marketing_campaigns")
    op.drop_column("marketing_history", "version")
    for name in reversed(ADDED):
        op.drop_column("marketing_campaigns", name)
    op.drop_table("marketing_definition_versions")
    op.drop_table("marketing_definitions")
