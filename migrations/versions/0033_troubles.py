"""What went wrong and waits for a person is found among millions by indexes that hold it alone."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0027"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_marketing_actions_ill": ("marketing_actions", ["tenant_id", "id"], "state IN ('failed', 'paused')"),
    "ix_marketing_journey_runs_failed": ("marketing_journey_runs", ["tenant_id", "ended_at"], "state = 'failed'"),
    "ix_marketing_escalations_open": ("marketing_escalations", ["tenant_id", "id"], "acknowledged_at IS NULL"),
}


def upgrade() -> None:
    """Indexes alone."""
    for name, (table, columns, rows) in INDEXES.items():
        op.create_index(name, table, columns, postgresql_where=sa.text(rows), sqlite_where=sa.text(rows))


def downgrade() -> None:
    """Without them."""
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table)
