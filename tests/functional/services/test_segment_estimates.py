"""What an estimate says before a segment is saved."""

import pytest

from nexus_marketing.core.errors import ConditionError, ValidationError
from nexus_marketing.core.segments import Budget
from nexus_marketing.db.models import Tenant
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.segments import estimates as segment_estimates
from nexus_marketing.services.segments.estimates import estimate_size
from nexus_marketing.services.segments.records import create_segment, delete_segment, update_segment
from tests.common.factories import make_leads

pytestmark = pytest.mark.req("FR-P2-012", "US-012")


def estimate(runtime, tenant, conditions):
    with runtime.work(tenant, mode="read") as ctx:
        return estimate_size(ctx, conditions)[0]


def test_few_leads_are_counted(runtime, tenant, other_tenant):
    ids = make_leads(runtime, tenant, 50)
    make_leads(runtime, other_tenant, 50)
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, ids[0])
    found = estimate(runtime, tenant, "score <= 10")
    assert (found.count, found.low, found.high, found.total, found.confidence) == (9, 9, 9, 49, 1.0)
    assert found.cost_class == "indexed"


def test_of_many_leads_some_are_drawn(runtime, tenant, other_tenant, monkeypatch):
    monkeypatch.setattr(segment_estimates, "EXACT_UP_TO", 100)
    monkeypatch.setattr(segment_estimates, "SAMPLE", 300)
    for number in range(4):
        make_leads(runtime, tenant, 250, first=250 * number)
        make_leads(runtime, other_tenant, 30, first=30 * number)
    found = estimate(runtime, tenant, {"field": "score", "operator": ">=", "value": 80})
    assert found.total == 1_000
    assert 150 < found.sampled <= 300
    assert found.low <= 200 <= found.high
    assert found.low < found.count < found.high
    nobody = estimate(runtime, tenant, "score > 1000")
    assert nobody.low == nobody.count == 0 < nobody.high < 50


def test_nobody_is_an_answer(runtime, tenant):
    assert estimate(runtime, tenant, "score > 1").high == 0


def test_a_wrong_rule_is_told_with_its_place(runtime, tenant):
    with pytest.raises(ConditionError, match="scor"):
        estimate(runtime, tenant, "scor > 1")


def test_a_tenant_s_rules_cost_no_more_than_its_budget(runtime, tenant):
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get_one(Tenant, tenant).settings = {"segment_budget": 14}
    with runtime.work(tenant) as ctx:
        assert estimate_size(ctx, "country == 'DE'")[1] == Budget(3, 0, 14)
        scan = create_segment(ctx, {"name": "scan", "conditions": "metadata.plan contains 'x'"}).id
        cheap = create_segment(ctx, {"name": "cheap", "conditions": "country == 'DE'"}).id
        create_segment(ctx, {"name": "static", "kind": "static", "lead_ids": []})
    for spelling in ("country == 'FR'", "name ends_with 'x'"):
        with pytest.raises(ValidationError, match="13 of 14 are spent"), runtime.work(tenant) as ctx:
            estimate_size(ctx, spelling)
        with pytest.raises(ValidationError, match="13 of 14 are spent"), runtime.work(tenant) as ctx:
            create_segment(ctx, {"name": "more", "conditions": spelling})
    with runtime.work(tenant) as ctx:
        update_segment(ctx, cheap, {"conditions": "country == 'FR'"})  # takes the place of what it was
        create_segment(ctx, {"name": "indexed", "conditions": "score > 5"})
    with pytest.raises(ValidationError, match="11 of 14 are spent"), runtime.work(tenant) as ctx:
        update_segment(ctx, cheap, {"conditions": "metadata.plan contains 'y'"})
    with runtime.work(tenant) as ctx:
        delete_segment(ctx, scan)
        update_segment(ctx, cheap, {"conditions": "metadata.plan contains 'y'"})
