"""Engagements at volume: custom events, roll-ups, public events, comments, attachments, full-text search."""
# ruff: noqa: S608 - the pieces put together here are our own

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Bytes, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence, function, is_postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = (
    "marketing_engagement_deltas",
    "marketing_engagement_rollups",
    "marketing_public_events",
    "marketing_engagement_comments",
    "marketing_engagement_attachments",
)
NEW_COLUMNS = ("name", "machine_hint", "words")

#: SQLite's search index is a table of its own that follows the rows, whoever writes them. FTS5 is no choice: a
#: virtual table in a trigger is refused under ``trusted_schema=OFF`` before SQLite 3.41. Words hold only letters
#: and digits, so that quotes and commas make a list of them.
WORDS = "SELECT value FROM json_each('[\"' || replace({}.words, ' ', '\",\"') || '\"]')"
ADD = (
    "INSERT OR IGNORE INTO marketing_engagements_words (tenant_id, word, engagement_id)"
    f" SELECT new.tenant_id, value, new.id FROM ({WORDS.format('new')});"
)
FORGET = (
    "DELETE FROM marketing_engagements_words WHERE tenant_id = old.tenant_id AND engagement_id = old.id"
    f" AND word IN ({WORDS.format('old')});"
)
TRIGGERS = {
    "insert": f"AFTER INSERT ON marketing_engagements WHEN new.words IS NOT NULL BEGIN {ADD} END",
    "delete": f"AFTER DELETE ON marketing_engagements WHEN old.words IS NOT NULL BEGIN {FORGET} END",
    "update": (
        f"AFTER UPDATE OF words ON marketing_engagements WHEN new.words IS NOT old.words BEGIN {FORGET} {ADD} END"
    ),
}
BACKFILL = """
INSERT INTO marketing_engagement_rollups (tenant_id, campaign_id, day, type, verdict, hits, recipients)
SELECT tenant_id, campaign_id, day, type, verdict, sum(hits), sum(recipients) FROM (
    SELECT e.tenant_id, coalesce(e.campaign_id, 0) AS campaign_id, {tracked} AS day, e.type, e.verdict,
           1 AS hits, 0 AS recipients
    FROM marketing_engagements e
    UNION ALL
    SELECT r.tenant_id, coalesce(s.campaign_id, 0), {first}, r.type, r.verdict, 0, 1
    FROM marketing_recipient_engagements r
    LEFT JOIN marketing_sends s ON s.tenant_id = r.tenant_id AND s.id = r.send_id) counted
GROUP BY tenant_id, campaign_id, day, type, verdict
"""
DROP_DAYS = """
DECLARE
    name text;
    last text := 'marketing_event_seen_' || to_char(before, 'YYYY_MM_DD');
BEGIN
    FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'marketing_event_seen'::regclass
                  AND c.relname ~ '^marketing_event_seen_\\d{4}_\\d\\d_\\d\\d$' AND c.relname < last
                ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %I', name);
    END LOOP;
END
"""


def upgrade() -> None:
    """Columns, tables, what is counted so far, and the search indexes."""
    for name in NEW_COLUMNS:
        op.add_column("marketing_engagements", sa.Column(name, Text, nullable=True))
    create_indexes()
    create_counters()
    create_conversations()
    for table in TABLES:
        fence(table)
    of = "CAST({} AT TIME ZONE 'UTC' AS date)" if is_postgresql() else "substr({}, 1, 10)"
    op.execute(BACKFILL.format(tracked=of.format("e.tracked_at"), first=of.format("r.first_at")))
    create_forgetting()


def downgrade() -> None:
    """Drop it all; roll-ups can be counted again."""
    if is_postgresql():
        op.execute("DROP FUNCTION nexus_drop_event_days")
        op.drop_index("ix_marketing_engagements_words", table_name="marketing_engagements")
        op.drop_index("ix_marketing_engagements_id", table_name="marketing_engagements")
    else:
        for name in TRIGGERS:
            op.execute(f"DROP TRIGGER marketing_engagements_words_{name}")
        op.execute("DROP TABLE marketing_engagements_words")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_index("ix_marketing_engagements_name", table_name="marketing_engagements")
    op.drop_index("ix_marketing_engagements_campaign", table_name="marketing_engagements")
    op.create_index("ix_marketing_engagements_campaign", "marketing_engagements", ["tenant_id", "campaign_id", "type"])
    for name in NEW_COLUMNS:
        op.drop_column("marketing_engagements", name)


def create_indexes() -> None:
    """Custom events by name, engagements by id, and words."""
    # Numbers of a campaign come from roll-ups now; what is read of it is its newest engagements.
    op.drop_index("ix_marketing_engagements_campaign", table_name="marketing_engagements")
    op.create_index(
        "ix_marketing_engagements_campaign", "marketing_engagements", ["tenant_id", "campaign_id", "tracked_at"]
    )
    custom = sa.text("name IS NOT NULL")
    op.create_index(
        "ix_marketing_engagements_name",
        "marketing_engagements",
        ["tenant_id", "name", "tracked_at"],
        postgresql_include=["lead_id"],
        postgresql_where=custom,
        sqlite_where=custom,
    )
    if is_postgresql():
        # Ids follow the order of insertion: a summary per 32 pages finds one for next to nothing.
        op.execute(
            "CREATE INDEX ix_marketing_engagements_id ON marketing_engagements"
            " USING brin (id) WITH (pages_per_range = 32, autosummarize = on)"
        )
        op.execute(
            "CREATE INDEX ix_marketing_engagements_words ON marketing_engagements"
            " USING gin (array_to_tsvector(string_to_array(words, ' ')))"
        )
        return
    op.execute(
        "CREATE TABLE marketing_engagements_words (tenant_id INTEGER NOT NULL, word TEXT NOT NULL,"
        " engagement_id INTEGER NOT NULL, PRIMARY KEY (tenant_id, word, engagement_id)) WITHOUT ROWID"
    )
    for name, body in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER marketing_engagements_words_{name} {body}")


def create_counters() -> None:
    """Deltas, roll-ups, and the queue of public events."""
    measures = [
        ("day", sa.Date()),
        ("type", Text),
        ("verdict", Text),
        ("hits", BigInt),
        ("recipients", BigInt),
    ]
    op.create_table(
        "marketing_engagement_deltas",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in measures),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_engagement_deltas")),
    )
    op.create_index(
        "ix_marketing_engagement_deltas_campaign", "marketing_engagement_deltas", ["tenant_id", "campaign_id"]
    )
    op.create_table(
        "marketing_engagement_rollups",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("campaign_id", BigInt, autoincrement=False, nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in measures),
        sa.PrimaryKeyConstraint(
            "tenant_id", "campaign_id", "day", "type", "verdict", name=op.f("pk_marketing_engagement_rollups")
        ),
    )
    op.create_table(
        "marketing_public_events",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("machine_hint", Text, nullable=True),
        sa.Column("body", Json, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_public_events")),
    )


def create_conversations() -> None:
    """Comments and attachments of engagements."""
    create_for_engagements("comments", sa.Column("text", Text, nullable=False))
    create_for_engagements(
        "attachments",
        sa.Column("name", Text, nullable=False),
        sa.Column("content_type", Text, nullable=False),
        sa.Column("size_bytes", BigInt, nullable=False),
        sa.Column("sha256", Bytes, nullable=False),
        sa.Column("blob_key", Text, nullable=False),
    )


def create_for_engagements(what: str, *columns: sa.Column[object]) -> None:
    """A table of what belongs to engagements."""
    table = f"marketing_engagement_{what}"
    op.create_table(
        table,
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("engagement_id", BigInt, nullable=False),
        sa.Column("tracked_at", UtcDateTime(), nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        *columns,
        sa.Column("author", Text, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{table}")),
    )
    op.create_index(f"ix_{table}_engagement", table, ["tenant_id", "engagement_id", "id"])
    op.create_index(f"ix_{table}_lead", table, ["tenant_id", "lead_id"])


def create_forgetting() -> None:
    """Days of event ids are dropped whole, by the worker, which owns no table."""
    if not is_postgresql():
        return
    schema = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar_one()
    function(
        "nexus_drop_event_days(before date)",
        "void",
        DROP_DAYS,
        # Whoever cannot have the lock soon must not make all others wait behind it: the next time will do.
        options=f"LANGUAGE plpgsql SECURITY DEFINER SET search_path = \"{schema}\", pg_temp SET lock_timeout = '2s'",
        roles=("nexus_worker",),
    )
