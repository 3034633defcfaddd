"""Actions that are asked for by name."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0025"
down_revision = "0023"
branch_labels = None
depends_on = None

ACTIONS = "marketing_actions"
STATES = "state IN ('waiting', 'paused', 'done', 'failed', 'cancelled')"
SOURCES = "source IN ('journey', 'step', 'trigger', 'escalation', 'breach', 'compensation')"
OF_CAMPAIGNS = sa.text("campaign_id IS NOT NULL")


def upgrade() -> None:
    """One table."""
    create_actions()
    fence(ACTIONS)


def downgrade() -> None:
    """Nobody knows any more what was asked for."""
    op.execute("DELETE FROM marketing_timers WHERE type = 'action.run'")
    op.drop_table(ACTIONS)


def refers(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_tenant_id_{column}")
    return sa.ForeignKeyConstraint(["tenant_id", column], [f"{to}.tenant_id", f"{to}.id"], name=name)


def create_actions() -> None:
    """What was asked for, under the key of its occurrence."""
    op.create_table(
        ACTIONS,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=True),
        sa.Column("lead_id", BigInt, nullable=True),
        sa.Column("data", Json, nullable=False),
        sa.Column("compensation", Text, nullable=True),
        sa.Column("undoes", BigInt, nullable=True),
        sa.Column("state", Text, server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("reason", Text, nullable=True),
        sa.Column("detail", Text, server_default=sa.text("''"), nullable=False),
        sa.Column("attempts", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(STATES, name=op.f(f"ck_{ACTIONS}_state")),
        sa.CheckConstraint(SOURCES, name=op.f(f"ck_{ACTIONS}_source")),
        refers(ACTIONS, "campaign_id", "marketing_campaigns"),
        refers(ACTIONS, "lead_id", "marketing_leads"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{ACTIONS}")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f(f"uq_{ACTIONS}_tenant_id_key")),
    )
    op.create_index("ix_marketing_actions_lead", ACTIONS, ["tenant_id", "lead_id"])
    op.create_index(
        "ix_marketing_actions_campaign",
        ACTIONS,
        ["tenant_id", "campaign_id", "id"],
        postgresql_where=OF_CAMPAIGNS,
        sqlite_where=OF_CAMPAIGNS,
    )
