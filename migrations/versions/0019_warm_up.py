"""Senders that are warmed up."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Text
from nexus_marketing.migrations.support import fence

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One small table."""
    op.create_table(
        "marketing_warm_ups",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("sender", Text, nullable=False),
        sa.Column("step", sa.SmallInteger, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "sender", name=op.f("pk_marketing_warm_ups")),
    )
    fence("marketing_warm_ups")


def downgrade() -> None:
    """Every plan begins anew."""
    op.drop_table("marketing_warm_ups")
