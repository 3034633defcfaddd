"""Rates of a campaign's own sends; recipients over whom workers ended."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

CAMPAIGNS, GRANTS, INDEX = "marketing_campaigns", "marketing_send_grants", "ix_marketing_send_grants_at"
CHUNKS = "marketing_delivery_chunks"


def upgrade() -> None:
    """Columns; what was granted before counts for the rates that sends share, and nobody is in doubt."""
    op.add_column(CHUNKS, sa.Column("crashes", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column(CHUNKS, sa.Column("doubt_lo", BigInt, nullable=True))
    op.add_column(CHUNKS, sa.Column("doubt_hi", BigInt, nullable=True))
    op.add_column(CAMPAIGNS, sa.Column("send_rates", Json, nullable=True))
    op.add_column(GRANTS, sa.Column("send_id", BigInt, nullable=True))
    op.drop_index(INDEX, GRANTS)
    op.create_index(INDEX, GRANTS, ["tenant_id", "channel", "send_id", "at"])


def downgrade() -> None:
    """Without them: what was granted to single sends is not counted twice."""
    op.drop_index(INDEX, GRANTS)
    op.execute("DELETE FROM marketing_send_grants WHERE send_id IS NOT NULL")
    op.drop_column(GRANTS, "send_id")
    op.create_index(INDEX, GRANTS, ["tenant_id", "channel", "at"])
    op.drop_column(CAMPAIGNS, "send_rates")
    for name in ("doubt_hi", "doubt_lo", "crashes"):
        op.drop_column(CHUNKS, name)
