"""Journeys that ask people, are called by programs, keep quiet hours of their own, and know how long they were held."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

APPROVALS = "marketing_journey_approvals"
OPEN = "closed_at IS NULL"
ADDED = {
    "marketing_journeys": (("hook_secret", Text), ("paused_at", UtcDateTime())),
    "marketing_sends": (("quiet_hours", Json), ("obeys_quiet_hours", sa.Boolean())),
}


def upgrade() -> None:
    """Columns that are empty where nothing is said, and the questions that runs ask."""
    for table, columns in ADDED.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True))
    op.create_table(
        APPROVALS,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("journey_id", BigInt, nullable=False),
        sa.Column("run_id", BigInt, nullable=False),
        sa.Column("node", Text, nullable=False),
        sa.Column("asked", Text, nullable=False),
        sa.Column("token", BigInt, nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.Column("answer", Text, nullable=True),
        sa.Column("answered_by", Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{APPROVALS}")),
        refers("journey_id", "marketing_journeys"),
        refers("run_id", "marketing_journey_runs"),
        sa.UniqueConstraint("tenant_id", "run_id", "token", name=op.f(f"uq_{APPROVALS}_token")),
    )
    where = {"postgresql_where": sa.text(OPEN), "sqlite_where": sa.text(OPEN)}
    op.create_index(f"ix_{APPROVALS}_open", APPROVALS, ["tenant_id", "journey_id", "id"], **where)
    fence(APPROVALS)


def downgrade() -> None:
    """Nobody is asked any more."""
    op.drop_table(APPROVALS)
    for table, columns in ADDED.items():
        for name, _ in columns:
            op.drop_column(table, name)


def refers(column: str, to: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{APPROVALS}_tenant_id_{column}")
    return sa.ForeignKeyConstraint(["tenant_id", column], [f"{to}.tenant_id", f"{to}.id"], name=name)
