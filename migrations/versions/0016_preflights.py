"""Pre-flights: what would become of a campaign if it were launched."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, OrderedJson, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLE = "marketing_preflights"


def upgrade() -> None:
    """One table."""
    op.create_table(
        TABLE,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("campaign_version", BigInt, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("templates", Json, nullable=False),
        sa.Column("cursor", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("tallies", OrderedJson, nullable=False),
        sa.Column("problems", Json, nullable=False),
        sa.Column("audience", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("error", Text, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("status IN ('waiting', 'done', 'failed')", name=op.f("ck_marketing_preflights_status")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "campaign_id"],
            ["marketing_campaigns.tenant_id", "marketing_campaigns.id"],
            name=op.f("fk_marketing_preflights_tenant_id_campaign_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_preflights")),
    )
    op.create_index("ix_marketing_preflights_tenant_id_campaign_id", TABLE, ["tenant_id", "campaign_id"])
    waiting = sa.text("status = 'waiting'")
    op.create_index(
        "ix_marketing_preflights_waiting",
        TABLE,
        ["tenant_id", "id"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    fence(TABLE)


def downgrade() -> None:
    """Without them."""
    op.drop_table(TABLE)
