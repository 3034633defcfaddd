"""Opens and clicks become engagements with a verdict, which later hits may change."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.db.models import Engagement, Hit, RecipientEngagement
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.counters import fold_counters, reconcile_counters
from nexus_marketing.services.hits import judge_hits
from nexus_marketing.services.privacy import unsubscribe
from tests.common.databases import NOW
from tests.common.factories import make_campaign, make_leads, make_send, make_template, make_tenant

pytestmark = pytest.mark.req("FR-P2-007", "D09")


@pytest.fixture
def campaign(runtime: Runtime, tenant: int) -> int:
    return make_campaign(runtime, tenant, template_id=make_template(runtime, tenant))


@pytest.fixture
def send(runtime: Runtime, tenant: int, campaign: int) -> tuple[int, list[int]]:
    """A send to two leads."""
    leads = make_leads(runtime, tenant, 2)
    return make_send(runtime, tenant, campaign, make_template(runtime, tenant, "Other"), leads), leads


def hits(
    runtime: Runtime, tenant: int, send: tuple[int, list[int]], *given: tuple[float, int | None], seq: int = 1
) -> None:
    """Hits at so many seconds after NOW: an open without, a click with a link."""
    with runtime.work(tenant) as ctx:
        for seconds, link in given:
            ctx.session.add(
                Hit(
                    at=NOW + timedelta(seconds=seconds),
                    type="email_opened" if link is None else "email_clicked",
                    send_id=send[0],
                    seq=seq,
                    lead_id=send[1][seq - 1],
                    link=link,
                )
            )


def settle(runtime: Runtime, tenant: int) -> None:
    while judge_hits(runtime, tenant):
        pass


def verdicts(runtime: Runtime, tenant: int) -> list[tuple[str, str]]:
    with runtime.work(tenant, mode="read") as ctx:
        rows = ctx.session.scalars(select(Engagement).order_by(Engagement.tracked_at, Engagement.id))
        return [(row.type, row.verdict) for row in rows]


def numbers(runtime: Runtime, tenant: int, campaign: int) -> dict[str, Any]:
    with runtime.work(tenant, mode="read") as ctx:
        return campaign_analytics(ctx, campaign)


def test_a_later_burst_changes_what_earlier_hits_are_taken_for(
    runtime: Runtime, tenant: int, campaign: int, send: tuple[int, list[int]]
) -> None:
    hits(runtime, tenant, send, (0, None), (20, 0))
    hits(runtime, tenant, send, (5, None), (30, 1), seq=2)
    settle(runtime, tenant)
    assert {verdict for _, verdict in verdicts(runtime, tenant)} == {"human"}
    assert numbers(runtime, tenant, campaign)["clicks"] == {
        "unique": 2, "hits": 2, "human": 2, "machine": 0, "unknown": 0,
    }  # fmt: skip
    fold_counters(runtime, tenant)

    hits(runtime, tenant, send, (60, 0), (60.3, 1), (60.6, 2))
    settle(runtime, tenant)
    found = numbers(runtime, tenant, campaign)
    assert found["clicks"] == {"unique": 1, "hits": 5, "human": 1, "machine": 1, "unknown": 0}
    assert found["opens"] == {"unique": 1, "hits": 2, "human": 1, "machine": 1, "unknown": 0}
    assert found["engagements"]["email_clicked"] == {"human": 1, "machine": 4, "unknown": 0}
    assert reconcile_counters(runtime, tenant) == []
    fold_counters(runtime, tenant)
    assert numbers(runtime, tenant, campaign) == found

    hits(runtime, tenant, send, (3600, 0))
    settle(runtime, tenant)
    assert numbers(runtime, tenant, campaign)["clicks"]["human"] == 2
    assert reconcile_counters(runtime, tenant) == []


def test_each_recipient_counts_once_however_often(
    runtime: Runtime, tenant: int, campaign: int, send: tuple[int, list[int]]
) -> None:
    for _ in range(3):
        hits(runtime, tenant, send, (10, None), (15, None))
        settle(runtime, tenant)
    assert numbers(runtime, tenant, campaign)["opens"] == {
        "unique": 1, "hits": 6, "human": 1, "machine": 0, "unknown": 0,
    }  # fmt: skip
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(RecipientEngagement)).one().hits == 6
    assert reconcile_counters(runtime, tenant) == []


def test_unsubscribes_are_counted_with_the_others(
    runtime: Runtime, tenant: int, campaign: int, send: tuple[int, list[int]]
) -> None:
    for _ in range(2):
        with runtime.work(tenant, role="app") as ctx:
            unsubscribe(ctx, send[1][0], source="page", send_id=send[0], seq=1)
    assert numbers(runtime, tenant, campaign)["unsubscribes"] == 1
    assert reconcile_counters(runtime, tenant) == []


def test_one_worker_at_a_time_judges_a_tenant(postgres_only_runtime: Runtime) -> None:
    runtime = postgres_only_runtime
    tenant = make_tenant(runtime)
    with runtime.work(tenant) as ctx:
        ctx.session.add(
            Hit(at=datetime(2020, 1, 1, tzinfo=NOW.tzinfo), type="email_opened", send_id=1, seq=1, lead_id=1)
        )
    with runtime.work(tenant) as ctx:
        assert try_alone(ctx.session, "judging")
        assert judge_hits(runtime, tenant) == 0
    assert judge_hits(runtime, tenant) == 1
