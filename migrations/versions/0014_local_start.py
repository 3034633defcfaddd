"""Campaigns that begin by the clock of each lead."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import Text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = ("marketing_campaigns", "marketing_sends")


def upgrade() -> None:
    """One column each."""
    for table in TABLES:
        op.add_column(table, sa.Column("local_start", Text, nullable=True))


def downgrade() -> None:
    """Without them: what waits for its hour is sent at once."""
    for table in TABLES:
        op.drop_column(table, "local_start")
