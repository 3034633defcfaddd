"""Plans of new senders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.warm_up import DayFigures, WarmUp, check_warm_ups, warm_ups_of

pytestmark = pytest.mark.req("FR-P3-012", "SCL-004")
PLAN = WarmUp("news@acme.example", (50, 100, 1000))


@pytest.mark.parametrize(
    ("step", "figures", "after"),
    [
        (0, DayFigures(50, 0, 0), 1),
        (0, DayFigures(25, 0, 0), 1),
        (0, DayFigures(24, 0, 0), 0),
        (0, DayFigures(0, 0, 0), 0),
        (1, DayFigures(100, 3, 0), 2),
        (1, DayFigures(100, 4, 0), 1),
        (2, DayFigures(1000, 0, 1), 3),
        (2, DayFigures(1000, 0, 2), 2),
        (3, DayFigures(90_000, 9_000, 900), 3),
    ],
)
def test_a_day_counts_that_was_used_and_good(step, figures, after):
    assert PLAN.after(step, figures) == after


def test_a_plan_that_is_through_limits_nothing():
    assert [PLAN.limit(step) and PLAN.limit(step).count for step in range(4)] == [50, 100, 1000, None]


@given(st.integers(1, 5000), st.integers(0, 3), st.integers(0, 86_399), st.booleans())
def test_the_forecast_is_what_the_days_allow(count, step, day_seconds, is_marketing):
    """By the hour of the day at which it begins: the next day allows more at midnight, but the last 24 hours count."""
    daily = [each * 9 // 10 if is_marketing else each for each in PLAN.daily]
    seconds, burst = PLAN.last_burst(count, step, day_seconds, is_marketing=is_marketing)
    midnights = [day * 86_400 - day_seconds for day in range(1, len(daily) - step + 1)]
    # At the end of the plan the rest leaves; by then the window of 24 hours was never over what its day allows.
    assert seconds <= (midnights[-1] if midnights else 0.0)
    assert 1 <= burst <= count
    if step < len(daily):
        assert (seconds == 0.0) is (count <= daily[step])
        passed = sum(seconds >= midnight for midnight in midnights)
        assert count <= sum(daily[step : step + passed + 1]) or step + passed == len(daily)


@pytest.mark.parametrize(
    ("value", "place", "code"),
    [
        ({}, "", "not_a_list"),
        ([{"daily": [50]}], "[0].sender", "missing"),
        ([{"sender": "news", "daily": [50]}], "[0].sender", "not_an_address"),
        ([{"sender": "a@b.example"}], "[0].daily", "not_counts"),
        ([{"sender": "a@b.example", "daily": [50, "100"]}], "[0].daily", "not_counts"),
        ([{"sender": "a@b.example", "daily": [100, 50]}], "[0].daily", "not_growing"),
        ([{"sender": "a@b.example", "daily": [50], "max_bounced": 5}], "[0].max_bounced", "not_a_share"),
        ([{"sender": "a@b.example", "days": [50]}], "[0].days", "unknown_key"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_place(value, place, code):
    with pytest.raises(ValidationError) as caught:
        check_warm_ups(value)
    assert [(each.path, each.code) for each in caught.value.problems] == [(place, code)]


def test_what_is_a_plan_is_read_back():
    written = check_warm_ups([{"sender": "News@Acme.example", "daily": [50, 100, 1000]}])
    assert warm_ups_of({"warm_up": written}) == (PLAN,)
    assert warm_ups_of({}) == ()
