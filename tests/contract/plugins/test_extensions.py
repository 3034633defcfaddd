"""The suites of actions, conditions, triggers, metrics and strategies, each on one that holds and on some that do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pytest

from nexus_marketing.plugin import (
    Action,
    ActionCall,
    ActionOutcome,
    ActionResult,
    Approvals,
    ApprovalStrategy,
    ConditionContext,
    ConditionEvaluator,
    Figures,
    Firing,
    MetricCalculator,
    Occasion,
    OccasionKind,
    Trigger,
)
from nexus_marketing.plugin.testing import (
    ActionConformance,
    ApprovalStrategyConformance,
    ConditionConformance,
    MetricConformance,
    TriggerConformance,
)
from tests.common.plugins import Warm

pytestmark = pytest.mark.req("FR-EXT-002", "FR-EXT-003", "FR-EXT-004", "FR-EXT-006", "US-024")


@dataclass
class Tag:
    name: str = "tag"
    done: set[str] = field(default_factory=set)

    def run(self, call: ActionCall) -> ActionOutcome:
        self.done.add(call.key)
        return ActionOutcome(ActionResult.DONE)


class Purchases:
    name = "purchases"
    kinds = frozenset({OccasionKind.EVENT, OccasionKind.WEBHOOK})

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        return [Firing(occasion.key, occasion.data.get("lead_id"))]


class ClickRate:
    name = "click_rate"
    unit = "%"

    def calculate(self, figures: Figures) -> float | None:
        accepted = figures.counts.get("accepted", 0)
        return 100 * figures.counts.get("clicked", 0) / accepted if accepted else None


class Majority:
    name = "majority"

    def can_proceed(self, approvals: Approvals) -> bool:
        return sum(each.is_granted for each in approvals.given) * 2 > len(approvals.asked)


class TestTag(ActionConformance):
    @pytest.fixture
    def action(self) -> Action:
        return Tag()


class TestPurchases(TriggerConformance):
    @pytest.fixture
    def trigger(self) -> Trigger:
        return Purchases()


class TestClickRate(MetricConformance):
    @pytest.fixture
    def metric(self) -> MetricCalculator:
        return ClickRate()


class TestMajority(ApprovalStrategyConformance):
    @pytest.fixture
    def strategy(self) -> ApprovalStrategy:
        return Majority()


class DividesByNothing(ClickRate):
    def calculate(self, figures: Figures) -> float | None:
        return figures.counts["clicked"] / figures.counts["accepted"]


class Eager(Majority):
    def can_proceed(self, approvals: Approvals) -> bool:
        del approvals
        return True


class Forgetful(Purchases):
    def __init__(self) -> None:
        self.count = 0

    def fire(self, occasion: Occasion) -> Sequence[Firing]:
        self.count += 1
        return [Firing(f"{occasion.key}-{self.count}")]


def test_a_metric_that_fails_before_anything_happened_is_seen() -> None:
    with pytest.raises(AssertionError, match="calculate raises KeyError"):
        MetricConformance().test_it_has_every_part_of_the_contract(DividesByNothing())


def test_a_strategy_that_asks_nobody_is_seen() -> None:
    with pytest.raises(AssertionError):
        ApprovalStrategyConformance().test_it_waits_while_nobody_said_anything(Eager())


def test_a_trigger_that_answers_differently_each_time_is_seen() -> None:
    trigger = Forgetful()
    occasions = [Occasion(1, OccasionKind.EVENT, "x", "k", datetime(2026, 1, 1, tzinfo=UTC))]
    with pytest.raises(AssertionError):
        TriggerConformance().test_an_occasion_told_twice_sets_off_the_same(trigger, occasions)


def test_an_action_without_its_method_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"run\(call\)"):
        ActionConformance().test_it_has_every_part_of_the_contract(object())  # type: ignore[arg-type]


class TestWarm(ConditionConformance):
    @pytest.fixture
    def condition(self) -> ConditionEvaluator:
        return Warm()

    @pytest.fixture
    def leads(self) -> Sequence[Mapping[str, Any]]:
        return [{"score": 50}, {"score": 49.5}]


class Falls(Warm):
    def evaluate(self, context: ConditionContext) -> bool:
        return context.values.get("score", 0) >= 50  # text is no number


class SaysOtherwise(Warm):
    def to_sql(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"field": "score", "operator": ">", "value": 50}


class Moody(Warm):
    def evaluate(self, context: ConditionContext) -> bool:
        return context.today.year > 2026


def contexts(**values: Any) -> list[ConditionContext]:
    return [ConditionContext({}, values, date(2026, 1, 1))]


def test_a_condition_that_an_odd_value_brings_down_is_seen() -> None:
    with pytest.raises(TypeError):
        ConditionConformance().test_it_answers_true_or_false_whatever_a_lead_is(Falls(), contexts(score="x"))


def test_a_condition_that_says_of_itself_what_it_is_not_is_seen() -> None:
    suite = ConditionConformance()
    suite.test_what_it_says_of_itself_in_the_language_is_what_it_answers(SaysOtherwise(), contexts(score=51))
    with pytest.raises(AssertionError):
        suite.test_what_it_says_of_itself_in_the_language_is_what_it_answers(SaysOtherwise(), contexts(score=50))


def test_a_condition_that_reads_a_clock_unannounced_is_seen() -> None:
    with pytest.raises(AssertionError):
        suite = ConditionConformance()
        suite.test_only_one_that_reads_the_clock_changes_its_mind_with_the_day(Moody(), contexts())
