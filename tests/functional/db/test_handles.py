"""Leads are found by what networks call them, without a look at every lead."""

from typing import Any

import pytest
from sqlalchemy import event

from nexus_marketing.db.queries.reactions import INDEXED_HANDLES, leads_by_handle
from nexus_marketing.db.tenancy import run
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_tenant

pytestmark = pytest.mark.req("US-018", "FR-P2-009", "PR-001")

_MANY = """
INSERT INTO marketing_leads (tenant_id, created_at, updated_at, name, tags, metadata)
SELECT :tenant_id, now(), now(), 'l' || i, '[]', CASE WHEN i % 20 = 0
  THEN jsonb_build_object('mastodon', '@Lead' || i || '@Social.example', 'bluesky', 'lead' || i || '.example')
  ELSE '{}' END
FROM generate_series(1, 8000) i
"""


def test_on_postgresql_each_network_has_an_index_that_is_used(postgres_only_runtime):
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    with runtime.work(tenant) as ctx:
        run(ctx.session, _MANY, writes=True)
        run(
            ctx.session,
            "INSERT INTO marketing_leads (tenant_id, created_at, updated_at, name, tags, metadata)"
            " VALUES (:tenant_id, now(), now(), 'x', '[]', '{\"pixelfed\": \"@Me@px.example\"}')",
            writes=True,
        )
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql("ANALYZE marketing_leads")
    wanted = {f"lead{number}@social.example" for number in (20, 40, 45)}
    with runtime.work(tenant, mode="read") as ctx:
        assert leads_by_handle(ctx.session, "mastodon", wanted).keys() == wanted - {"lead45@social.example"}
        assert len(leads_by_handle(ctx.session, "pixelfed", {"me@px.example", "you@px.example"})) == 1
    for network in INDEXED_HANDLES:
        assert f"ix_marketing_leads_{network}_handle" in plan(runtime, tenant, network)
    assert "_handle" not in plan(runtime, tenant, "pixelfed")


def plan(runtime: Runtime, tenant: int, network: str) -> str:
    """How the database finds leads by their names there."""
    said: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        said.append((statement, parameters))

    engine = runtime.engines.worker
    with runtime.work(tenant, mode="read") as ctx:
        event.listen(engine, "before_cursor_execute", hear)
        try:
            leads_by_handle(ctx.session, network, {"lead20.example", "lead60@social.example"})
        finally:
            event.remove(engine, "before_cursor_execute", hear)
    statement, parameters = next(each for each in said if "marketing_leads" in each[0])
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        return "\n".join(row[0] for row in rows)
