from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.privacy import (
    CONSENT_COUNTRIES,
    ConsentEvent,
    ConsentPolicy,
    ConsentState,
    consent_needed,
    consent_state,
    is_suppressed,
)

pytestmark = pytest.mark.req("BR-011", "BR-012")
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("country", "policy", "needed"),
    [
        ("DE", "eu", True),
        ("de", "eu", True),
        ("NO", "eu", True),
        ("GB", "eu", True),
        ("RE", "eu", True),
        ("US", "eu", False),
        ("TR", "eu", False),
        (None, "eu", True),
        ("", "eu", True),
        ("US", "always", True),
        (None, "never", False),
        ("DE", "never", False),
    ],
)
def test_consent_is_needed_where_the_law_asks_for_it_and_where_nobody_knows(country, policy, needed):
    assert consent_needed(country, ConsentPolicy(policy)) is needed


def test_all_members_of_the_union_and_the_economic_area_are_there():
    members = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK IS LI NO"
    assert set(members.split()) <= CONSENT_COUNTRIES


def act(day: int, number: int, *, granted: bool, ends: int | None = None) -> ConsentEvent:
    at = NOW + timedelta(days=day)
    expires_at = None if ends is None else NOW + timedelta(days=ends)
    return ConsentEvent(at, number, at if granted else None, None if granted else at, expires_at)


def test_nobody_who_never_said_anything_has_a_state():
    assert consent_state([], NOW) is None


def test_the_newest_act_counts_and_of_equal_times_the_one_written_last():
    yes, no = act(-2, 1, granted=True), act(-1, 2, granted=False)
    assert consent_state([yes, no], NOW) is ConsentState.REVOKED
    assert consent_state([act(-3, 3, granted=True), no], NOW) is ConsentState.REVOKED
    assert consent_state([act(-1, 1, granted=True), no], NOW) is ConsentState.REVOKED
    assert consent_state([no, act(-1, 3, granted=True)], NOW) is ConsentState.GRANTED


def test_consent_is_over_at_the_moment_it_expires():
    assert consent_state([act(-9, 1, granted=True, ends=0)], NOW) is ConsentState.EXPIRED
    assert consent_state([act(-9, 1, granted=True, ends=1)], NOW) is ConsentState.GRANTED


ACTS = st.builds(
    act, st.integers(-5, 0), st.integers(1, 50), granted=st.booleans(), ends=st.sampled_from([None, -1, 5])
)


@given(st.lists(ACTS, unique_by=lambda each: each.id, max_size=8), st.randoms())
def test_the_state_does_not_depend_on_the_order_in_which_acts_are_read(acts, rng):
    shuffled = list(acts)
    rng.shuffle(shuffled)
    assert consent_state(acts, NOW) is consent_state(shuffled, NOW)


@given(st.lists(ACTS, unique_by=lambda each: each.id, max_size=8))
def test_a_withdrawal_now_always_wins(acts):
    assert consent_state([*acts, act(0, 99, granted=False)], NOW) is ConsentState.REVOKED


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), unique_by=lambda each: each[0]))
def test_the_last_word_decides_about_a_suppression(events):
    assert is_suppressed(events) is (dict(events)[max(dict(events))] if events else False)
