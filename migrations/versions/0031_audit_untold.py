"""Which rows of the audit are still to be told to sinks."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

TABLE = "marketing_audit_untold"


def upgrade() -> None:
    """A queue."""
    op.create_table(
        TABLE,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("sink", Text, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("audit_id", BigInt, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_audit_untold")),
    )
    op.create_index("ix_marketing_audit_untold_sink", TABLE, ["tenant_id", "sink", "id"])
    fence(TABLE)


def downgrade() -> None:
    """What was not told stays in the audit itself."""
    op.drop_table(TABLE)
