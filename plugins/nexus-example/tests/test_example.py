"""The example against the suites, on both sides of the sandbox, and what each of its parts decides."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from nexus_marketing.plugin import Approval, Approvals, ConditionContext, Figures, Occasion, OccasionKind
from nexus_marketing.plugin.testing import (
    ApprovalStrategyConformance,
    ConditionConformance,
    MetricConformance,
    TriggerConformance,
    hosted,
)

pytestmark = pytest.mark.req("FR-EXT-002", "FR-EXT-003", "FR-EXT-004", "FR-EXT-006", "SR-004")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=[False, True], ids=["trusted", "sandboxed"])
def plugin(request: pytest.FixtureRequest) -> Iterator[Any]:
    with hosted("nexus_example", sandboxed=request.param) as registry:
        yield registry


@pytest.fixture
def strategy(plugin: Any) -> Any:
    return plugin.of("approval_strategy")["four_eyes"]


@pytest.fixture
def condition(plugin: Any) -> Any:
    return plugin.of("condition")["anniversary"]


@pytest.fixture
def trigger(plugin: Any) -> Any:
    return plugin.of("trigger")["big_purchase"]


@pytest.fixture
def metric(plugin: Any) -> Any:
    return plugin.of("metric")["net_return_per_lead"]


def purchase(**data: Any) -> Occasion:
    return Occasion(1, OccasionKind.EVENT, "purchase", "e1", NOW, {"lead_id": 7, **data})


class TestStrategy(ApprovalStrategyConformance):
    """The suite of strategies."""


class TestCondition(ConditionConformance):
    @pytest.fixture
    def arguments(self) -> list[dict[str, Any]]:
        return [{}, {"days": 7}, {"days": -1.5}, {"days": 1e300}]

    @pytest.fixture
    def leads(self) -> list[dict[str, Any]]:
        return [{"created_at": "2024-02-29T12:00:00.000000Z"}, {"created_at": "2025-01-03T00:00:00.000000Z"}]


class TestTrigger(TriggerConformance):
    @pytest.fixture
    def occasions(self) -> list[Occasion]:
        return [purchase(amount_minor=20_000), purchase()]


class TestMetric(MetricConformance):
    """The suite of metrics."""


@pytest.mark.parametrize(
    ("asked", "given", "settings", "may"),
    [
        ((1,), [(1, True, "")], {}, True),
        ((1, 2, 3), [(1, True, "")], {}, False),
        ((1, 2, 3), [(1, True, ""), (3, True, "")], {}, True),
        ((1, 2, 3), [(1, True, ""), (1, True, "")], {}, False),
        ((1, 2, 3), [(1, True, ""), (9, True, "")], {}, False),
        ((1, 2, 3), [(1, True, ""), (2, True, ""), (2, False, "")], {}, False),
        ((1, 2, 3), [(1, True, ""), (2, True, ""), (3, False, "legal")], {"veto_role": "legal"}, False),
        ((1, 2, 3), [(1, True, ""), (2, True, ""), (3, False, "sales")], {"veto_role": "legal"}, True),
        ((), [], {}, False),
    ],
)
def test_who_has_to_agree(strategy: Any, asked: Any, given: Any, settings: Any, may: bool) -> None:
    words = tuple(Approval(who, granted, NOW, role) for who, granted, role in given)
    assert strategy.can_proceed(Approvals(asked, words, NOW, settings)) is may


@pytest.mark.parametrize(
    ("came", "today", "told", "is_true"),
    [
        ("2025-01-03", date(2026, 1, 1), {"days": 7}, True),
        ("2025-01-03", date(2026, 1, 1), {}, False),
        ("2025-01-01", date(2026, 1, 1), {}, True),
        ("2026-01-01", date(2026, 1, 1), {}, False),
        ("2025-01-03", date(2025, 12, 30), {"days": 7}, True),
        ("2024-02-29", date(2026, 2, 28), {}, True),
    ],
)
def test_the_day_comes_round_again(condition: Any, came: str, today: date, told: Any, is_true: bool) -> None:
    assert condition.evaluate(ConditionContext(told, {"created_at": f"{came}T08:00:00.000000Z"}, today)) is is_true


def test_a_big_purchase_goes_off_for_its_lead(trigger: Any) -> None:
    (firing,) = trigger.fire(purchase(amount_minor=10_000))
    assert (firing.key, firing.lead_id, firing.data) == ("e1", 7, {"amount_minor": 10_000})
    small = [purchase(amount_minor=9_999), purchase(amount_minor="much"), purchase(amount_minor=True), purchase()]
    assert [list(trigger.fire(each)) for each in small] == [[]] * 4
    (firing,) = trigger.fire(replace(purchase(amount_minor=50), settings={"big_purchase_minor": 50}))
    assert firing.lead_id == 7


def test_what_a_campaign_brought_in_for_each_it_reached(metric: Any) -> None:
    assert metric.calculate(Figures(NOW, {"accepted": 4}, cost_minor=100, revenue_minor=300)) == 50.0
    assert metric.calculate(Figures(NOW, {}, cost_minor=100)) is None
