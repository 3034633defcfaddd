"""Campaigns that are sent again and again."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import Json, UtcDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLE = "marketing_campaigns"


def upgrade() -> None:
    """Two columns."""
    op.add_column(TABLE, sa.Column("recurrence", Json, nullable=True))
    op.add_column(TABLE, sa.Column("next_run_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Without them: what was to come again does not."""
    op.drop_column(TABLE, "next_run_at")
    op.drop_column(TABLE, "recurrence")
