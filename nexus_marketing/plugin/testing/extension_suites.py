"""The suites of what plugins add beside channels and storages: classes to inherit from (pytest).

Each needs one fixture, named after what it tries, and takes samples of what it will be given from another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from nexus_marketing.core.conditions import Evaluation, compile_predicate, lead_schema, parse_json
from nexus_marketing.core.extensions import (
    Action,
    ActionCall,
    ActionOutcome,
    ActionResult,
    Approval,
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
from nexus_marketing.plugin.conformity import missing_parts
from nexus_marketing.plugin.examination import faults_of
from nexus_marketing.plugin.manifests import Capability

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class ActionConformance:
    """Holds an action against its contract; ``call`` may answer a call that succeeds."""

    @pytest.fixture
    def call(self) -> ActionCall:
        """A call that it can do."""
        return ActionCall(tenant_id=1, key="a", now=_NOW, lead_id=2, campaign_id=3)

    def test_it_has_every_part_of_the_contract(self, action: Action) -> None:
        assert missing_parts(Action, action) == []
        assert faults_of(Capability.ACTION, action) == []

    def test_it_answers_what_became_of_a_call(self, action: Action, call: ActionCall) -> None:
        outcome = action.run(call)
        assert isinstance(outcome, ActionOutcome)
        assert outcome.result is ActionResult.DONE

    def test_a_second_attempt_of_a_call_succeeds_as_the_first(self, action: Action, call: ActionCall) -> None:
        assert action.run(call).result is action.run(replace(call, now=call.now + timedelta(seconds=5))).result


class TriggerConformance:
    """Holds a trigger against its contract; ``occasions`` may answer some that set it off."""

    @pytest.fixture
    def occasions(self, trigger: Trigger) -> Sequence[Occasion]:
        """One of each kind that it wants to be asked about."""
        return [Occasion(1, OccasionKind(kind), "sample", "key", _NOW) for kind in sorted(trigger.kinds)]

    def test_it_has_every_part_of_the_contract(self, trigger: Trigger) -> None:
        assert missing_parts(Trigger, trigger) == []
        assert faults_of(Capability.TRIGGER, trigger) == []

    def test_what_goes_off_has_a_key_each(self, trigger: Trigger, occasions: Sequence[Occasion]) -> None:
        for occasion in occasions:
            firings = trigger.fire(occasion)
            assert all(type(firing) is Firing and firing.key for firing in firings)
            assert len({firing.key for firing in firings}) == len(firings)

    def test_an_occasion_told_twice_sets_off_the_same(self, trigger: Trigger, occasions: Sequence[Occasion]) -> None:
        for occasion in occasions:
            assert list(trigger.fire(occasion)) == list(trigger.fire(occasion))


#: What a field may hold, whatever it is called: nobody holds metadata to a type.
_ODD_VALUES: Final[tuple[Any, ...]] = (
    0, -1, 2**53 - 1, 1.5, 1e300, True, False, "", "x", "İ", "12", "2026-02-30", "2026-01-01", "2026-01-01T00:00:00.000000Z",
    "x" * 5_000, [], ["x", 1, None], {}, {"x": {"y": []}},
)  # fmt: skip


class ConditionConformance:
    """Holds a condition against its contract; ``arguments`` and ``leads`` may answer more that matters to it."""

    @pytest.fixture
    def arguments(self) -> Sequence[Mapping[str, Any]]:
        """What it may be told, by name: to be written where something is required."""
        return [{}]

    @pytest.fixture
    def leads(self) -> Sequence[Mapping[str, Any]]:
        """What it reads of some leads, by name, as a record of the product has it."""
        return []

    @pytest.fixture
    def contexts(
        self, condition: ConditionEvaluator, arguments: Sequence[Mapping[str, Any]], leads: Sequence[Mapping[str, Any]]
    ) -> Sequence[ConditionContext]:
        """Leads of whom nothing is known, of whom odd things are, and those of ``leads``; on two days."""
        odd = [{name: value} for name in sorted(condition.reads) for value in _ODD_VALUES]
        odd += [dict.fromkeys(condition.reads, value) for value in _ODD_VALUES]
        days = (_NOW.date(), _NOW.date().replace(year=2028, month=2, day=29))
        return [ConditionContext(told, each, day) for told in arguments for each in [{}, *odd, *leads] for day in days]

    def test_it_has_every_part_of_the_contract(self, condition: ConditionEvaluator) -> None:
        assert missing_parts(ConditionEvaluator, condition) == []
        assert faults_of(Capability.CONDITION, condition) == []

    def test_its_arguments_are_those_it_declares(
        self, condition: ConditionEvaluator, arguments: Sequence[Mapping[str, Any]]
    ) -> None:
        required = {each.name for each in condition.parameters if each.is_required}
        for told in arguments:
            assert required <= told.keys() <= {each.name for each in condition.parameters}

    def test_it_answers_true_or_false_whatever_a_lead_is(
        self, condition: ConditionEvaluator, contexts: Sequence[ConditionContext]
    ) -> None:
        for context in contexts:
            assert type(condition.evaluate(context)) is bool, context

    def test_the_same_lead_has_the_same_answer(
        self, condition: ConditionEvaluator, contexts: Sequence[ConditionContext]
    ) -> None:
        first = [condition.evaluate(context) for context in contexts]
        assert [condition.evaluate(context) for context in reversed(contexts)] == first[::-1]

    def test_only_one_that_reads_the_clock_changes_its_mind_with_the_day(
        self, condition: ConditionEvaluator, contexts: Sequence[ConditionContext]
    ) -> None:
        if not condition.reads_clock:
            for context in contexts:
                later = replace(context, today=context.today + timedelta(days=400))
                assert condition.evaluate(later) is condition.evaluate(context), context

    def test_what_it_says_of_itself_in_the_language_is_what_it_answers(
        self, condition: ConditionEvaluator, contexts: Sequence[ConditionContext]
    ) -> None:
        to_sql = getattr(condition, "to_sql", None)
        if to_sql is None:
            return  # Python alone answers it
        for context in contexts:
            schema = lead_schema()
            tree = parse_json(to_sql(context.arguments), schema)
            record = _record({schema.resolve(name).path: value for name, value in context.values.items()})
            now = datetime.combine(context.today, _NOW.timetz())
            assert compile_predicate(tree, schema, once=True)(record, Evaluation(now)) is condition.evaluate(context)


def _record(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """A lead's record with values at the ends of paths."""
    record: dict[str, Any] = {}
    for (*ways, last), value in sorted(values.items(), key=lambda each: each[0]):
        inner: Any = record
        for key in ways:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict):
            inner[last] = value
    return record


class MetricConformance:
    """Holds a metric against its contract; ``figures`` may answer more."""

    @pytest.fixture
    def figures(self) -> Sequence[Figures]:
        """Of a campaign that has not begun, of one that went well, and of one that nobody answered."""
        well = {"planned": 100, "accepted": 98, "opened": 40, "clicked": 12, "unsubscribed": 1, "converted": 3}
        return [
            Figures(_NOW, {}),
            Figures(_NOW, well, cost_minor=5_000, revenue_minor=12_000, currency="EUR"),
            Figures(_NOW, {"planned": 100, "accepted": 100}, cost_minor=1),
        ]

    def test_it_has_every_part_of_the_contract(self, metric: MetricCalculator) -> None:
        assert missing_parts(MetricCalculator, metric) == []
        assert faults_of(Capability.METRIC, metric) == []

    def test_it_answers_a_number_or_nothing(self, metric: MetricCalculator, figures: Sequence[Figures]) -> None:
        for each in figures:
            value = metric.calculate(each)
            assert type(value) in (int, float, type(None))
            assert value is None or abs(value) < float("inf")

    def test_the_same_figures_have_the_same_value(self, metric: MetricCalculator, figures: Sequence[Figures]) -> None:
        for each in figures:
            assert metric.calculate(each) == metric.calculate(each)


class ApprovalStrategyConformance:
    """Holds an approval strategy against its contract."""

    def test_it_has_every_part_of_the_contract(self, strategy: ApprovalStrategy) -> None:
        assert missing_parts(ApprovalStrategy, strategy) == []
        assert faults_of(Capability.APPROVAL_STRATEGY, strategy) == []

    def test_it_waits_while_nobody_said_anything(self, strategy: ApprovalStrategy) -> None:
        assert strategy.can_proceed(Approvals((1, 2, 3), (), _NOW)) is False

    def test_it_never_proceeds_where_all_refuse(self, strategy: ApprovalStrategy) -> None:
        assert strategy.can_proceed(said(3, is_granted=False)) is False

    def test_it_proceeds_where_all_agree(self, strategy: ApprovalStrategy) -> None:
        assert strategy.can_proceed(said(3, is_granted=True)) is True

    def test_the_same_words_have_the_same_answer(self, strategy: ApprovalStrategy) -> None:
        for granted in (True, False):
            assert strategy.can_proceed(said(2, granted)) is strategy.can_proceed(said(2, granted))


def said(count: int, is_granted: bool) -> Approvals:  # noqa: FBT001 - it is the whole point of the call
    """So many people were asked and all said the same."""
    asked = tuple(range(1, count + 1))
    return Approvals(asked, tuple(Approval(each, is_granted, _NOW) for each in asked), _NOW + timedelta(hours=1))
