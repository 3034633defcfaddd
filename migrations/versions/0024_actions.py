"""Actions that are asked for by name, escalations, and what campaigns listen to."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

ACTIONS = "marketing_actions"
ESCALATIONS = "marketing_escalations"
LISTENERS = "marketing_campaign_listeners"
STATES = "state IN ('waiting', 'paused', 'done', 'failed', 'cancelled')"
SOURCES = "source IN ('journey', 'step', 'trigger', 'escalation', 'breach', 'compensation')"
OF_CAMPAIGNS = sa.text("campaign_id IS NOT NULL")


def upgrade() -> None:
    """Three tables, and when a campaign failed."""
    create_actions()
    create_escalations()
    create_listeners()
    op.add_column("marketing_campaigns", sa.Column("failed_at", UtcDateTime(), nullable=True))
    for table in (ACTIONS, ESCALATIONS, LISTENERS):
        fence(table)


def downgrade() -> None:
    """Nobody knows any more what was asked for, nor who was turned to."""
    op.execute("DELETE FROM marketing_timers WHERE type = 'action.run'")
    op.execute(
        "DELETE FROM marketing_timers WHERE type IN ('campaign.escalation', 'campaign.compensation', 'campaign.scored')"
    )
    op.drop_column("marketing_campaigns", "failed_at")
    op.drop_table(LISTENERS)
    op.drop_table(ESCALATIONS)
    op.drop_table(ACTIONS)


def refers(table: str, column: str, to: str, **options: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_tenant_id_{column}")
    return sa.ForeignKeyConstraint(["tenant_id", column], [f"{to}.tenant_id", f"{to}.id"], name=name, **options)


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


def create_escalations() -> None:
    """Which level acted, whom it turned to, and who has seen it."""
    op.create_table(
        ESCALATIONS,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("entity_type", Text, nullable=False),
        sa.Column("entity_id", BigInt, nullable=False),
        sa.Column("level", BigInt, nullable=False),
        sa.Column("rule", BigInt, nullable=False),
        sa.Column("action", Text, nullable=False),
        sa.Column("action_id", BigInt, nullable=False),
        sa.Column("from_user_id", BigInt, nullable=True),
        sa.Column("to_user_id", BigInt, nullable=True),
        sa.Column("reason", Text, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("acknowledged_at", UtcDateTime(), nullable=True),
        sa.Column("acknowledged_by", Text, nullable=True),
        refers(ESCALATIONS, "action_id", ACTIONS),
        refers(ESCALATIONS, "from_user_id", "marketing_members"),
        refers(ESCALATIONS, "to_user_id", "marketing_members"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{ESCALATIONS}")),
    )
    op.create_index("ix_marketing_escalations_entity", ESCALATIONS, ["tenant_id", "entity_type", "entity_id", "id"])


def create_listeners() -> None:
    """What active campaigns want to hear of."""
    op.create_table(
        LISTENERS,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("campaign_id", BigInt, autoincrement=False, nullable=False),
        refers(LISTENERS, "campaign_id", "marketing_campaigns", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "name", "campaign_id", name=op.f(f"pk_{LISTENERS}")),
    )
