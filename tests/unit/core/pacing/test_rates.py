"""Send rates: no interval of a window's length ever holds more than it may, over random arrivals and a fake clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.rates import MERGE_AFTER, Given, Grant, RateLimit, check_rates, grant, merged, rates_of

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004")

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
limits = st.builds(RateLimit, st.integers(1, 60), st.timedeltas(SECOND, timedelta(minutes=10)))


def test_what_is_left_is_granted_and_then_nothing_until_it_is_free_again():
    limit = RateLimit(10, 60 * SECOND)
    assert grant([limit], [], 4, NOW, is_marketing=False) == Grant(4)
    given = [Given(NOW - 50 * SECOND, 4), Given(NOW - 10 * SECOND, 5)]
    assert grant([limit], given, 4, NOW, is_marketing=False) == Grant(1)
    given += [Given(NOW, 1)]
    assert grant([limit], given, 4, NOW, is_marketing=False) == Grant(0, 11 * SECOND)
    assert grant([limit], given, 9, NOW + 11 * SECOND, is_marketing=False) == Grant(4)


def test_marketing_leaves_a_tenth_to_those_who_wait_for_their_message():
    limit = RateLimit(20, 60 * SECOND)
    given = [Given(NOW, 18)]
    assert grant([limit], given, 5, NOW, is_marketing=True).count == 0
    assert grant([limit], given, 5, NOW, is_marketing=False).count == 2
    assert grant([RateLimit(1, SECOND)], [], 5, NOW, is_marketing=True).count == 1


def test_every_limit_must_agree_and_the_longest_wait_counts():
    both = [RateLimit(5, SECOND), RateLimit(6, timedelta(hours=1))]
    assert grant(both, [], 9, NOW, is_marketing=False).count == 5
    assert grant(both, [Given(NOW - 5 * SECOND, 5)], 9, NOW, is_marketing=False).count == 1
    full = grant(both, [Given(NOW - 5 * SECOND, 6)], 9, NOW, is_marketing=False)
    assert full == Grant(0, timedelta(hours=1) - 4 * SECOND)


@given(
    limits,
    st.lists(st.tuples(st.timedeltas(timedelta(), 90 * SECOND), st.integers(1, 50), st.floats(0, 1)), max_size=60),
    st.booleans(),
)
def test_no_window_ever_holds_more_than_it_may(limit, arrivals, puts_together):
    """A grant is used somewhere within the slack; workers ask as they come; old grants are put together now and then."""
    now, known, left = NOW, [], []
    slack = limit.reach - limit.per
    for pause, wanted, when in arrivals:
        now += pause
        if puts_together:
            old = [each for each in known if each.at <= now - MERGE_AFTER]
            known = [*merged(old), *known[len(old) :]]
        found = grant([limit], known, wanted, now, is_marketing=False)
        assert 0 <= found.count <= wanted
        if found.count:
            known.append(Given(now, found.count))
            left.append((now + slack * when * 0.999, found.count))
        else:
            assert timedelta() < found.retry_after <= limit.reach
    left.sort()
    for moment, _ in left:
        assert sum(n for at, n in left if moment <= at < moment + limit.per) <= limit.count


@given(limits, st.lists(st.tuples(st.timedeltas(timedelta(), 20 * SECOND), st.integers(1, 50)), max_size=30))
def test_who_comes_back_when_told_gets_something_unless_others_were_first(limit, arrivals):
    now, known = NOW, []
    for pause, wanted in arrivals:
        now += pause
        found = grant([limit], known, wanted, now, is_marketing=False)
        if not found.count:
            now += found.retry_after
            found = grant([limit], known, wanted, now, is_marketing=False)
            assert found.count > 0
        known.append(Given(now, found.count))


@pytest.mark.parametrize(
    ("value", "place", "code"),
    [
        ("14", "", "not_a_list"),
        ([{"per": "1 second"}], "[0].count", "not_a_count"),
        ([{"count": 0, "per": "1 second"}], "[0].count", "not_a_count"),
        ([{"count": 14}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "second"}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "90 days"}], "[0].per", "not_a_span"),
        ([{"count": 14, "every": "1 second"}], "[0].every", "unknown_key"),
        ([{"count": 14, "per": "999999999 weeks"}], "[0].per", "not_a_span"),
        ([{"count": 14, "per": "1 second"}] * 21, "", "too_many"),
    ],
)
def test_what_is_no_rate_is_refused_with_its_place(value, place, code):
    with pytest.raises(ValidationError) as caught:
        check_rates(value)
    assert [(each.path, each.code) for each in caught.value.problems] == [(place, code)]


def test_a_channel_has_its_own():
    written = [{"count": 14, "per": "1 second", "channel": "email"}, {"count": 1000, "per": "1 day"}]
    settings = {"send_rates": check_rates(written)}
    assert rates_of(settings, "email") == (RateLimit(14, SECOND, "email"), RateLimit(1000, timedelta(days=1)))
    assert rates_of(settings, "sms") == (RateLimit(1000, timedelta(days=1)),)
    assert rates_of({}, "sms") == ()
