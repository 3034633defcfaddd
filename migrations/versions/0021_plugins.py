"""Which plugins a tenant has on."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLE = "marketing_plugins"


def upgrade() -> None:
    """One small table."""
    op.create_table(
        TABLE,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("settings", Json, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{TABLE}")),
    )
    op.create_index("uq_marketing_plugins_name", TABLE, ["tenant_id", "name"], unique=True)
    fence(TABLE)


def downgrade() -> None:
    """Every plugin is off."""
    op.drop_table(TABLE)
