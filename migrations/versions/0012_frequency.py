"""Priorities and frequency caps: campaigns and sends say how they take part, ledger rows are found by lead and send."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLES = ("marketing_campaigns", "marketing_sends")


def upgrade() -> None:
    """Three columns each, with what BR-001 says of all that were there; one more column in an index, and an index."""
    for table in TABLES:
        op.add_column(table, sa.Column("priority", sa.SmallInteger(), server_default=sa.text("50"), nullable=False))
        for name in ("obeys_caps", "counts_toward_caps"):
            op.add_column(table, sa.Column(name, sa.Boolean(), server_default=sa.true(), nullable=False))
    _index("tenant_id", "lead_id", "send_id")
    op.create_index(
        "ix_marketing_sends_finished",
        "marketing_sends",
        ["tenant_id", "finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
        sqlite_where=sa.text("finished_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Without them."""
    op.drop_index("ix_marketing_sends_finished", table_name="marketing_sends")
    _index("tenant_id", "lead_id")
    for table in TABLES:
        for name in ("counts_toward_caps", "obeys_caps", "priority"):
            op.drop_column(table, name)


def _index(*columns: str) -> None:
    op.drop_index("ix_marketing_deliveries_lead", table_name="marketing_deliveries")
    op.create_index("ix_marketing_deliveries_lead", "marketing_deliveries", list(columns))
