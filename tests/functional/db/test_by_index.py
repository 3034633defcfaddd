"""Claims and checks of arrivals stay look-ups while a table fills that PostgreSQL believes to be empty."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.by_index import looking_up_by_index
from nexus_marketing.db.queries.journey_arrivals import past_asked
from nexus_marketing.db.queries.timers import claim_timers
from nexus_marketing.db.tenancy import open_session
from tests.common import databases
from tests.common.databases import NOW
from tests.common.factories import make_tenant
from tests.common.servers import PostgresCluster

#: What tells the statements apart that look up what was before.
_PAST = (
    "SELECT sequence, entered_at FROM marketing_journey_runs",
    "SELECT key FROM marketing_journey_runs",
    "arrivals",
)
pytestmark = pytest.mark.req("SR-003", "FR-P3-006")


def test_claims_and_arrivals_look_up_by_index_whatever_the_table_holds(
    cluster: PostgresCluster, tmp_path: Path
) -> None:
    with databases.postgres_runtime(cluster, tmp_path, clock=FakeClock(NOW)) as runtime:
        tenant_id = make_tenant(runtime)
        seen: list[tuple[str, Any]] = []
        plans: dict[str, str] = {}

        def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_others: Any) -> None:
            seen.append((statement, parameters))

        def explain(session: Any, part: str) -> None:
            statement, parameters = next(each for each in seen if part in each[0])
            rows = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            plans[part] = "\n".join(rows)

        event.listen(runtime.engines.worker, "before_cursor_execute", hear)
        with open_session(runtime.engines.worker, tenant_id=None, by_index=True) as session, session.begin():
            claim_timers(session, NOW, 1, lease_seconds=60, each=50, most=100)
            explain(session, "marketing_timers")
        with open_session(runtime.engines.worker, tenant_id=tenant_id, by_index=True) as session, session.begin():
            answers(session, *past_asked(session, 1, [*range(1, 501)], "list:1", with_keys=True).questions)
            for part in _PAST:
                explain(session, part)
        with open_session(runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
            shown = (
                "SELECT current_setting('enable_seqscan'), current_setting('enable_bitmapscan'), current_setting('jit')"
            )
            session.connection().exec_driver_sql("SET LOCAL jit TO off")
            with looking_up_by_index(session):
                assert tuple(session.connection().exec_driver_sql(shown).one()) == ("off", "off", "off")
            assert tuple(session.connection().exec_driver_sql(shown).one()) == ("on", "on", "off")
    assert "Seq Scan on marketing_timers" not in plans["marketing_timers"]
    assert "Tid Scan on marketing_timers" in plans["marketing_timers"]
    for part in _PAST:
        assert "lead_id = " in plans[part].split("Index Cond:")[1].splitlines()[0], plans[part]


def test_checks_of_foreign_keys_go_by_the_key_before_anything_is_known_of_a_table(
    cluster: PostgresCluster, tmp_path: Path
) -> None:
    with databases.postgres_runtime(cluster, tmp_path) as runtime, runtime.engines.owner.connect() as connection:
        for table in ("marketing_journey_runs", "marketing_leads"):
            check = f"SELECT 1 FROM ONLY {table} x WHERE tenant_id = 1 AND id = 1 FOR KEY SHARE OF x"
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {check}").scalars())
            assert f"using pk_{table}" in plan, plan
