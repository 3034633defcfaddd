"""What messages were made of."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Bytes, Json, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLE = "marketing_render_blocks"


def upgrade() -> None:
    """One table."""
    op.create_table(
        TABLE,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("send_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("chunk_no", BigInt, autoincrement=False, nullable=False),
        sa.Column("fence", BigInt, autoincrement=False, nullable=False),
        sa.Column("seq_lo", BigInt, nullable=False),
        sa.Column("seq_hi", BigInt, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("block", Bytes, nullable=False),
        sa.Column("erased", Json, server_default=sa.text("'[]'"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "send_id", "chunk_no", "fence", name=op.f("pk_marketing_render_blocks")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "send_id"],
            ["marketing_sends.tenant_id", "marketing_sends.id"],
            name=op.f("fk_marketing_render_blocks_tenant_id_send_id_marketing_sends"),
        ),
    )
    op.create_index("ix_marketing_render_blocks_at", TABLE, ["at"])
    if op.get_bind().dialect.name == "postgresql":
        # Packed already: trying again costs time and wins nothing.
        op.execute(f"ALTER TABLE {TABLE} ALTER COLUMN block SET STORAGE EXTERNAL")
    fence(TABLE)


def downgrade() -> None:
    """Messages of before cannot be made again."""
    op.drop_table(TABLE)
