"""What a forecast says of rates is what the rates let through."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.accounts import Account, carrying
from nexus_marketing.core.pacing.capacity import Capacity, Fork, Steps
from nexus_marketing.core.pacing.rates import Given, RateLimit, grant

pytestmark = pytest.mark.req("FR-P2-004", "FR-P3-012")
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
LIMITS = st.lists(
    st.builds(
        RateLimit, st.integers(1, 40), st.sampled_from([1, 7, 60, 90, 600, 3600]).map(lambda s: timedelta(seconds=s))
    ),
    max_size=3,
)


def really(count: int, limits: list[RateLimit], accounts: list[list[RateLimit]], *, is_marketing: bool) -> float:
    """When the last leaves if grants are asked for as soon as there may be any, by the limiter itself."""
    given: list[Given] = []
    own: list[list[Given]] = [[] for _ in accounts]
    now = BEGIN
    while True:
        for path, used in zip(accounts or [[]], own or [[]], strict=True):
            both = [*limits, *path]
            common = grant(limits, given, [None] * count, now, is_marketing=is_marketing).count if limits else count
            free = grant(path, used, [None] * count, now, is_marketing=is_marketing).count if path else count
            taken = min(common, free) if both else count
            if taken:
                given.append(Given(now, taken))
                used.append(Given(now, taken))
                count -= taken
            if not count:
                return (now - BEGIN).total_seconds()
        moments = [each.at + limit.reach for limit in limits for each in given]
        moments += [
            each.at + limit.reach for path, used in zip(accounts, own, strict=True) for limit in path for each in used
        ]
        now = min(moment for moment in moments if moment > now)


@given(st.integers(1, 150), LIMITS, st.lists(LIMITS, max_size=3), st.booleans())
def test_it_is_what_the_limiter_gives(count, limits, accounts, is_marketing):
    paths = [Steps.of(path, is_marketing=is_marketing) for path in accounts]
    said = Capacity(paths, Steps.of(limits, is_marketing=is_marketing)).seconds_for(count)
    tolerance = max((limit.reach.total_seconds() for path in [limits, *accounts] for limit in path), default=0.0)
    if len(accounts) < 2 and len(limits) < 2:
        tolerance = 0.01  # exact but for the rounding
    assert said == pytest.approx(really(count, limits, accounts, is_marketing=is_marketing), abs=tolerance)


@given(st.integers(1, 200), LIMITS)
def test_windows_over_one_another_are_exact(count, limits):
    said = Capacity((), Steps.of(limits, is_marketing=False)).seconds_for(count)
    real = really(count, limits, [], is_marketing=False)
    shorter = sorted(limit.reach.total_seconds() for limit in limits)[:-1]
    assert real - sum(shorter) - 0.01 <= said <= real + 0.01


def test_what_shares_an_account_is_in_each_others_way():
    """Two domains, each with a rate of one account, and another account for both: four a minute, whichever they go to."""
    one, two = (Steps.of([RateLimit(count, timedelta(minutes=1))], is_marketing=False) for count in (1, 2))
    both = Capacity([Fork([one, one], Steps()), two])
    assert both.seconds_for(16) == 183.0
    assert both.fluid_seconds_for(16) == pytest.approx(12 / 4 * 61)


def test_accounts_that_are_ill_count_only_where_there_is_no_other():
    well, ill = (Account(number, "email", {}, None, 1, (), health, 1) for number, health in ((1, "ok"), (2, "refused")))
    assert carrying([well, ill]) == [well]
    assert carrying([ill]) == [ill]
