"""Journeys that run: definitions, versions, runs, their history, and what their messages point back to."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Json, OrderedJson, Text, UtcDateTime
from nexus_marketing.migrations.support import fence

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

STATUSES = "status IN ('draft', 'published', 'draining', 'paused', 'stopped')"
KINDS = "kind IN ('event', 'entered', 'left', 'change')"
STATES = "state IN ('ready', 'waiting', 'sending', 'done', 'exited', 'failed', 'migrating')"
LIVE = "state IN ('migrating', 'ready', 'sending', 'waiting')"
UNTOLD = "step <> '' AND settled_at IS NOT NULL AND told_at IS NULL"
TABLES = (
    "marketing_journeys",
    "marketing_journey_versions",
    "marketing_journey_listeners",
    "marketing_journey_runs",
    "marketing_journey_steps",
    "marketing_journey_arrivals",
)
#: Written once.
KEPT = ("marketing_journey_versions", "marketing_journey_steps")


def upgrade() -> None:
    """All of it."""
    create_definitions()
    create_runs()
    create_history()
    op.add_column("marketing_sends", sa.Column("journey_id", BigInt, nullable=True))
    op.add_column("marketing_deliveries", sa.Column("told_at", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_marketing_deliveries_untold",
        "marketing_deliveries",
        ["tenant_id", "send_id", "seq"],
        postgresql_where=sa.text(UNTOLD),
        sqlite_where=sa.text(UNTOLD),
    )
    for table in TABLES:
        fence(table, grants="SELECT, INSERT" if table in KEPT else "SELECT, INSERT, UPDATE, DELETE")


def downgrade() -> None:
    """Nobody is on a journey any more; what was sent stays in the ledger."""
    op.drop_index("ix_marketing_deliveries_untold", "marketing_deliveries")
    op.drop_column("marketing_deliveries", "told_at")
    op.drop_column("marketing_sends", "journey_id")
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


def refers(table: str, column: str, to: str, **options: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_tenant_id_{column}")
    return sa.ForeignKeyConstraint(["tenant_id", column], [f"{to}.tenant_id", f"{to}.id"], name=name, **options)


def create_definitions() -> None:
    """Journeys, their versions, and what they listen to."""
    name = "marketing_journeys"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("name", Text, nullable=False),
        sa.Column("draft", OrderedJson, nullable=False),
        sa.Column("status", Text, server_default=sa.text("'draft'"), nullable=False),
        sa.Column("resumes_to", Text, nullable=True),
        sa.Column("published", BigInt, nullable=True),
        sa.Column("campaign_id", BigInt, nullable=True),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        primary(name, "id"),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_marketing_journeys_tenant_id_name")),
        sa.CheckConstraint(STATUSES, name=op.f("ck_marketing_journeys_status")),
        refers(name, "campaign_id", "marketing_campaigns"),
    )
    name = "marketing_journey_versions"
    op.create_table(
        name,
        tenant(),
        key("journey_id", BigInt),
        key("number", BigInt),
        sa.Column("document", Text, nullable=False),
        sa.Column("digest", Text, nullable=False),
        sa.Column("pins", Json, nullable=False),
        sa.Column("published_by", Text, nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        primary(name, "journey_id", "number"),
        refers(name, "journey_id", "marketing_journeys"),
    )
    name = "marketing_journey_listeners"
    op.create_table(
        name,
        tenant(),
        key("kind", Text),
        key("name", Text),
        key("journey_id", BigInt),
        primary(name, "kind", "name", "journey_id"),
        sa.CheckConstraint(KINDS, name=op.f("ck_marketing_journey_listeners_kind")),
        refers(name, "journey_id", "marketing_journeys", ondelete="CASCADE"),
    )


def create_runs() -> None:
    """Runs."""
    name = "marketing_journey_runs"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("journey_id", BigInt, nullable=False),
        sa.Column("version_number", BigInt, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("sequence", BigInt, nullable=False),
        sa.Column("is_single", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("node", Text, nullable=False),
        sa.Column("visit", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("wake_at", UtcDateTime(), nullable=True),
        sa.Column("wait_token", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("key", Text, nullable=True),
        sa.Column("snapshot", Json, nullable=False),
        sa.Column("entered_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("reason", Text, nullable=True),
        primary(name, "id"),
        sa.CheckConstraint(STATES, name=op.f("ck_marketing_journey_runs_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "journey_id", "version_number"],
            [f"marketing_journey_versions.{column}" for column in ("tenant_id", "journey_id", "number")],
            name=op.f("fk_marketing_journey_runs_version"),
        ),
        refers(name, "lead_id", "marketing_leads"),
        sa.UniqueConstraint(
            "tenant_id",
            "journey_id",
            "lead_id",
            "sequence",
            name=op.f("uq_marketing_journey_runs_sequence"),
        ),
    )
    alone, alive = sa.text(f"is_single AND {LIVE}"), sa.text(LIVE)
    where = {"postgresql_where": alone, "sqlite_where": alone}
    op.create_index(
        "uq_marketing_journey_runs_single", name, ["tenant_id", "journey_id", "lead_id"], unique=True, **where
    )
    op.create_index("ix_marketing_journey_runs_lead", name, ["tenant_id", "lead_id", "journey_id"])
    where = {"postgresql_where": alive, "sqlite_where": alive}
    op.create_index("ix_marketing_journey_runs_live", name, ["tenant_id", "journey_id", "id"], **where)
    op.create_index("ix_marketing_journey_runs_entered", name, ["tenant_id", "journey_id", "entered_at"])


def create_history() -> None:
    """What runs did, and who came."""
    name = "marketing_journey_steps"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("run_id", BigInt, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("said", Text, nullable=False),
        sa.Column("node", Text, nullable=False),
        sa.Column("detail", Json, nullable=False),
        primary(name, "id"),
        refers(name, "run_id", "marketing_journey_runs"),
    )
    op.create_index("ix_marketing_journey_steps_run", name, ["tenant_id", "run_id", "id"])
    name = "marketing_journey_arrivals"
    op.create_table(
        name,
        tenant(),
        row_id(),
        sa.Column("journey_id", BigInt, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("occurrence", Text, nullable=False),
        sa.Column("outcome", Text, nullable=False),
        sa.Column("run_id", BigInt, nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        primary(name, "id"),
        refers(name, "journey_id", "marketing_journeys"),
        sa.UniqueConstraint(
            "tenant_id",
            "journey_id",
            "lead_id",
            "occurrence",
            name=op.f("uq_marketing_journey_arrivals_occurrence"),
        ),
    )
