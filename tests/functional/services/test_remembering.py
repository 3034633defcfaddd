"""What is computed once and shown again, and what is not."""

import time
from dataclasses import replace

import pytest
from sqlalchemy import update

from nexus_marketing.builtins.caches.memory import MemoryCache
from nexus_marketing.builtins.caches.redis import RedisCache
from nexus_marketing.db.models import Delivery, Send
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.segments import estimates as segment_estimates
from nexus_marketing.services.segments.estimates import estimate_size
from tests.common.factories import make_campaign, make_leads, make_send, make_template
from tests.common.statements import statements_of

pytestmark = pytest.mark.req("SCL-006")


@pytest.fixture(params=["memory", "redis"])
def caching(request: pytest.FixtureRequest, runtime: Runtime) -> Runtime:
    """A runtime that remembers."""
    cache = (
        MemoryCache(time.monotonic) if request.param == "memory" else RedisCache(request.getfixturevalue("redis_url"))
    )
    return replace(runtime, cache=cache)


def numbers(runtime: Runtime, tenant: int, campaign: int) -> tuple[int, int, int]:
    """(open, accepted, statements about the ledger)."""
    with statements_of(runtime) as sent, runtime.work(tenant, mode="read") as ctx:
        found = campaign_analytics(ctx, campaign)
    asked = [text for text, _ in sent if "marketing_deliveries" in text]
    return found["open"], found["accepted"], len(asked)


def settle(runtime: Runtime, tenant: int, send_id: int, most: int, **send: str) -> None:
    with runtime.work(tenant) as ctx:
        rows = update(Delivery).where(Delivery.send_id == send_id, Delivery.seq <= most)
        ctx.session.execute(rows.values(state="accepted", settled_at=ctx.now))
        ctx.session.execute(update(Send).where(Send.id == send_id).values(**send))


def test_a_send_is_counted_until_it_is_over_and_then_once(caching, tenant):
    ids = make_leads(caching, tenant, 6)
    campaign = make_campaign(caching, tenant)
    send_id = make_send(caching, tenant, campaign, make_template(caching, tenant), ids)
    assert numbers(caching, tenant, campaign) == (6, 0, 1)
    settle(caching, tenant, send_id, 4, status="running")
    assert numbers(caching, tenant, campaign) == (2, 4, 1)
    # Cancelled, but the last of its recipients are not settled yet.
    settle(caching, tenant, send_id, 5, status="cancelled")
    assert numbers(caching, tenant, campaign) == (1, 5, 1)
    settle(caching, tenant, send_id, 6, status="cancelled")
    assert numbers(caching, tenant, campaign) == (0, 6, 1)
    assert numbers(caching, tenant, campaign) == (0, 6, 0)


def test_another_tenants_numbers_are_its_own(caching, tenant, other_tenant):
    counts = {}
    for owner, size in ((tenant, 2), (other_tenant, 3)):
        campaign = make_campaign(caching, owner)
        send_id = make_send(caching, owner, campaign, make_template(caching, owner), make_leads(caching, owner, size))
        settle(caching, owner, send_id, size, status="completed")
        counts[owner] = [numbers(caching, owner, campaign)[1] for _ in range(2)]
    assert counts == {tenant: [2, 2], other_tenant: [3, 3]}


def test_a_sample_is_not_drawn_again_while_a_rule_is_written(caching, tenant, monkeypatch):
    monkeypatch.setattr(segment_estimates, "EXACT_UP_TO", 100)
    monkeypatch.setattr(segment_estimates, "SAMPLE", 50)
    make_leads(caching, tenant, 400)

    def estimate(rule: str) -> int:
        with caching.work(tenant, mode="read") as ctx:
            return estimate_size(ctx, rule)[0].count

    first = estimate("score >= 50")
    assert {estimate("score >= 50") for _ in range(5)} == {first}
    assert {estimate("score  >=  50") for _ in range(5)} == {first}
    assert estimate("score >= 0") > estimate("score > 1000")


def test_few_leads_are_counted_every_time(caching, tenant):
    make_leads(caching, tenant, 20)
    with caching.work(tenant, mode="read") as ctx:
        before = estimate_size(ctx, "score >= 0")[0].count
    make_leads(caching, tenant, 5, first=100)
    with caching.work(tenant, mode="read") as ctx:
        assert estimate_size(ctx, "score >= 0")[0].count == before + 5
