"""Launches over several channels: campaigns say which and how many to wait for, sends know their launch."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, OrderedJson, Text, UtcDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every launch that was there has one channel."""
    op.add_column("marketing_campaigns", sa.Column("channels", OrderedJson, nullable=True))
    op.add_column("marketing_campaigns", sa.Column("wait_for", Text, server_default=sa.text("'all'"), nullable=False))
    op.add_column("marketing_sends", sa.Column("launch_id", BigInt, nullable=True))
    for name in ("legs", "wait_for"):
        op.add_column(
            "marketing_sends", sa.Column(name, sa.SmallInteger(), server_default=sa.text("1"), nullable=False)
        )
    op.add_column("marketing_sends", sa.Column("joined_at", UtcDateTime(), nullable=True))
    _open_index("tenant_id", "campaign_id", "campaign_version", "occurrence_key", "channel")
    for name, columns, where in INDEXES:
        condition = sa.text(where)
        op.create_index(name, "marketing_sends", columns, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    """Without them: of a launch over several channels, each is one of its own."""
    for name, _, _ in INDEXES:
        op.drop_index(name, table_name="marketing_sends")
    _open_index("tenant_id", "campaign_id", "campaign_version", "occurrence_key")
    for name in ("joined_at", "wait_for", "legs", "launch_id"):
        op.drop_column("marketing_sends", name)
    for name in ("wait_for", "channels"):
        op.drop_column("marketing_campaigns", name)


INDEXES = (
    ("ix_marketing_sends_launch", ["tenant_id", "launch_id"], "launch_id IS NOT NULL"),
    ("ix_marketing_sends_joining", ["tenant_id", "id"], "legs > 1 AND joined_at IS NULL"),
)


def _open_index(*columns: str) -> None:
    condition = sa.text("status IN ('scheduled', 'planning', 'running', 'paused')")
    op.drop_index("uq_marketing_sends_open", table_name="marketing_sends")
    op.create_index(
        "uq_marketing_sends_open",
        "marketing_sends",
        list(columns),
        unique=True,
        postgresql_where=condition,
        sqlite_where=condition,
    )
