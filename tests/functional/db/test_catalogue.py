"""The catalogue of PostgreSQL after all migrations: who may do what is read there and not in our intentions."""

import os

import pytest
from sqlalchemy import text

from nexus_marketing.db.base import Base
from nexus_marketing.db.roles import APP, OWNER, ROLES, WORKER, create_database, create_roles
from tests.common.servers import libpq_url

pytestmark = pytest.mark.req("SR-003", "S02", "S20")

#: Functions that run with their owner's rights, and who may call them.
DEFINERS = {
    "nexus_find_api_key": {APP, WORKER},
    "nexus_find_tenant": {APP, WORKER},
    "nexus_create_partitions": {WORKER},
    "nexus_drop_event_days": {WORKER},
}
#: Rows that are written once: no role but the owner may change or remove them.
APPEND_ONLY = {
    "marketing_audit",
    "marketing_audit_values",
    "marketing_consents",
    "marketing_history",
    "marketing_journey_steps",
    "marketing_journey_versions",
    "marketing_suppressions",
    "marketing_template_versions",
}
#: Unique keys that do not begin with the tenant: found before the tenant is known, or not a tenant's.
GLOBAL_KEYS = {"uq_marketing_api_keys_key_id"}
TENANT = "(NULLIF(current_setting('app.tenant'::text, true), ''::text))::bigint"

TABLES = "c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
TENANT_TABLES = f"""
    SELECT c.oid, c.relname, c.relispartition, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE {TABLES}
"""


@pytest.fixture
def ask(process_database):
    """Ask the catalogue as the owner."""
    with process_database.engines.owner.connect() as connection:
        yield lambda statement, **values: connection.execute(text(statement), values).all()


def grants(ask, role: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, privilege in ask(
        f"""SELECT c.relname, p.name FROM pg_class c,
            unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER']) AS p(name)
            WHERE {TABLES} AND has_table_privilege(:role, c.oid, p.name)""",
        role=role,
    ):
        found.setdefault(table, set()).add(privilege)
    return found


class TestRoles:
    def test_no_role_is_a_member_of_another(self, ask):
        found = ask(
            """SELECT m.roleid::regrole::text, m.member::regrole::text FROM pg_auth_members m
               WHERE m.roleid::regrole::text = ANY(:roles) OR m.member::regrole::text = ANY(:roles)""",
            roles=list(ROLES),
        )
        assert found == []

    def test_none_may_pass_the_policies_by(self, ask):
        found = ask(
            """SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication
               FROM pg_roles WHERE rolname = ANY(:roles) ORDER BY rolname""",
            roles=list(ROLES),
        )
        assert found == [(role, True, False, False, False, False, False) for role in sorted(ROLES)]

    def test_roles_that_got_too_much_are_repaired(self, cluster, monkeypatch):
        # Names of its own: other tests run at the same time under the real roles.
        names = [f"nexus_probe_{os.getpid()}_{n}" for n in range(2)]
        monkeypatch.setattr("nexus_marketing.db.roles.ROLES", names)
        app, worker = names
        with cluster.connect() as connection:
            create_roles(libpq_url(cluster.url), dict.fromkeys(names, "x"))
            connection.execute(f"ALTER ROLE {app} CREATEDB CREATEROLE REPLICATION BYPASSRLS")
            connection.execute(f"GRANT {worker} TO {app}")
            connection.execute(f"GRANT pg_read_all_data TO {app}")
            create_roles(libpq_url(cluster.url), dict.fromkeys(names, "x"))
            rights = "rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
            found = connection.execute(f"SELECT {rights} FROM pg_roles WHERE rolname = %s", [app]).fetchone()
            members = connection.execute(
                "SELECT count(*) FROM pg_auth_members WHERE member = CAST(%s AS regrole)", [app]
            ).fetchone()
            connection.execute(f"DROP ROLE {app}, {worker}")
        assert found == (False, False, False, False)
        assert members == (0,)

    @pytest.mark.parametrize("role", [APP, WORKER])
    @pytest.mark.parametrize("other", ROLES)
    def test_no_role_can_become_another(self, process_database, role, other):
        if role == other:
            return
        engine = process_database.engines.app if role == APP else process_database.engines.worker
        with pytest.raises(Exception, match="permission denied"), engine.begin() as connection:
            connection.exec_driver_sql(f"SET ROLE {other}")

    @pytest.mark.parametrize("role", [APP, WORKER])
    def test_only_the_owner_creates_in_the_schema(self, ask, role):
        assert ask("SELECT has_schema_privilege(:role, 'public', 'CREATE')", role=role) == [(False,)]

    def test_a_database_made_by_the_product_belongs_to_the_owner(self, cluster):
        name = f"{cluster.prefix}made_by_product"
        create_database(libpq_url(cluster.url), name)
        with cluster.connect() as connection:
            owner = connection.execute("SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", [name])
            assert owner.fetchone() == (OWNER,)
        cluster.drop_database(name)


class TestPolicies:
    def test_every_table_with_a_tenant_forces_row_level_security(self, ask):
        found = [row for row in ask(TENANT_TABLES) if not row.relispartition]
        assert len(found) >= 24
        assert [row.relname for row in found if not (row.relrowsecurity and row.relforcerowsecurity)] == []

    def test_every_table_of_the_models_with_a_tenant_is_there(self, ask):
        there = {row.relname for row in ask(TENANT_TABLES) if not row.relispartition}
        assert there == {name for name, table in Base.metadata.tables.items() if "tenant_id" in table.c}

    def test_each_has_one_policy_per_role_for_reading_and_writing(self, ask):
        found = {
            (row.tablename, row.roles): row
            for row in ask("SELECT tablename, roles::text, permissive, cmd, qual, with_check FROM pg_policies")
        }
        fenced = {row.relname for row in ask(TENANT_TABLES) if not row.relispartition} | {"marketing_tenants"}
        assert set(found) == {(table, f"{{{role}}}") for table in fenced for role in ROLES}
        for (table, roles), row in found.items():
            assert (row.permissive, row.cmd) == ("PERMISSIVE", "ALL")
            column = "id" if table == "marketing_tenants" else "tenant_id"
            wanted = f"({column} = {TENANT})" if APP in roles else "true"
            assert (row.qual, row.with_check) == (wanted, wanted), (table, roles)

    def test_no_policy_is_for_everybody(self, ask):
        assert ask("SELECT tablename FROM pg_policies WHERE 'public' = ANY(roles)") == []


class TestGrants:
    @pytest.mark.parametrize("role", [APP, WORKER])
    def test_nothing_is_granted_on_a_partition(self, ask, role):
        partitions = {name for (name,) in ask(f"SELECT c.relname FROM pg_class c WHERE {TABLES} AND c.relispartition")}
        assert len(partitions) > 20
        assert partitions & grants(ask, role).keys() == set()

    def test_there_are_no_default_privileges(self, ask):
        assert ask("SELECT * FROM pg_default_acl") == []

    def test_nothing_is_granted_to_everybody(self, ask):
        assert grants(ask, "public") == {}

    @pytest.mark.parametrize("role", [APP, WORKER])
    def test_nobody_but_the_owner_truncates_refers_or_adds_triggers(self, ask, role):
        assert {p for privileges in grants(ask, role).values() for p in privileges} <= {
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
        }

    @pytest.mark.parametrize("role", [APP, WORKER])
    def test_append_only_tables_are_never_changed(self, ask, role):
        found = grants(ask, role)
        assert {table for table in APPEND_ONLY if found[table] != {"SELECT", "INSERT"}} == set()

    @pytest.mark.parametrize("role", [APP, WORKER])
    @pytest.mark.parametrize("table", sorted(APPEND_ONLY))
    @pytest.mark.parametrize("change", ["UPDATE {} SET tenant_id = 1", "DELETE FROM {}", "TRUNCATE {}"])
    def test_changing_them_is_refused(self, process_database, role, table, change):
        engine = process_database.engines.app if role == APP else process_database.engines.worker
        with pytest.raises(Exception, match="permission denied"), engine.begin() as connection:
            connection.exec_driver_sql(change.format(table))

    def test_the_web_role_does_not_make_tenants_or_workers(self, ask):
        found = grants(ask, APP)
        assert (found["marketing_tenants"], found["marketing_workers"]) == ({"SELECT"}, {"SELECT"})

    @pytest.mark.parametrize("role", [APP, WORKER])
    def test_the_migration_history_is_only_read(self, ask, role):
        assert grants(ask, role)["alembic_version"] == {"SELECT"}


class TestFunctionsAndViews:
    def test_only_listed_functions_run_with_their_owners_rights(self, ask):
        found = ask(
            """SELECT proname, proowner::regrole::text AS owner, proconfig FROM pg_proc
               WHERE prosecdef AND pronamespace = 'public'::regnamespace"""
        )
        assert {row.proname for row in found} == DEFINERS.keys()
        for row in found:
            assert row.owner == OWNER
            assert any(each.startswith("search_path=") and each.endswith("pg_temp") for each in row.proconfig)

    @pytest.mark.parametrize("function", DEFINERS)
    def test_they_are_for_the_named_roles_only(self, ask, function):
        found = ask(
            """SELECT r.role FROM pg_proc p, unnest(CAST(:roles AS text[])) AS r(role)
               WHERE p.proname = :name AND has_function_privilege(r.role, p.oid, 'EXECUTE')""",
            name=function,
            roles=[APP, WORKER, "public"],
        )
        assert {role for (role,) in found} == DEFINERS[function]

    def test_no_function_of_ours_is_for_everybody(self, ask):
        found = ask(
            """SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
               AND has_function_privilege('public', oid, 'EXECUTE')"""
        )
        assert found == []

    def test_views_use_the_rights_of_whoever_reads_them(self, ask):
        found = ask(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND (relkind = 'm'
               OR relkind = 'v' AND NOT coalesce(reloptions, '{}') @> ARRAY['security_invoker=true'])"""
        )
        assert found == []

    def test_there_are_no_rules_and_no_triggers_but_those_of_foreign_keys(self, ask):
        assert ask("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []


class TestKeys:
    def test_unique_keys_begin_with_the_tenant(self, ask):
        found = ask(
            f"""SELECT i.indexrelid::regclass::text FROM pg_index i JOIN ({TENANT_TABLES}) t ON t.oid = i.indrelid
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indisunique AND a.attname <> 'tenant_id'"""
        )
        assert {name for (name,) in found} == GLOBAL_KEYS

    def test_foreign_keys_carry_the_tenant_on_both_sides(self, ask):
        found = ask(
            """SELECT k.conname, a.attname AS here, b.attname AS there FROM pg_constraint k
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
               JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
               WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace"""
        )
        assert len(found) >= 15
        assert [row for row in found if (row.here, row.there) != ("tenant_id", "tenant_id")] == []

    def test_columns_that_name_a_row_refer_to_it_or_outlive_it(self):
        # A reference without a key must not be followed without the tenant; these outlive what they name.
        unbound = {
            f"{table.name}.{column.name}"
            for table in Base.metadata.tables.values()
            for column in table.c
            if column.name.endswith("_id") and column.name != "tenant_id" and not _is_bound(table, column)
        }
        assert unbound == {
            "marketing_api_keys.key_id",
            "marketing_actions.run_id",
            "marketing_audit.request_id",
            "marketing_audit.subject_id",
            "marketing_audit_values.audit_id",
            "marketing_audit_values.lead_id",
            "marketing_campaigns.definition_id",
            "marketing_campaigns.external_id",
            "marketing_campaigns.subject_id",
            "marketing_deliveries.lead_id",
            "marketing_engagement_attachments.engagement_id",
            "marketing_engagement_attachments.lead_id",
            "marketing_engagement_comments.engagement_id",
            "marketing_engagement_comments.lead_id",
            "marketing_engagement_deltas.campaign_id",
            "marketing_engagement_rollups.campaign_id",
            "marketing_lead_import_changes.lead_id",
            "marketing_engagements.campaign_id",
            "marketing_engagements.lead_id",
            "marketing_engagements.send_id",
            "marketing_escalations.entity_id",  # of what its entity_type says
            "marketing_event_seen.event_id",
            "marketing_history.actor_id",
            "marketing_hits.lead_id",
            "marketing_audit_untold.audit_id",
            "marketing_hits.send_id",
            "marketing_journey_arrivals.lead_id",
            "marketing_journey_arrivals.run_id",
            "marketing_leads.external_id",
            "marketing_leads.owner_id",
            "marketing_recipient_engagements.send_id",
            "marketing_score_marks.lead_id",
            "marketing_segment_changes.lead_id",
            "marketing_segment_changes.segment_id",
            "marketing_send_grants.send_id",
            "marketing_sends.journey_id",
            "marketing_sends.launch_id",
            "marketing_sends.segment_id",
        }


def _is_bound(table, column) -> bool:
    return any(column.name in key.column_keys for key in table.foreign_key_constraints)
