"""Actions that are open, went wrong or can be taken back, runs that failed and escalations that are open are found among millions."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import UtcDateTime

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_marketing_actions_ill": ("marketing_actions", ["tenant_id", "id"], "state IN ('failed', 'paused')"),
    "ix_marketing_actions_open": (
        "marketing_actions",
        ["tenant_id", "campaign_id", "id"],
        "state IN ('waiting', 'paused') AND campaign_id IS NOT NULL",
    ),
    "ix_marketing_actions_to_undo": (
        "marketing_actions",
        ["tenant_id", "campaign_id", "settled_at", "id"],
        "state = 'done' AND compensation IS NOT NULL AND undone_at IS NULL",
    ),
    "ix_marketing_journey_runs_failed": ("marketing_journey_runs", ["tenant_id", "ended_at"], "state = 'failed'"),
    "ix_marketing_escalations_open": ("marketing_escalations", ["tenant_id", "id"], "acknowledged_at IS NULL"),
}


def upgrade() -> None:
    """Indexes, and when it was begun to take an action back."""
    op.add_column("marketing_actions", sa.Column("undone_at", UtcDateTime(), nullable=True))
    op.execute(
        "UPDATE marketing_actions SET undone_at = created_at WHERE (tenant_id, id) IN"
        " (SELECT tenant_id, undoes FROM marketing_actions WHERE undoes IS NOT NULL)"
    )
    for name, (table, columns, rows) in INDEXES.items():
        op.create_index(name, table, columns, postgresql_where=sa.text(rows), sqlite_where=sa.text(rows))


def downgrade() -> None:
    """Without them."""
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table)
    op.drop_column("marketing_actions", "undone_at")
