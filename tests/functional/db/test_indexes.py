"""Row-level security costs no index: what searches of the API need is planned alike under every role."""

import json
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, text

from tests.common import databases
from tests.common.plans import indexes_of, nodes

pytestmark = pytest.mark.req("SR-003", "S02")

TENANT, OTHERS, LEADS = 1, 20, 60_000

FILL = [
    (
        "INSERT INTO marketing_tenants (slug, name, settings, created_at)"
        f" SELECT 't' || n, 't', '{{}}', now() FROM generate_series(1, {OTHERS + 1}) n"
    ),
    # One large tenant among small ones; addresses and scores spread evenly.
    f"""INSERT INTO marketing_leads
        (tenant_id, email, email_norm, external_id, score, country, tags, metadata, created_at, updated_at)
        SELECT CASE WHEN n <= {LEADS - 10_000} THEN {TENANT} ELSE 2 + n % {OTHERS} END,
               'p' || n || '@example.org', 'p' || n || '@example.org', 'x' || n, n % 10007, 'US',
               CAST(CASE WHEN n % 1000 = 0 THEN '["vip"]' ELSE '[]' END AS jsonb), '{{}}',
               timestamptz '2026-01-01' + n * interval '1 minute', now()
        FROM generate_series(1, {LEADS}) n""",
    (
        "INSERT INTO marketing_segments (tenant_id, name, kind, created_at, updated_at)"
        f" SELECT {TENANT}, 's' || n, 'static', now(), now() FROM generate_series(1, 50) n"
    ),
    f"""INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
        SELECT tenant_id, 1 + id % 50, id, now(), 1 FROM marketing_leads WHERE tenant_id = {TENANT}""",
    """INSERT INTO marketing_engagements (tenant_id, tracked_at, type, lead_id, campaign_id, verdict, metadata)
        SELECT tenant_id, timestamptz '2026-03-01' + id * interval '30 seconds', 'opened', id, id % 500, 'human', '{}'
        FROM marketing_leads""",
    """INSERT INTO marketing_suppressions (tenant_id, address_hash, channel, type, reason, source, suppressed_at)
        SELECT tenant_id, decode(md5(email), 'hex'), 'email', 'marketing', 'unsubscribed', 'link', now()
        FROM marketing_leads""",
    """INSERT INTO marketing_consents (tenant_id, lead_id, channel, type, at, granted_at, source, evidence)
        SELECT tenant_id, id, 'email', 'marketing', now(), now(), 'import', '{}' FROM marketing_leads""",
    f"""INSERT INTO marketing_campaigns (tenant_id, name, status, message_class, channel, data, created_at, updated_at)
        SELECT {TENANT}, 'c' || n, CASE WHEN n % 100 = 0 THEN 'active' ELSE 'completed' END, 'marketing', 'email', '{{}}',
               timestamptz '2026-01-01' + n * interval '1 hour', now() FROM generate_series(1, 5000) n""",
]


@pytest.fixture(scope="module")
def filled(cluster):
    """Engines on a database with one large and twenty small tenants."""
    name = databases.postgres_copy(cluster)
    with databases.opened(databases.postgres_settings(cluster, name)) as engines:
        with engines.owner.begin() as connection:
            for statement in FILL:
                connection.exec_driver_sql(statement.replace("%", "%%"))
            connection.exec_driver_sql("ANALYZE")
        yield engines
    cluster.drop_database(name)


LEAD = "SELECT * FROM marketing_leads WHERE tenant_id = 1 AND "
SEARCHES = {
    "address": (LEAD + "email_norm = 'p77@example.org'", "uq_marketing_leads_tenant_id_email_norm"),
    "addresses": (
        LEAD + "email_norm IN ('p1@example.org', 'p2@example.org', 'p3@example.org')",
        "uq_marketing_leads_tenant_id_email_norm",
    ),
    "beginning of an address": (
        LEAD + "email_norm >= 'p777' AND email_norm < 'p778'",
        "uq_marketing_leads_tenant_id_email_norm",
    ),
    "external id": (LEAD + "external_id = 'x77'", "uq_marketing_leads_tenant_id_external_id"),
    "score above": (LEAD + "score > 10000", "ix_marketing_leads_tenant_id_score"),
    "score equal": (LEAD + "score = 50", "ix_marketing_leads_tenant_id_score"),
    "created in a range": (
        LEAD + "created_at >= '2026-01-05' AND created_at < '2026-01-05 02:00Z'",
        "ix_marketing_leads_tenant_id_created_at",
    ),
    "newest page": (LEAD + "true ORDER BY created_at DESC LIMIT 50", "ix_marketing_leads_tenant_id_created_at"),
    "id": (LEAD + "id = 77", "pk_marketing_leads"),
    "ids": (LEAD + "id IN (1, 2, 3)", "pk_marketing_leads"),
    "page after a key": (LEAD + "id > 40000 ORDER BY id LIMIT 51", "pk_marketing_leads"),
    "members": (
        (
            "SELECT lead_id FROM marketing_segment_members WHERE tenant_id = 1 AND segment_id = 7"
            " AND lead_id > 100 ORDER BY lead_id LIMIT 51"
        ),
        "pk_marketing_segment_members",
    ),
    "segments of a lead": (
        "SELECT segment_id FROM marketing_segment_members WHERE tenant_id = 1 AND lead_id = 7",
        "ix_marketing_segment_members_tenant_id_lead_id",
    ),
    "suppressed addresses": (
        (
            "SELECT * FROM marketing_suppressions WHERE tenant_id = 1 AND address_hash IN (decode(md5('a'), 'hex'),"
            " decode(md5('b'), 'hex')) AND channel = 'email'"
        ),
        "ix_marketing_suppressions_address",
    ),
    "consents of leads": (
        "SELECT * FROM marketing_consents WHERE tenant_id = 1 AND lead_id IN (1, 2, 3) AND channel = 'email'",
        "ix_marketing_consents_lead",
    ),
    "campaigns by status": (
        "SELECT * FROM marketing_campaigns WHERE tenant_id = 1 AND status = 'active' ORDER BY created_at DESC LIMIT 20",
        "ix_marketing_campaigns_tenant_id_status_created_at",
    ),
    "engagements of a lead": (
        (
            "SELECT * FROM marketing_engagements WHERE tenant_id = 1 AND lead_id = 7 AND tracked_at >= '2026-03-01'"
            " AND tracked_at < '2026-04-01'"
        ),
        "marketing_engagements_2026_03_tenant_id_lead_id_tracked_at_idx",
    ),
    "engagements of a campaign": (
        (
            "SELECT * FROM marketing_engagements WHERE tenant_id = 1 AND campaign_id = 7"
            " AND tracked_at < '2026-04-01' AND tracked_at >= '2026-03-01'"
        ),
        "marketing_engagements_2026_03_tenant_id_campaign_id_tracked_idx",
    ),
    "change by key": ("UPDATE marketing_leads SET score = 1 WHERE tenant_id = 1 AND id = 77", "pk_marketing_leads"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How PostgreSQL ran a statement."""

    tables_read_whole: frozenset[str]
    indexes: frozenset[str]
    removed: int


def plan_of(engine: Engine, statement: str) -> Plan:
    """Run it and look: nothing is switched off, these are the planner's own choices."""
    with engine.execution_options(nexus_tenant=TENANT).connect() as connection, connection.begin() as transaction:
        found = connection.execute(text("EXPLAIN (ANALYZE, FORMAT JSON) " + statement.replace(":", r"\:"))).scalar_one()
        transaction.rollback()
    root = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    every = list(nodes(root))
    return Plan(
        frozenset(each["Relation Name"] for each in every if each["Node Type"] == "Seq Scan"),
        frozenset(index for each in every for index in indexes_of(each)),
        sum(int(each.get("Rows Removed by Filter", 0) * each["Actual Loops"]) for each in every),
    )


@pytest.mark.parametrize("role", ["app", "worker"])
@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_uses_its_index(filled, search, role):
    statement, index = SEARCHES[search]
    plan = plan_of(getattr(filled, role), statement)
    assert plan.indexes == {index}
    assert plan.tables_read_whole == frozenset()
    assert plan.removed <= 100


def test_what_cannot_be_pushed_below_the_policy_would_lose_its_index(filled):
    # The reason why the list above may hold leakproof operators only: lower() is none.
    with filled.owner.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX trial ON marketing_leads (lower(email))")
        connection.exec_driver_sql("ANALYZE marketing_leads")
    statement = LEAD + "lower(email) = 'p77@example.org'"
    assert plan_of(filled.worker, statement).indexes == {"trial"}
    assert "trial" not in plan_of(filled.app, statement).indexes
    with filled.owner.begin() as connection:
        connection.exec_driver_sql("DROP INDEX trial")


def test_the_audited_search_for_words_uses_its_index(filled):
    statement = (
        "SELECT id FROM marketing_engagements WHERE tenant_id = 1 AND tracked_at >= '2026-03-01' AND tracked_at <"
        " '2026-04-01' AND array_to_tsvector(string_to_array(words, ' ')) @@ CAST('demo' AS tsquery)"
    )
    assert plan_of(filled.worker, statement).indexes == {"marketing_engagements_2026_03_array_to_tsvector_idx"}


@pytest.mark.parametrize("role", ["app", "worker"])
def test_an_engagement_is_found_by_its_id_alone(filled, role):
    plan = plan_of(getattr(filled, role), "SELECT * FROM marketing_engagements WHERE tenant_id = 1 AND id = 77")
    assert "marketing_engagements_2026_03_id_idx" in plan.indexes
