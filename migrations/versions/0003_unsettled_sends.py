"""Cancelled sends whose recipients are not settled yet are found by an index that holds nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNSETTLED = "status = 'cancelled' AND finished_at IS NULL"


def upgrade() -> None:
    """One small index; cancelled sends of before are settled once more, which finds nothing to do."""
    op.create_index(
        "ix_marketing_sends_unsettled",
        "marketing_sends",
        ["tenant_id", "id"],
        postgresql_where=sa.text(UNSETTLED),
        sqlite_where=sa.text(UNSETTLED),
    )


def downgrade() -> None:
    """Sweeps go back to reading what is open."""
    op.drop_index("ix_marketing_sends_unsettled", table_name="marketing_sends")
