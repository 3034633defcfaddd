"""Segments are kept true change by change: what their rules read, who is to be looked at, who came and went."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: What the rules read is found when they are computed next.
COMPUTE_AGAIN = "UPDATE marketing_segments SET requested_at = updated_at WHERE kind = 'dynamic'"
ADDED = ("depends_on", "pending", "building_until")


def upgrade() -> None:
    """Two tables, three columns."""
    for column in (
        sa.Column("depends_on", Json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("pending", Text, nullable=True),
        sa.Column("building_until", UtcDateTime(), nullable=True),
    ):
        op.add_column("marketing_segments", column)
    op.execute(COMPUTE_AGAIN)
    op.create_table(
        "marketing_segment_marks",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("names", Json, nullable=False),
        sa.Column("lead_ids", Json, nullable=False),
        sa.Column("marked_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_segment_marks")),
    )
    fence("marketing_segment_marks")
    op.create_table(
        "marketing_segment_changes",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("segment_id", BigInt, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("change", Text, nullable=False),
        sa.Column("cause", Text, nullable=False),
        sa.Column("generation", BigInt, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("change IN ('entered', 'left')", name=op.f("ck_marketing_segment_changes_change")),
        sa.CheckConstraint(
            "cause IN ('change', 'rule', 'hand', 'refresh')", name=op.f("ck_marketing_segment_changes_cause")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_segment_changes")),
    )
    op.create_index(
        "ix_marketing_segment_changes_segment", "marketing_segment_changes", ["tenant_id", "segment_id", "id"]
    )
    op.create_index("ix_marketing_segment_changes_lead", "marketing_segment_changes", ["tenant_id", "lead_id", "id"])
    fence("marketing_segment_changes")
    op.create_index(
        "ix_marketing_consents_expiry",
        "marketing_consents",
        ["tenant_id", "channel", "type", "expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Back to computing whole segments on request; who came and went is forgotten."""
    op.drop_index("ix_marketing_consents_expiry", "marketing_consents")
    op.drop_table("marketing_segment_changes")
    op.drop_table("marketing_segment_marks")
    for name in reversed(ADDED):
        op.drop_column("marketing_segments", name)
