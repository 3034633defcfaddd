"""Chunks of recipients who wait for the rate of their addresses' domain."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import Text

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

TABLE, INDEX = "marketing_delivery_chunks", "ix_marketing_delivery_chunks_waiting"
ROWS = "closed_at IS NULL AND waits_for IS NOT NULL"


def upgrade() -> None:
    """What a chunk waits for, and an index of those that do."""
    op.add_column(TABLE, sa.Column("waits_for", Text, nullable=True))
    columns = ["tenant_id", "send_id", "waits_for", "chunk_no"]
    op.create_index(INDEX, TABLE, columns, postgresql_where=sa.text(ROWS), sqlite_where=sa.text(ROWS))


def downgrade() -> None:
    """They are claimed in the order of all."""
    op.drop_index(INDEX, TABLE)
    op.drop_column(TABLE, "waits_for")
