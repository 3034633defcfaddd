"""When a campaign is escalated: the rules of levels, cool-downs, samples and acknowledgement."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.escalation import EscalationTerms, Raised, decide

pytestmark = pytest.mark.req("US-020", "FR-P3-001")

BEGUN = datetime(2026, 3, 2, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return BEGUN + hours * HOUR


def look(rules, hours, raised=(), holding=None, since=None, **options):
    holding = {rule.index for rule in rules} if holding is None else holding
    return decide(rules, list(raised), holding, since or {}, BEGUN, at(hours), **options)


class TestOneRule:
    RULES = (EscalationTerms(0, 1, 24 * HOUR, minimum=100),)

    def test_it_acts_after_its_time_over_enough_messages_where_its_condition_holds(self):
        assert look(self.RULES, 23.9, sample=100).acts == ()
        assert look(self.RULES, 24, sample=99).acts == ()
        assert look(self.RULES, 24, sample=100, holding=()).acts == ()
        assert look(self.RULES, 24, sample=100).acts == (0,)

    def test_nothing_is_looked_at_before_its_time(self):
        assert look(self.RULES, 0).look_at == at(24)

    def test_it_acts_again_only_when_somebody_has_seen_it_and_the_cool_down_is_over(self):
        once = Raised(1, at(24))
        seen = Raised(1, at(24), at(25))
        assert look(self.RULES, 100, [once], sample=100).acts == ()
        assert look(self.RULES, 47, [seen], sample=100).acts == ()
        assert look(self.RULES, 48, [seen], sample=100).acts == (0,)

    def test_a_campaign_that_ended_is_looked_at_for_a_week(self):
        ended = {"sample": 100, "ended_at": at(2)}
        assert look(self.RULES, 24, **ended).acts == (0,)
        assert look(self.RULES, 24, **ended).look_at is not None
        assert look(self.RULES, 24 * 8 + 1, **ended).look_at is None


class TestHolding:
    RULES = (EscalationTerms(0, 1, HOUR, hold_for=2 * HOUR),)

    def test_the_condition_has_to_hold_without_a_break(self):
        first = look(self.RULES, 1)
        assert (first.acts, first.since) == ((), {0: at(1)})
        assert look(self.RULES, 3, since=first.since).acts == (0,)
        broken = look(self.RULES, 2, since=first.since, holding=())
        assert broken.since == {}
        assert look(self.RULES, 3, since=broken.since).acts == ()

    def test_it_is_looked_at_when_it_may_have_held_long_enough(self):
        assert look(self.RULES, 2.99, since={0: at(1)}).look_at == at(3)


class TestLevels:
    RULES = (EscalationTerms(0, 1, HOUR), EscalationTerms(1, 1, HOUR), EscalationTerms(2, 2, 2 * HOUR))

    def test_one_action_a_level_and_the_next_only_while_nobody_has_seen_it(self):
        assert look(self.RULES, 3).acts == (0,)
        assert look(self.RULES, 3, holding={1, 2}).acts == (1,)
        assert look(self.RULES, 3, holding={2}).acts == ()
        assert look(self.RULES, 3, [Raised(1, at(1))]).acts == (2,)
        assert look(self.RULES, 1.5, [Raised(1, at(1))]).acts == ()
        assert look(self.RULES, 3, [Raised(1, at(1), at(2))]).acts == ()
        assert look(self.RULES, 3, [Raised(1, at(1)), Raised(2, at(2))]).acts == ()


TERMS = st.builds(
    EscalationTerms,
    st.just(0),
    st.integers(1, 3),
    st.integers(0, 48).map(lambda n: n * HOUR),
    st.integers(0, 6).map(lambda n: n * HOUR),
    st.integers(0, 5),
    st.integers(0, 48).map(lambda n: n * HOUR),
)


@given(
    st.lists(TERMS, min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0.1, 12), st.sets(st.integers(0, 3)), st.booleans()), max_size=30),
)
def test_whatever_happens_no_level_acts_twice_unseen_nor_out_of_turn(made, looks):
    rules = [EscalationTerms(i, r.level, r.after, r.hold_for, r.minimum, r.cool_down) for i, r in enumerate(made)]
    lowest = min(rule.level for rule in rules)
    raised: list[Raised] = []
    since: dict[int, datetime] = {}
    now = BEGUN
    for hours, holding, is_seen in looks:
        now += hours * HOUR
        if is_seen:
            raised = [Raised(each.level, each.at, each.acknowledged_at or now) for each in raised]
        decision = decide(rules, raised, holding, since, BEGUN, now, sample=3)
        assert decision.look_at is not None
        assert decision.look_at > now
        assert len(decision.acts) <= 1
        for index in decision.acts:
            rule = rules[index]
            own = [each for each in raised if each.level == rule.level]
            assert index in holding
            assert rule.minimum <= 3
            assert now >= BEGUN + rule.after
            assert now >= decision.since[index] + rule.hold_for
            assert all(each.acknowledged_at is not None and now >= each.at + rule.cool_down for each in own)
            if rule.level != lowest:
                assert any(each.level < rule.level and each.acknowledged_at is None for each in raised)
            raised.append(Raised(rule.level, now))
        since = dict(decision.since)
