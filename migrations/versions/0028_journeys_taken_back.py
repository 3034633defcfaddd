"""Runs of journeys whose steps are taken back, and versions that only put other words into the one before."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, UtcDateTime

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

ACTIONS, RUNS, VERSIONS = "marketing_actions", "marketing_journey_runs", "marketing_journey_versions"
INDEX, OF_RUN = "ix_marketing_actions_run", "run_id IS NOT NULL"


def upgrade() -> None:
    """Columns that are empty where nothing is said."""
    op.add_column(ACTIONS, sa.Column("run_id", BigInt, nullable=True))
    where = {"postgresql_where": sa.text(OF_RUN), "sqlite_where": sa.text(OF_RUN)}
    op.create_index(INDEX, ACTIONS, ["tenant_id", "run_id", "id"], **where)
    op.add_column(RUNS, sa.Column("taken_back_at", UtcDateTime(), nullable=True))
    op.add_column(VERSIONS, sa.Column("patches", BigInt, nullable=True))


def downgrade() -> None:
    """What was taken back is not told any more."""
    op.drop_column(VERSIONS, "patches")
    op.drop_column(RUNS, "taken_back_at")
    op.drop_index(INDEX, ACTIONS)
    op.drop_column(ACTIONS, "run_id")
