"""Tables that were filled a moment ago have no statistics: what is looked up row by row must be looked up all the same."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, event, insert, update

from nexus_marketing.db.models import Delivery, Send
from nexus_marketing.db.queries.caps import other_targetings
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template

pytestmark = pytest.mark.req("BR-001", "PR-005", "SCL-004")

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
    with plans(runtime, "marketing_deliveries") as seen, runtime.work(tenant) as ctx:
        found = other_targetings(ctx.session, sends[3], leads[:ASKED], datetime(2026, 1, 1, tzinfo=UTC))
    assert {len(each) for each in found.values()} == {3}
    assert len(found) == ASKED
    (plan,) = seen
    assert "ix_marketing_deliveries_lead" in plan


def test_an_audience_is_planned_by_looking_its_leads_up(runtime: Runtime, tenant: int) -> None:
    segment = make_segment(runtime, tenant, make_leads(runtime, tenant, LEADS))
    campaign, template = make_campaign(runtime, tenant), make_template(runtime, tenant)
    send = make_send(runtime, tenant, campaign, template, status="planning", segment_id=segment)
    with runtime.work(tenant) as ctx:
        ctx.session.execute(update(Send).values(send_not_after=runtime.clock.now()))
    with plans(runtime, "INSERT INTO marketing_deliveries") as seen:
        assert plan_send(runtime, SendRef(tenant, send)) == LEADS
    for plan in seen:
        assert "Join Filter" not in plan
        assert re.search(r"pk_marketing_leads .*id = m\.lead_id|SEARCH l USING", plan, re.DOTALL), plan


@contextmanager
def plans(runtime: Runtime, words: str) -> Iterator[list[str]]:
    """The plans of a worker's statements with these words, each from the moment before it runs."""
    found: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if runtime.engines.dialect == "sqlite" else "EXPLAIN "

    def note(connection: Connection, _cursor: object, sql: str, values: object, *_rest: object) -> None:
        if words in sql:
            cursor = connection.connection.cursor()
            cursor.execute(explain + sql, values)
            found.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(runtime.engines.worker, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(runtime.engines.worker, "before_cursor_execute", note)
