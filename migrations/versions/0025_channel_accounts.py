"""Channel accounts: secrets, weights, rates and health; grants and chunks say by which account."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Bytes, Json, Text, UtcDateTime

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLE = "marketing_channels"


def upgrade() -> None:
    """Columns only: accounts of before have no secrets, a weight of 1 and no rates."""
    for column in (
        sa.Column("secrets", Bytes, nullable=True),
        sa.Column("secrets_set", Json, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("weight", BigInt, nullable=False, server_default=sa.text("1")),
        sa.Column("rates", Json, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("health", Text, nullable=False, server_default=sa.text("'unknown'")),
        sa.Column("health_reason", Text, nullable=True),
        sa.Column("health_at", UtcDateTime(), nullable=True),
        sa.Column("version", BigInt, nullable=False, server_default=sa.text("1")),
    ):
        op.add_column(TABLE, column)
    op.add_column("marketing_plugins", sa.Column("secrets", Bytes, nullable=True))
    op.add_column("marketing_send_grants", sa.Column("account", BigInt, nullable=True))
    op.add_column("marketing_delivery_chunks", sa.Column("account", BigInt, nullable=True))


def downgrade() -> None:
    """Secrets are gone: whoever comes back sets them again."""
    op.drop_column("marketing_delivery_chunks", "account")
    op.drop_column("marketing_send_grants", "account")
    op.drop_column("marketing_plugins", "secrets")
    for name in ("version", "health_at", "health_reason", "health", "rates", "weight", "secrets_set", "secrets"):
        op.drop_column(TABLE, name)
