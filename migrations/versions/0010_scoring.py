"""Scores of leads: rule sets, contributions, values, crossings, and what waits to be looked at."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KINDS = "kind IN ('event', 'attribute', 'manual', 'carried')"
DUE = "next_change_at IS NOT NULL"
REMOVED = "removed_at IS NOT NULL"
UNFINISHED = "finished_at IS NULL"
TABLES = (
    "marketing_scores",
    "marketing_score_versions",
    "marketing_score_contributions",
    "marketing_score_values",
    "marketing_score_crossings",
    "marketing_score_marks",
    "marketing_score_recomputes",
)


def upgrade() -> None:
    """All of it; scores that leads have stay as they are."""
    create_rule_sets()
    create_points()
    create_queues()
    for table in TABLES:
        fence(table)


def downgrade() -> None:
    """Leads keep the scores they have, without their reasons."""
    for table in reversed(TABLES):
        op.drop_table(table)


def tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False)


def row_id() -> sa.Column[int]:
    return sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False)


def key(name: str, kind: sa.types.TypeEngine[object]) -> sa.Column[object]:
    return sa.Column(name, kind, autoincrement=False, nullable=False)


def primary(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("tenant_id", *columns, name=op.f(f"pk_{table}"))


def refers(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", column], [f"{to}.tenant_id", f"{to}.id"], name=op.f(f"fk_{table}_tenant_id_{column}")
    )


def create_rule_sets() -> None:
    """Scores and their published versions."""
    name = "marketing_scores"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("name", Text, nullable=False),
        sa.Column("description", Text, server_default=sa.text("''"), nullable=False),
        sa.Column("draft", Json, nullable=True),
        sa.Column("published", BigInt, nullable=True),
        sa.Column("events", Json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("reads", Json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("removed_at", UtcDateTime(), nullable=True),
        primary(name, "id"),
        sa.UniqueConstraint("tenant_id", "name", name=op.f(f"uq_{name}_tenant_id_name")),
    )
    removed = {"postgresql_where": sa.text(REMOVED), "sqlite_where": sa.text(REMOVED)}
    op.create_index("ix_marketing_scores_removed", name, ["tenant_id", "id"], **removed)
    name = "marketing_score_versions"
    op.create_table(
        name,
        tenant(),
        key("score_id", BigInt),
        key("number", BigInt),
        sa.Column("rules", Json, nullable=False),
        sa.Column("fire_on_recompute", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("published_by", Text, nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        refers(name, "score_id", "marketing_scores"),
        primary(name, "score_id", "number"),
    )


def create_points() -> None:
    """Contributions, values and crossings."""
    name = "marketing_score_contributions"
    op.create_table(
        name,
        tenant(),
        key("score_id", BigInt),
        key("rule", Text),
        key("version", BigInt),
        key("cause", BigInt),
        key("turn", BigInt),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("points", sa.Double(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("actor", Text, nullable=True),
        sa.Column("reason", Text, nullable=True),
        sa.CheckConstraint(KINDS, name=op.f(f"ck_{name}_kind")),
        refers(name, "score_id", "marketing_scores"),
        refers(name, "lead_id", "marketing_leads"),
        primary(name, "score_id", "rule", "version", "cause", "turn"),
    )
    op.create_index(f"ix_{name}_lead", name, ["tenant_id", "lead_id", "score_id", "at"])
    name = "marketing_score_values"
    op.create_table(
        name,
        tenant(),
        key("score_id", BigInt),
        key("lead_id", BigInt),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("version", BigInt, nullable=False),
        sa.Column("marks", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("next_change_at", UtcDateTime(), nullable=True),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        refers(name, "score_id", "marketing_scores"),
        refers(name, "lead_id", "marketing_leads"),
        primary(name, "score_id", "lead_id"),
    )
    op.create_index(f"ix_{name}_lead", name, ["tenant_id", "lead_id"])
    due = {"postgresql_where": sa.text(DUE), "sqlite_where": sa.text(DUE)}
    op.create_index(f"ix_{name}_due", name, ["tenant_id", "next_change_at"], **due)
    name = "marketing_score_crossings"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("score_id", BigInt, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("threshold", Text, nullable=False),
        sa.Column("direction", Text, nullable=False),
        sa.Column("before", sa.Double(), nullable=False),
        sa.Column("after", sa.Double(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        refers(name, "score_id", "marketing_scores"),
        refers(name, "lead_id", "marketing_leads"),
        primary(name, "id"),
    )
    op.create_index(f"ix_{name}_lead", name, ["tenant_id", "lead_id", "id"])


def create_queues() -> None:
    """Leads to look at, and new versions on their way through all leads."""
    op.create_table(
        "marketing_score_marks",
        tenant(),
        row_id(),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("since", UtcDateTime(), nullable=True),
        sa.Column("until", UtcDateTime(), nullable=True),
        primary("marketing_score_marks", "id"),
    )
    op.create_index("ix_marketing_score_marks_tenant_id_lead_id", "marketing_score_marks", ["tenant_id", "lead_id"])
    name = "marketing_score_recomputes"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("score_id", BigInt, nullable=False),
        sa.Column("version", BigInt, nullable=False),
        sa.Column("fence", BigInt, nullable=True),
        sa.Column("reached", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("leads", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("changed", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("requested_by", Text, nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        refers(name, "score_id", "marketing_scores"),
        primary(name, "id"),
    )
    op.create_index(f"ix_{name}_score", name, ["tenant_id", "score_id", "id"])
    unfinished = {"postgresql_where": sa.text(UNFINISHED), "sqlite_where": sa.text(UNFINISHED)}
    op.create_index(f"ix_{name}_unfinished", name, ["tenant_id", "id"], **unfinished)
