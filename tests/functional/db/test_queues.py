"""Rows taken out of queues."""

import pytest
from sqlalchemy import text

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.queries.scoring import append_marks, take_marks
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_leads, make_tenant

#: What PostgreSQL takes for a table it believes to be empty: the choice is made again for every row.
_PLAN = "SELECT " + ", ".join(
    f"set_config('enable_{each}', 'off', true)"
    for each in ("hashjoin", "mergejoin", "hashagg", "material", "bitmapscan", "sort")
)


@pytest.mark.req("FR-P2-010")
def test_no_more_is_taken_than_asked_whatever_the_plan(postgres_only_runtime: Runtime) -> None:
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    leads = make_leads(runtime, tenant, 20)
    with runtime.work(tenant, SYSTEM) as ctx:
        append_marks(ctx.session, [{"lead_id": each, "since": None, "until": None} for each in leads])
    with runtime.engines.owner.begin() as connection:
        connection.execute(text("ANALYZE marketing_score_marks"))
    with runtime.work(tenant, SYSTEM) as ctx:
        ctx.session.connection().execute(text(_PLAN))
        assert len(take_marks(ctx.session, 3)) == 3
    with runtime.work(tenant, SYSTEM) as ctx:
        assert sorted(row.lead_id for row in take_marks(ctx.session, 100)) == leads[3:]


@pytest.mark.req("FR-P2-010")
def test_what_another_takes_is_passed_over(postgres_only_runtime: Runtime) -> None:
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    leads = make_leads(runtime, tenant, 4)
    with runtime.work(tenant, SYSTEM) as ctx:
        append_marks(ctx.session, [{"lead_id": each, "since": None, "until": None} for each in leads])
    with runtime.work(tenant, SYSTEM) as first, runtime.work(tenant, SYSTEM) as second:
        taken = take_marks(first.session, 2)
        others = take_marks(second.session, 3)
    assert sorted(row.lead_id for row in [*taken, *others]) == leads
    assert len(others) == 2
