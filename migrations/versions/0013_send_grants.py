"""Send rates: what was allowed to leave, and when."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One small table."""
    op.create_table(
        "marketing_send_grants",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("granted", BigInt, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_send_grants")),
    )
    op.create_index("ix_marketing_send_grants_at", "marketing_send_grants", ["tenant_id", "channel", "at"])
    fence("marketing_send_grants")


def downgrade() -> None:
    """Without limits of that kind."""
    op.drop_table("marketing_send_grants")
