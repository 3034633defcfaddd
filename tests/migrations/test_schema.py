"""Migrations make what the models say, there and back, on both databases."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, text

from nexus_marketing.core.errors import ConfigurationError, Conflict
from nexus_marketing.db.base import Base, TenantScoped
from nexus_marketing.db.engines import Engines
from nexus_marketing.db.upgrade import (
    ServerLock,
    current_revision,
    differences,
    downgrade,
    head_revision,
    lock_file,
    require_current,
    upgrade,
)
from tests.common import databases
from tests.common.servers import PostgresCluster

pytestmark = pytest.mark.req("SR-003", "R26")

ADRS = Path(__file__).parents[2] / "docs" / "adr"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path):
    """Engines on a database without a schema."""
    if request.param == "sqlite":
        with databases.opened(databases.sqlite_settings(tmp_path / "empty.db")) as engines:
            yield engines
        return
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    name = cluster.create_database(owner="nexus_owner")
    with databases.opened(databases.postgres_settings(cluster, name)) as engines:
        yield engines
    cluster.drop_database(name)


def leftovers(engines: Engines) -> set[str]:
    """What is in the database besides alembic's own table."""
    if engines.dialect == "sqlite":
        statement = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    else:
        statement = """
            SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
            UNION ALL SELECT polname FROM pg_policy"""
    with engines.owner.connect() as connection:
        names = set(connection.execute(text(statement)).scalars())
    return {name for name in names if not name.startswith("alembic_version")}


def test_an_empty_database_is_upgraded_to_what_the_models_say(empty):
    assert current_revision(empty) is None
    upgrade(empty)
    assert current_revision(empty) == head_revision()
    with empty.owner.connect() as connection:
        assert differences(connection) == []


def test_downgrading_to_nothing_leaves_nothing_and_can_be_undone(empty):
    upgrade(empty)
    downgrade(empty, "base")
    assert leftovers(empty) == set()
    upgrade(empty)
    with empty.owner.connect() as connection:
        assert differences(connection) == []


def test_upgrading_twice_changes_nothing(empty):
    upgrade(empty)
    before = leftovers(empty)
    upgrade(empty)
    assert leftovers(empty) == before


def test_a_difference_is_found(empty):
    upgrade(empty)
    with empty.owner.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE marketing_leads ADD COLUMN stray text")
        connection.exec_driver_sql("DROP INDEX ix_marketing_leads_tenant_id_score")
        assert len(differences(connection)) == 2


def test_another_schema_than_ours_is_refused_with_the_remedy(empty):
    with pytest.raises(ConfigurationError, match="nexus-marketing db upgrade"):
        require_current(empty)
    upgrade(empty)
    require_current(empty)


def test_a_migration_that_fails_halfway_leaves_nothing_behind(empty):
    # On SQLite too: its DDL runs inside our own BEGIN IMMEDIATE.
    def fail_late(_connection, _cursor, statement, *_):
        if "CREATE TABLE marketing_delivery_chunks" in statement:
            raise RuntimeError("power cut")

    event.listen(empty.owner, "before_cursor_execute", fail_late)
    with pytest.raises(RuntimeError, match="power cut"):
        upgrade(empty)
    event.remove(empty.owner, "before_cursor_execute", fail_late)
    assert leftovers(empty) == set()
    upgrade(empty)


class TestServerLock:
    @pytest.fixture
    def engines(self, tmp_path):
        with databases.opened(databases.sqlite_settings(tmp_path / "nexus.db")) as engines:
            yield engines

    def test_upgrading_is_refused_while_a_server_runs(self, engines):
        upgrade(engines)
        server = lock_file(engines.owner)
        server.hold_shared()
        with pytest.raises(Conflict, match="stop it"):
            upgrade(engines)
        with pytest.raises(Conflict, match="stop it"):
            downgrade(engines, "base")
        require_current(engines)
        server.release()
        upgrade(engines)

    def test_two_servers_may_share_a_file(self, engines):
        first, second = lock_file(engines.owner), lock_file(engines.owner)
        first.hold_shared()
        second.hold_shared()
        first.release()
        with pytest.raises(Conflict):
            upgrade(engines)
        second.release()

    def test_a_server_of_another_process_counts(self, engines, tmp_path):
        holder = subprocess.Popen(
            ["flock", "--shared", str(tmp_path / "nexus.db.lock"), "sh", "-c", "echo held; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict):
            upgrade(engines)
        holder.communicate(b"\n")
        upgrade(engines)

    def test_the_lock_is_let_go_after_a_failure(self, engines, monkeypatch):
        monkeypatch.setattr("nexus_marketing.db.upgrade.command.upgrade", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            upgrade(engines)
        lock = lock_file(engines.owner)
        lock.hold_alone()
        lock.release()

    def test_postgresql_needs_no_lock_file(self, postgres_engines):
        assert lock_file(postgres_engines.owner) is None

    def test_the_lock_lies_beside_the_file(self, tmp_path):
        lock = ServerLock(tmp_path / "nexus.db.lock")
        lock.release()
        assert (tmp_path / "nexus.db.lock").exists()


#: Tables and key fields of the requirements, "Data Model & Architecture".
REQUIRED = {
    "marketing_definitions": "id name schema active version",
    "marketing_campaigns": "id subject_type subject_id definition_id state data started_at completed_at",
    "marketing_history": "id campaign_id event before after actor_id payload",
    "marketing_leads": "id email name score segment_ids metadata",
    "marketing_segments": "id name conditions lead_count updated_at",
    "marketing_engagements": "id campaign_id lead_id type channel metadata tracked_at",
    "marketing_timers": "id campaign_id type trigger_at payload status",
    "marketing_roi": "id campaign_id budget spent revenue started_at breach_at",
    "marketing_escalations": "id entity_type entity_id level from_user_id to_user_id reason",
    "marketing_delegations": "id delegator_id delegatee_id start_date end_date scope",
    "marketing_channels": "id type name config enabled",
    "marketing_templates": "id name type content variables version",
    "marketing_variants": "id campaign_id name config traffic_percentage conversions",
    "marketing_consents": "id lead_id type granted_at revoked_at ip_address",
    "marketing_suppressions": "id email type reason suppressed_at",
}
#: What is not there under its name, and which decision says why.
ABSENT = {
    "marketing_roi": "0002",
    "marketing_delegations": "0002",
    "marketing_variants": "0002",
    "marketing_campaigns.state": "0002",
    "marketing_leads.segment_ids": "0002",
}


def test_the_requirements_have_fifteen_tables():
    assert len(REQUIRED) == 15


# Sorted: the registry is a set, and parallel test processes must collect the same order.
MAPPERS = sorted(Base.registry.mappers, key=lambda mapper: mapper.class_.__name__)


@pytest.mark.parametrize("table", REQUIRED)
def test_a_required_table_has_its_fields_or_a_decision_says_why_not(table):
    model = Base.metadata.tables.get(table)
    if model is None:
        assert is_explained(ABSENT[table], table)
        return
    for column in REQUIRED[table].split():
        if column not in model.c:
            assert is_explained(ABSENT[f"{table}.{column}"], table, column)


def test_no_decision_excuses_what_exists():
    present = {table for table in ABSENT if table in Base.metadata.tables}
    present |= {f"{column.table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.c}
    assert present & ABSENT.keys() == set()


def is_explained(number: str, *words: str) -> bool:
    (record,) = ADRS.glob(f"{number}-*.md")
    written = record.read_text()
    return all(f"`{word}`" in written for word in words)


class TestModels:
    @pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.class_.__name__)
    def test_every_column_says_whether_it_is_personal(self, mapper):
        assert {c.name for c in mapper.local_table.c if not isinstance(c.info.get("personal"), bool)} == set()

    @pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.class_.__name__)
    def test_a_table_with_a_tenant_is_fenced_by_its_model(self, mapper):
        assert issubclass(mapper.class_, TenantScoped) == ("tenant_id" in mapper.local_table.c)

    @pytest.mark.parametrize(
        ("table", "columns"),
        [
            ("marketing_leads", "email email_norm external_id phone name first_name last_name country tags metadata"),
            ("marketing_members", "name email email_norm"),
            ("marketing_consents", "ip_address evidence"),
            ("marketing_suppressions", "email address_hash"),
            ("marketing_audit_values", "values"),
        ],
    )
    def test_what_tells_of_a_person_is_personal(self, table, columns):
        found = {c.name for c in Base.metadata.tables[table].c if c.info["personal"]}
        assert found >= set(columns.split())

    @pytest.mark.parametrize("table", ["marketing_audit", "marketing_history", "marketing_deliveries"])
    def test_rows_that_are_never_erased_hold_nothing_personal_in_the_clear(self, table):
        assert {c.name for c in Base.metadata.tables[table].c if c.info["personal"]} <= {"address_hash"}


class TestPartitions:
    """Partition keys are decided now (docs/adr/0003-partition-keys.md)."""

    @pytest.mark.parametrize(
        ("table", "key"), [("marketing_engagements", "tracked_at"), ("marketing_event_seen", "received_on")]
    )
    def test_parents_are_partitioned_by_range(self, postgres_engines, table, key):
        with postgres_engines.owner.connect() as connection:
            found = connection.execute(text("SELECT pg_get_partkeydef(CAST(:t AS regclass))"), {"t": table}).scalar()
        assert found == f"RANGE ({key})"

    @pytest.mark.parametrize(
        ("table", "columns"),
        [
            ("marketing_deliveries", ["tenant_id", "send_id"]),
            ("marketing_audit", ["tenant_id", "at"]),
            ("marketing_audit_values", ["tenant_id", "at"]),
            ("marketing_engagements", ["tenant_id", "tracked_at"]),
        ],
    )
    def test_primary_keys_contain_the_partition_key(self, table, columns):
        assert [c.name for c in Base.metadata.tables[table].primary_key][:2] == columns

    def test_every_unique_key_of_the_ledger_contains_its_partition_key(self):
        ledger = Base.metadata.tables["marketing_deliveries"]
        unique = [{c.name for c in index.columns} for index in ledger.indexes if index.unique]
        assert len(unique) == 2
        assert all({"tenant_id", "send_id"} <= columns for columns in unique)

    def test_months_and_days_ahead_exist_and_the_default_stays_empty(self, postgres_engines):
        with postgres_engines.worker.connect() as connection, connection.begin():
            connection.execute(text("SELECT nexus_create_partitions(DATE '2027-11-30')"))
        tables = set(inspect(postgres_engines.owner).get_table_names())
        assert {f"marketing_engagements_{m}" for m in ("2027_09", "2027_11", "2028_02")} <= tables
        assert {"marketing_event_seen_2027_11_30", "marketing_event_seen_2027_12_14"} <= tables

    def test_making_them_twice_changes_nothing(self, postgres_engines):
        for _ in range(2):
            with postgres_engines.worker.connect() as connection, connection.begin():
                connection.execute(text("SELECT nexus_create_partitions(DATE '2027-11-30')"))

    @pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "UTC"])
    def test_months_are_those_of_utc_whatever_zone_the_session_is_in(self, postgres_engines, zone):
        insert = (
            "INSERT INTO marketing_engagements (tenant_id, tracked_at, type, lead_id, verdict, metadata)"
            " VALUES (2, %s, 'opened', 1, 'human', '{}') RETURNING tableoid::regclass::text"
        )
        with postgres_engines.owner.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"SET LOCAL timezone = '{zone}'")
            connection.exec_driver_sql("SELECT nexus_create_partitions(DATE '2027-06-15')")
            ends = ("2027-06-01T00:00:00Z", "2027-06-30T23:59:59.999999Z")
            found = {connection.exec_driver_sql(insert, (moment,)).scalar() for moment in ends}
        assert found == {"marketing_engagements_2027_06"}
