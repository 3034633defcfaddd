"""What providers tell of messages after they took them."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence, function, is_postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

REPORTS = "marketing_provider_reports"
FEEDBACK = "marketing_send_feedback"
COUNTED = ("moves", "bounced", "complained", "forgiven_taken", "forgiven_bounced", "forgiven_complained")


def upgrade() -> None:
    """A queue, counters per send, and how the web role finds the tenant that an address names."""
    op.create_table(
        REPORTS,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("provider", Text, nullable=False),
        sa.Column("body", Json, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_provider_reports")),
    )
    op.create_index("ix_marketing_provider_reports_due", REPORTS, ["tenant_id", "due_at"])
    op.create_table(
        FEEDBACK,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("send_id", BigInt, autoincrement=False, nullable=False),
        *(sa.Column(name, BigInt, server_default=sa.text("0"), nullable=False) for name in COUNTED),
        sa.PrimaryKeyConstraint("tenant_id", "send_id", name=op.f("pk_marketing_send_feedback")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "send_id"],
            ["marketing_sends.tenant_id", "marketing_sends.id"],
            name=op.f("fk_marketing_send_feedback_tenant_id_send_id_marketing_sends"),
        ),
    )
    fence(REPORTS)
    fence(FEEDBACK)
    if is_postgresql():
        schema = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar_one()
        function(
            "nexus_find_tenant(wanted text)",
            "bigint",
            "SELECT id FROM marketing_tenants WHERE slug = wanted",
            options=f'LANGUAGE sql STABLE SECURITY DEFINER SET search_path = "{schema}", pg_temp',
        )


def downgrade() -> None:
    """What was told and not acted on is lost; providers tell it once."""
    if is_postgresql():
        op.execute("DROP FUNCTION nexus_find_tenant")
    op.drop_table(FEEDBACK)
    op.drop_table(REPORTS)
