"""Sends remember that their campaign was told of their end, so that none is told twice or hides another."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UNREPORTED = "reported_at IS NULL AND status IN ('missed', 'failed', 'paused', 'completed')"
#: Campaigns that are not active were told, or need not be.
TOLD = """
UPDATE marketing_sends SET reported_at = created_at
WHERE status IN ('missed', 'failed', 'paused', 'completed') AND NOT EXISTS (
    SELECT 1 FROM marketing_campaigns c
    WHERE c.tenant_id = marketing_sends.tenant_id AND c.id = marketing_sends.campaign_id AND c.status = 'active')
"""


def upgrade() -> None:
    """A column, what is known of it, and the small index of what is still to be told."""
    op.add_column("marketing_sends", sa.Column("reported_at", UtcDateTime(), nullable=True))
    op.execute(TOLD)
    op.create_index(
        "ix_marketing_sends_unreported",
        "marketing_sends",
        ["tenant_id", "id"],
        postgresql_where=sa.text(UNREPORTED),
        sqlite_where=sa.text(UNREPORTED),
    )
    op.drop_index("ix_marketing_campaigns_active", table_name="marketing_campaigns")


def downgrade() -> None:
    """Back to looking at every active campaign."""
    op.create_index(
        "ix_marketing_campaigns_active",
        "marketing_campaigns",
        ["tenant_id", "id"],
        postgresql_where=sa.text("status = 'active'"),
        sqlite_where=sa.text("status = 'active'"),
    )
    op.drop_index("ix_marketing_sends_unreported", table_name="marketing_sends")
    op.drop_column("marketing_sends", "reported_at")
