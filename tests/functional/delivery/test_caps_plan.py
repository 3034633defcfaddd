"""What a lead got of late is read from the ledger by the lead, not the ledger of every send, on both databases."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from nexus_marketing.db.models import Delivery
from nexus_marketing.db.queries.caps import other_targetings
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("BR-001", "PR-005")

LEADS, ASKED = 4_000, 50


@pytest.mark.parametrize("state", ["accepted", "planned"])
def test_the_ledger_is_read_by_lead(runtime: Runtime, tenant: int, state: str) -> None:
    leads, template = make_leads(runtime, tenant, LEADS), make_template(runtime, tenant)
    sends = [make_send(runtime, tenant, make_campaign(runtime, tenant, f"c{n}"), template) for n in range(4)]
    with runtime.work(tenant) as ctx:
        for send_id in sends[:3]:
            rows = [{"seq": seq, "lead_id": lead_id} for seq, lead_id in enumerate(leads, start=1)]
            shared = {"tenant_id": tenant, "send_id": send_id, "channel": "email", "state": "planned"}
            ctx.session.execute(insert(Delivery), [{**shared, **row} for row in rows])
        if state == "accepted":
            ctx.session.execute(update(Delivery).values(state="accepted", settled_at=ctx.now))
    asked: list[tuple[str, Any]] = []
    engine = runtime.engines.worker
    note = lambda _c, _cursor, sql, values, *_rest: asked.append((sql, values))  # noqa: E731
    event.listen(engine, "before_cursor_execute", note)
    try:
        with runtime.work(tenant) as ctx:
            found = other_targetings(ctx.session, sends[3], leads[:ASKED], datetime(2026, 1, 1, tzinfo=UTC))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert {len(each) for each in found.values()} == {3}
    assert len(found) == ASKED
    ((sql, values),) = [each for each in asked if "marketing_deliveries" in each[0]]
    word = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        plan = " ".join(str(row) for row in connection.exec_driver_sql(word + sql, values))
    assert "ix_marketing_deliveries_lead" in plan, plan
