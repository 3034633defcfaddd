"""The first schema: tenants, leads, segments, templates, campaigns, the send ledger, privacy, audit."""

import sqlalchemy as sa
from alembic import op

from nexus_marketing.db.types import BigInt, Bytes, Json, Text, UtcDateTime
from nexus_marketing.migrations.support import fence, function, grant, grant_schema, is_postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = "SELECT, INSERT"
TABLES = {
    "marketing_api_keys": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_audit": APPEND_ONLY,
    "marketing_audit_values": APPEND_ONLY,
    "marketing_campaigns": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_channels": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_consents": APPEND_ONLY,
    "marketing_deliveries": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_delivery_chunks": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_engagements": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_event_seen": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_history": APPEND_ONLY,
    "marketing_hits": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_lead_import_errors": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_lead_imports": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_leads": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_members": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_recipient_engagements": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_segment_members": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_segments": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_sends": "SELECT, INSERT, UPDATE, DELETE",
    "marketing_suppressions": APPEND_ONLY,
    "marketing_template_versions": APPEND_ONLY,
    "marketing_templates": "SELECT, INSERT, UPDATE, DELETE",
}


def upgrade() -> None:
    """Create everything, then the fences."""
    create_tables()
    create_functions()
    grant_schema()
    for table, grants in TABLES.items():
        fence(table, grants=grants)
    fence("marketing_tenants", column="id", grants="SELECT")
    grant("marketing_workers", "nexus_worker", "SELECT, INSERT, UPDATE, DELETE")
    grant("marketing_workers", "nexus_app", "SELECT")
    grant("alembic_version", "nexus_app, nexus_worker", "SELECT")
    if is_postgresql():
        op.execute("SELECT nexus_create_partitions(current_date)")


def downgrade() -> None:
    """Drop everything."""
    if is_postgresql():
        for name in ("nexus_create_partitions", "nexus_find_api_key"):
            op.execute(f"DROP FUNCTION IF EXISTS {name}")
    drop_tables()
    if is_postgresql():
        op.execute("DROP FUNCTION nexus_after")
        op.execute("DROP FUNCTION nexus_now")


def create_functions() -> None:
    """Database time, the one look-up that happens before a tenant is known, and partitions made ahead."""
    if not is_postgresql():
        return
    function("nexus_now()", "timestamptz", "SELECT clock_timestamp()", options="LANGUAGE sql VOLATILE PARALLEL SAFE")
    function(
        "nexus_after(seconds double precision)",
        "timestamptz",
        "SELECT nexus_now() + make_interval(secs => seconds)",
        options="LANGUAGE sql VOLATILE PARALLEL SAFE",
    )
    schema = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar_one()
    function(
        "nexus_find_api_key(wanted text)",
        "TABLE (tenant_id bigint, id bigint, secret_hash bytea, scopes jsonb, member_id bigint,"
        " expires_at timestamptz, revoked_at timestamptz, suspended_at timestamptz)",
        "SELECT k.tenant_id, k.id, k.secret_hash, k.scopes, k.member_id, k.expires_at, k.revoked_at, t.suspended_at"
        " FROM marketing_api_keys k JOIN marketing_tenants t ON t.id = k.tenant_id"
        " WHERE k.key_id = wanted",
        options=f'LANGUAGE sql STABLE SECURITY DEFINER SET search_path = "{schema}", pg_temp',
    )
    function(
        "nexus_create_partitions(today date)",
        "void",
        PARTITIONS,
        options=f'LANGUAGE plpgsql SECURITY DEFINER SET search_path = "{schema}", pg_temp SET timezone = UTC',
        roles=("nexus_worker",),
    )
    # Ledger rows are updated once, in place: room on the page keeps their index entries untouched (HOT).
    op.execute("ALTER TABLE marketing_deliveries SET (fillfactor = 80)")
    op.execute("ALTER TABLE marketing_delivery_chunks SET (fillfactor = 50)")
    op.execute("CREATE TABLE marketing_engagements_default PARTITION OF marketing_engagements DEFAULT")
    op.execute("CREATE TABLE marketing_event_seen_default PARTITION OF marketing_event_seen DEFAULT")


#: Months of engagements around today, days of event ids ahead. Partitions get no grants: they are
#: reached through their parent only, whose policies would not hold on a direct read.
PARTITIONS = """
DECLARE
    first date;
    name text;
BEGIN
    FOR i IN -2 .. 3 LOOP
        first := date_trunc('month', today)::date + make_interval(months => i);
        name := 'marketing_engagements_' || to_char(first, 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF marketing_engagements FOR VALUES FROM (%L) TO (%L)',
                           name, first, (first + interval '1 month')::date);
        END IF;
    END LOOP;
    FOR i IN 0 .. 14 LOOP
        first := today + i;
        name := 'marketing_event_seen_' || to_char(first, 'YYYY_MM_DD');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF marketing_event_seen FOR VALUES FROM (%L) TO (%L)',
                           name, first, first + 1);
        END IF;
    END LOOP;
END
"""


def create_tables() -> None:
    """Tables, keys and indexes."""
    op.create_table(
        "marketing_audit",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("actor", Text, nullable=False),
        sa.Column("action", Text, nullable=False),
        sa.Column("subject_type", Text, nullable=False),
        sa.Column("subject_id", Text, nullable=False),
        sa.Column("request_id", Text, nullable=True),
        sa.Column("body", Json, nullable=False),
        sa.Column("body_hash", Bytes, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "at", "id", name=op.f("pk_marketing_audit")),
    )
    op.create_index(
        "ix_marketing_audit_subject", "marketing_audit", ["tenant_id", "subject_type", "subject_id", "at"], unique=False
    )
    op.create_table(
        "marketing_audit_values",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("audit_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("lead_id", BigInt, nullable=True),
        sa.Column("values", Json, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "at", "audit_id", name=op.f("pk_marketing_audit_values")),
    )
    op.create_table(
        "marketing_channels",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_channels")),
    )
    op.create_index("uq_marketing_channels_name", "marketing_channels", ["tenant_id", "type", "name"], unique=True)
    op.create_table(
        "marketing_engagements",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("tracked_at", UtcDateTime(), nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=True),
        sa.Column("send_id", BigInt, nullable=True),
        sa.Column("seq", BigInt, nullable=True),
        sa.Column("link", BigInt, nullable=True),
        sa.Column("channel", Text, nullable=True),
        sa.Column("verdict", Text, nullable=False),
        sa.Column("notes", Text, nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "tracked_at", "id", name=op.f("pk_marketing_engagements")),
        postgresql_partition_by="RANGE (tracked_at)",
    )
    op.create_index(
        "ix_marketing_engagements_campaign", "marketing_engagements", ["tenant_id", "campaign_id", "type"], unique=False
    )
    op.create_index(
        "ix_marketing_engagements_lead", "marketing_engagements", ["tenant_id", "lead_id", "tracked_at"], unique=False
    )
    op.create_index(
        "ix_marketing_engagements_type",
        "marketing_engagements",
        ["tenant_id", "type", "tracked_at"],
        unique=False,
        postgresql_include=["lead_id"],
    )
    op.create_table(
        "marketing_event_seen",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("event_id", Text, nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", "received_on", name=op.f("pk_marketing_event_seen")),
        postgresql_partition_by="RANGE (received_on)",
    )
    op.create_table(
        "marketing_hits",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("send_id", BigInt, nullable=False),
        sa.Column("seq", BigInt, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("link", BigInt, nullable=True),
        sa.Column("machine_hint", Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_hits")),
    )
    op.create_index("ix_marketing_hits_tenant_id_at", "marketing_hits", ["tenant_id", "at"], unique=False)
    op.create_table(
        "marketing_idempotency_keys",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("fingerprint", Bytes, nullable=False),
        sa.Column("status", BigInt, nullable=False),
        sa.Column("body", Bytes, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_marketing_idempotency_keys")),
    )
    op.create_index(
        "ix_marketing_idempotency_keys_created_at", "marketing_idempotency_keys", ["created_at"], unique=False
    )
    op.create_table(
        "marketing_lead_imports",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("digest", Bytes, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("row_count", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("byte_offset", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("created", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("updated", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("unchanged", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("duplicate", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("rejected", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_lead_imports")),
    )
    op.create_table(
        "marketing_leads",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("score", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("email", Text, nullable=True),
        sa.Column("email_norm", Text, nullable=True),
        sa.Column("external_id", Text, nullable=True),
        sa.Column("phone", Text, nullable=True),
        sa.Column("name", Text, nullable=True),
        sa.Column("first_name", Text, nullable=True),
        sa.Column("last_name", Text, nullable=True),
        sa.Column("country", Text, nullable=True),
        sa.Column("locale", Text, nullable=True),
        sa.Column("time_zone", Text, nullable=True),
        sa.Column("tags", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_leads")),
    )
    op.create_index(
        "ix_marketing_leads_tenant_id_created_at", "marketing_leads", ["tenant_id", "created_at"], unique=False
    )
    op.create_index("ix_marketing_leads_tenant_id_score", "marketing_leads", ["tenant_id", "score"], unique=False)
    op.create_index(
        "uq_marketing_leads_tenant_id_email_norm", "marketing_leads", ["tenant_id", "email_norm"], unique=True
    )
    op.create_index(
        "uq_marketing_leads_tenant_id_external_id", "marketing_leads", ["tenant_id", "external_id"], unique=True
    )
    op.create_table(
        "marketing_members",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("email", Text, nullable=False),
        sa.Column("email_norm", Text, nullable=False),
        sa.Column("role", Text, nullable=False),
        sa.Column("manager_id", BigInt, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "manager_id"],
            ["marketing_members.tenant_id", "marketing_members.id"],
            name=op.f("fk_marketing_members_tenant_id_manager_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_members")),
        sa.UniqueConstraint("tenant_id", "email_norm", name=op.f("uq_marketing_members_tenant_id_email_norm")),
    )
    op.create_table(
        "marketing_recipient_engagements",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("send_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("seq", BigInt, autoincrement=False, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("verdict", Text, nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("hits", BigInt, server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "send_id", "seq", "type", name=op.f("pk_marketing_recipient_engagements")),
    )
    op.create_index(
        "ix_marketing_recipient_engagements_send",
        "marketing_recipient_engagements",
        ["tenant_id", "send_id", "type", "verdict"],
        unique=False,
    )
    op.create_table(
        "marketing_segments",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("conditions", Json, nullable=True),
        sa.Column("lead_count", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("generation", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("cost_class", Text, nullable=True),
        sa.Column("as_of", UtcDateTime(), nullable=True),
        sa.Column("duration_ms", BigInt, nullable=True),
        sa.Column("error", Text, nullable=True),
        sa.Column("requested_at", UtcDateTime(), nullable=True),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_segments")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_marketing_segments_tenant_id_name")),
    )
    op.create_index(
        "ix_marketing_segments_requested",
        "marketing_segments",
        ["requested_at"],
        unique=False,
        postgresql_where=sa.text("requested_at IS NOT NULL"),
        sqlite_where=sa.text("requested_at IS NOT NULL"),
    )
    op.create_table(
        "marketing_suppressions",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("address_hash", Bytes, nullable=False),
        sa.Column("email", Text, nullable=True),
        sa.Column("channel", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("suppressed_at", UtcDateTime(), nullable=True),
        sa.Column("lifted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_suppressions")),
    )
    op.create_index(
        "ix_marketing_suppressions_address",
        "marketing_suppressions",
        ["tenant_id", "address_hash", "channel", "type", "id"],
        unique=False,
    )
    op.create_index("ix_marketing_suppressions_newest", "marketing_suppressions", ["tenant_id", "id"], unique=False)
    op.create_table(
        "marketing_templates",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("content", Json, nullable=False),
        sa.Column("variables", Json, nullable=False),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("archived_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_templates")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_marketing_templates_tenant_id_name")),
    )
    op.create_table(
        "marketing_tenants",
        sa.Column("id", BigInt, sa.Identity(always=False), nullable=False),
        sa.Column("slug", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("settings", Json, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("suspended_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_marketing_tenants")),
        sa.UniqueConstraint("slug", name=op.f("uq_marketing_tenants_slug")),
    )
    op.create_table(
        "marketing_workers",
        sa.Column("id", Text, nullable=False),
        sa.Column("host", Text, nullable=False),
        sa.Column("pid", BigInt, nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_marketing_workers")),
    )
    op.create_table(
        "marketing_api_keys",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key_id", Text, nullable=False),
        sa.Column("secret_hash", Bytes, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("member_id", BigInt, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "member_id"],
            ["marketing_members.tenant_id", "marketing_members.id"],
            name=op.f("fk_marketing_api_keys_tenant_id_member_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_api_keys")),
    )
    op.create_index("uq_marketing_api_keys_key_id", "marketing_api_keys", ["key_id"], unique=True)
    op.create_table(
        "marketing_campaigns",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("status_reason", Text, nullable=True),
        sa.Column("message_class", Text, nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("segment_id", BigInt, nullable=True),
        sa.Column("template_id", BigInt, nullable=True),
        sa.Column("owner_id", BigInt, nullable=True),
        sa.Column("subject_type", Text, nullable=True),
        sa.Column("subject_id", Text, nullable=True),
        sa.Column("definition_id", BigInt, nullable=True),
        sa.Column("data", Json, nullable=False),
        sa.Column("budget_minor", BigInt, nullable=True),
        sa.Column("currency", Text, nullable=True),
        sa.Column("version", BigInt, server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "message_class IN ('marketing', 'transactional')", name=op.f("ck_marketing_campaigns_message_class")
        ),
        sa.CheckConstraint(
            "status IN ('draft', 'queued', 'active', 'paused', 'completed', 'cancelled')",
            name=op.f("ck_marketing_campaigns_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "owner_id"],
            ["marketing_members.tenant_id", "marketing_members.id"],
            name=op.f("fk_marketing_campaigns_tenant_id_owner_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "segment_id"],
            ["marketing_segments.tenant_id", "marketing_segments.id"],
            name=op.f("fk_marketing_campaigns_tenant_id_segment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "template_id"],
            ["marketing_templates.tenant_id", "marketing_templates.id"],
            name=op.f("fk_marketing_campaigns_tenant_id_template_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_campaigns")),
    )
    op.create_index(
        "ix_marketing_campaigns_active",
        "marketing_campaigns",
        ["tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
        sqlite_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "ix_marketing_campaigns_tenant_id_created_at", "marketing_campaigns", ["tenant_id", "created_at"], unique=False
    )
    op.create_index(
        "ix_marketing_campaigns_tenant_id_status_created_at",
        "marketing_campaigns",
        ["tenant_id", "status", "created_at"],
        unique=False,
    )
    op.create_table(
        "marketing_consents",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("granted_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("source", Text, nullable=False),
        sa.Column("text_version", Text, nullable=True),
        sa.Column("ip_address", Text, nullable=True),
        sa.Column("evidence", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lead_id"],
            ["marketing_leads.tenant_id", "marketing_leads.id"],
            name=op.f("fk_marketing_consents_tenant_id_lead_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_consents")),
    )
    op.create_index(
        "ix_marketing_consents_lead",
        "marketing_consents",
        ["tenant_id", "lead_id", "channel", "type", "at", "id"],
        unique=False,
    )
    op.create_table(
        "marketing_lead_import_errors",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("import_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("row_no", BigInt, autoincrement=False, nullable=False),
        sa.Column("column", Text, nullable=False),
        sa.Column("code", Text, nullable=False),
        sa.Column("message", Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "import_id"],
            ["marketing_lead_imports.tenant_id", "marketing_lead_imports.id"],
            name=op.f("fk_marketing_lead_import_errors_tenant_id_import_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "import_id", "row_no", name=op.f("pk_marketing_lead_import_errors")),
    )
    op.create_table(
        "marketing_segment_members",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("segment_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("lead_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("entered_at", UtcDateTime(), nullable=False),
        sa.Column("generation", BigInt, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lead_id"],
            ["marketing_leads.tenant_id", "marketing_leads.id"],
            name=op.f("fk_marketing_segment_members_tenant_id_lead_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "segment_id"],
            ["marketing_segments.tenant_id", "marketing_segments.id"],
            name=op.f("fk_marketing_segment_members_tenant_id_segment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "segment_id", "lead_id", name=op.f("pk_marketing_segment_members")),
    )
    op.create_index(
        "ix_marketing_segment_members_tenant_id_lead_id",
        "marketing_segment_members",
        ["tenant_id", "lead_id"],
        unique=False,
    )
    op.create_table(
        "marketing_template_versions",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("template_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("number", BigInt, autoincrement=False, nullable=False),
        sa.Column("content", Json, nullable=False),
        sa.Column("variables", Json, nullable=False),
        sa.Column("links", Json, nullable=False),
        sa.Column("digest", Text, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "template_id"],
            ["marketing_templates.tenant_id", "marketing_templates.id"],
            name=op.f("fk_marketing_template_versions_tenant_id_template_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "template_id", "number", name=op.f("pk_marketing_template_versions")),
    )
    op.create_table(
        "marketing_history",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("event", Text, nullable=False),
        sa.Column("before", Json, nullable=False),
        sa.Column("after", Json, nullable=False),
        sa.Column("actor", Text, nullable=False),
        sa.Column("actor_id", BigInt, nullable=True),
        sa.Column("payload", Json, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "campaign_id"],
            ["marketing_campaigns.tenant_id", "marketing_campaigns.id"],
            name=op.f("fk_marketing_history_tenant_id_campaign_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_history")),
    )
    op.create_index(
        "ix_marketing_history_tenant_id_campaign_id_id",
        "marketing_history",
        ["tenant_id", "campaign_id", "id"],
        unique=False,
    )
    op.create_table(
        "marketing_sends",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("id", BigInt, sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("campaign_id", BigInt, nullable=False),
        sa.Column("campaign_version", BigInt, nullable=False),
        sa.Column("occurrence_key", Text, nullable=False),
        sa.Column("status", Text, nullable=False),
        sa.Column("status_reason", Text, nullable=True),
        sa.Column("message_class", Text, nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("segment_id", BigInt, nullable=True),
        sa.Column("template_id", BigInt, nullable=False),
        sa.Column("template_version", BigInt, nullable=False),
        sa.Column("sender", Json, nullable=False),
        sa.Column("plan_cursor", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("planned", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("planned_at", UtcDateTime(), nullable=True),
        sa.Column("send_not_after", UtcDateTime(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "status IN ('scheduled', 'planning', 'running', 'paused', 'completed', 'cancelled', 'missed', 'failed')",
            name=op.f("ck_marketing_sends_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "campaign_id"],
            ["marketing_campaigns.tenant_id", "marketing_campaigns.id"],
            name=op.f("fk_marketing_sends_tenant_id_campaign_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "template_id", "template_version"],
            [
                "marketing_template_versions.tenant_id",
                "marketing_template_versions.template_id",
                "marketing_template_versions.number",
            ],
            name=op.f("fk_marketing_sends_tenant_id_template_id_template_version"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_marketing_sends")),
    )
    op.create_index(
        "ix_marketing_sends_working",
        "marketing_sends",
        ["status", "tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('scheduled', 'planning', 'running', 'paused')"),
        sqlite_where=sa.text("status IN ('scheduled', 'planning', 'running', 'paused')"),
    )
    op.create_index(
        "uq_marketing_sends_open",
        "marketing_sends",
        ["tenant_id", "campaign_id", "campaign_version", "occurrence_key"],
        unique=True,
        postgresql_where=sa.text("status IN ('scheduled', 'planning', 'running', 'paused')"),
        sqlite_where=sa.text("status IN ('scheduled', 'planning', 'running', 'paused')"),
    )
    op.create_table(
        "marketing_deliveries",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("send_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("seq", BigInt, autoincrement=False, nullable=False),
        sa.Column("lead_id", BigInt, nullable=False),
        sa.Column("occurrence", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("step", Text, server_default=sa.text("''"), nullable=False),
        sa.Column("channel", Text, nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("reason", Text, nullable=True),
        sa.Column("address_hash", Bytes, nullable=True),
        sa.Column("due_at", UtcDateTime(), nullable=True),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.Column("provider_code", Text, nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "send_id"],
            ["marketing_sends.tenant_id", "marketing_sends.id"],
            name=op.f("fk_marketing_deliveries_tenant_id_send_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "send_id", "seq", name=op.f("pk_marketing_deliveries")),
    )
    op.create_index(
        "ix_marketing_deliveries_due",
        "marketing_deliveries",
        ["tenant_id", "send_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_marketing_deliveries_lead", "marketing_deliveries", ["tenant_id", "lead_id"], unique=False)
    op.create_index(
        "uq_marketing_deliveries_address",
        "marketing_deliveries",
        ["tenant_id", "send_id", "channel", "address_hash"],
        unique=True,
        postgresql_where=sa.text("address_hash IS NOT NULL"),
        sqlite_where=sa.text("address_hash IS NOT NULL"),
    )
    op.create_index(
        "uq_marketing_deliveries_recipient",
        "marketing_deliveries",
        ["tenant_id", "send_id", "step", "occurrence", "lead_id", "channel"],
        unique=True,
    )
    op.create_table(
        "marketing_delivery_chunks",
        sa.Column("tenant_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("send_id", BigInt, autoincrement=False, nullable=False),
        sa.Column("chunk_no", BigInt, autoincrement=False, nullable=False),
        sa.Column("seq_lo", BigInt, nullable=False),
        sa.Column("seq_hi", BigInt, nullable=False),
        sa.Column("seqs", Json, nullable=True),
        sa.Column("worker", Text, nullable=True),
        sa.Column("fence", BigInt, server_default=sa.text("0"), nullable=False),
        sa.Column("claims", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("intent_lo", BigInt, nullable=True),
        sa.Column("intent_hi", BigInt, nullable=True),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "send_id"],
            ["marketing_sends.tenant_id", "marketing_sends.id"],
            name=op.f("fk_marketing_delivery_chunks_tenant_id_send_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "send_id", "chunk_no", name=op.f("pk_marketing_delivery_chunks")),
    )
    op.create_index(
        "ix_marketing_delivery_chunks_leased",
        "marketing_delivery_chunks",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL AND lease_until IS NOT NULL"),
        sqlite_where=sa.text("closed_at IS NULL AND lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_marketing_delivery_chunks_open",
        "marketing_delivery_chunks",
        ["tenant_id", "send_id", "chunk_no"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )


def drop_tables() -> None:
    """In reverse order."""
    op.drop_table("marketing_delivery_chunks")
    op.drop_table("marketing_deliveries")
    op.drop_table("marketing_sends")
    op.drop_table("marketing_history")
    op.drop_table("marketing_template_versions")
    op.drop_table("marketing_segment_members")
    op.drop_table("marketing_lead_import_errors")
    op.drop_table("marketing_consents")
    op.drop_table("marketing_campaigns")
    op.drop_table("marketing_api_keys")
    op.drop_table("marketing_workers")
    op.drop_table("marketing_tenants")
    op.drop_table("marketing_templates")
    op.drop_table("marketing_suppressions")
    op.drop_table("marketing_segments")
    op.drop_table("marketing_recipient_engagements")
    op.drop_table("marketing_members")
    op.drop_table("marketing_leads")
    op.drop_table("marketing_lead_imports")
    op.drop_table("marketing_idempotency_keys")
    op.drop_table("marketing_hits")
    op.drop_table("marketing_event_seen")
    op.drop_table("marketing_engagements")
    op.drop_table("marketing_channels")
    op.drop_table("marketing_audit_values")
    op.drop_table("marketing_audit")
