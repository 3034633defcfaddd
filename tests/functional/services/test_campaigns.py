"""Campaigns on both databases: money, references and locks."""

import pytest

from nexus_marketing.core.errors import Conflict, StaleVersion, ValidationError
from nexus_marketing.core.money import major_units
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign, update_campaign
from tests.common.factories import make_segment

pytestmark = pytest.mark.req("US-011", "FR-P2-002", "REL-003")


def create(runtime: Runtime, tenant_id: int, **data: object) -> int:
    with runtime.work(tenant_id) as ctx:
        return create_campaign(ctx, {"name": "Spring", **data}).id


def test_money_is_kept_in_minor_units(runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant) as ctx:
        campaign = create_campaign(ctx, {"name": "c", "budget": "1000.50", "currency": "EUR"})
        assert campaign.budget_minor == 100_050
        assert major_units(campaign.budget_minor, campaign.currency) == "1000.50"
        yen = create_campaign(ctx, {"name": "c", "budget": 1000, "currency": "JPY"})
        assert yen.budget_minor == 1000


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"budget": "1.005", "currency": "EUR"}, "budget"),
        ({"budget": -1, "currency": "EUR"}, "budget"),
        ({"budget": "1.5", "currency": "JPY"}, "budget"),
        ({"budget": "much", "currency": "EUR"}, "budget"),
        ({"budget": "NaN", "currency": "EUR"}, "budget"),
        ({"budget": "1e999", "currency": "EUR"}, "budget"),
        ({"budget": 5}, "currency"),
    ],
)
def test_what_is_no_amount_is_refused(runtime: Runtime, tenant: int, data: dict[str, object], path: str) -> None:
    with pytest.raises(ValidationError) as refused:
        create(runtime, tenant, **data)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_a_budget_alone_keeps_its_currency(runtime: Runtime, tenant: int) -> None:
    campaign_id = create(runtime, tenant, budget="10", currency="EUR")
    with runtime.work(tenant) as ctx:
        changed = update_campaign(ctx, campaign_id, {"budget": "12.34"})
        assert (changed.budget_minor, changed.currency) == (1234, "EUR")


def test_references_lead_to_the_tenants_own_things(runtime: Runtime, tenant: int, other_tenant: int) -> None:
    foreign = make_segment(runtime, other_tenant)
    with pytest.raises(ValidationError, match="There is no such segment"):
        create(runtime, tenant, segment_id=str(foreign))


def test_the_version_guards_against_overwriting(runtime: Runtime, tenant: int) -> None:
    campaign_id = create(runtime, tenant)
    with runtime.work(tenant) as ctx:
        update_campaign(ctx, campaign_id, {"name": "Summer"}, expected_version=1)
    with pytest.raises(StaleVersion) as stale, runtime.work(tenant) as ctx:
        update_campaign(ctx, campaign_id, {"name": "Autumn"}, expected_version=1)
    assert stale.value.context["current"] == 2


def test_what_is_over_cannot_be_changed(runtime: Runtime, tenant: int) -> None:
    campaign_id = create(runtime, tenant)
    with runtime.work(tenant) as ctx:
        move_campaign(ctx, campaign_id, "cancel")
    with pytest.raises(Conflict, match="create another one"), runtime.work(tenant) as ctx:
        update_campaign(ctx, campaign_id, {"name": "Again"})
