"""Timers: waits that end by the clock."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WAITING = "status = 'waiting'"
DEAD = "status = 'dead'"
OF_CAMPAIGNS = "campaign_id IS NOT NULL"


def upgrade() -> None:
    """One table, found by tenant and moment."""
    op.create_table(
        "marketing_timers",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=True),
        sa.Column("type", Text, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("trigger_at", UtcDateTime(), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("status", Text, server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("lease_token", BigInt, nullable=True),
        sa.Column("error", Text, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("status IN ('waiting', 'dead')", name=op.f("ck_marketing_timers_status")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "campaign_id"],
            ["marketing_campaigns.tenant_id", "marketing_campaigns.id"],
            name=op.f("fk_marketing_timers_tenant_id_campaign_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_timers")),
        sa.UniqueConstraint("tenant_id", "type", "key", name=op.f("uq_marketing_timers_tenant_id_type_key")),
    )
    op.create_index(
        "ix_marketing_timers_due",
        "marketing_timers",
        ["tenant_id", "trigger_at"],
        postgresql_where=sa.text(WAITING),
        sqlite_where=sa.text(WAITING),
    )
    op.create_index(
        "ix_marketing_timers_dead",
        "marketing_timers",
        ["trigger_at"],
        postgresql_where=sa.text(DEAD),
        sqlite_where=sa.text(DEAD),
    )
    op.create_index(
        "ix_marketing_timers_campaign",
        "marketing_timers",
        ["tenant_id", "campaign_id"],
        postgresql_where=sa.text(OF_CAMPAIGNS),
        sqlite_where=sa.text(OF_CAMPAIGNS),
    )
    fence("marketing_timers")


def downgrade() -> None:
    """Nothing waits any more."""
    op.drop_table("marketing_timers")
