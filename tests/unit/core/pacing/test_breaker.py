"""A send stops itself by ratios, with a minimum sample, over what it saw last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.pacing.breaker import (
    MAX_BOUNCED,
    MAX_FAILED,
    MIN_FAILED,
    MIN_SAMPLE,
    WINDOW,
    Breaker,
    Verdict,
)

pytestmark = pytest.mark.req("REL-002", "REL-006")


def after(*verdicts: Verdict, breaker: Breaker | None = None) -> Breaker:
    breaker = breaker or Breaker()
    for verdict in verdicts:
        breaker.saw(verdict)
    return breaker


def test_a_small_list_of_bad_addresses_says_nothing():
    assert after(*[Verdict.BOUNCED] * (MIN_SAMPLE - 1)).tripped is None
    assert after(*[Verdict.BOUNCED] * MIN_SAMPLE).tripped.startswith("too_many_bounces: 200 of the last 200")


def test_the_bound_itself_is_allowed():
    good, bad = [Verdict.GOOD] * 190, [Verdict.BOUNCED]
    assert after(*good, *bad * 10).tripped is None
    assert after(*good, *bad * 11).tripped is not None
    assert after(*good, *bad * 30, breaker=Breaker(max_bounced=0.2)).tripped is None


def test_what_is_long_ago_is_forgotten():
    assert after(*[Verdict.BOUNCED] * 100, *[Verdict.GOOD] * WINDOW).tripped is None


def test_a_server_that_takes_nothing():
    assert after(*[Verdict.FAILED] * (MIN_FAILED - 1)).tripped is None
    assert after(*[Verdict.FAILED] * MIN_FAILED).tripped.startswith("too_many_errors")
    assert after(*[Verdict.GOOD, Verdict.FAILED] * 300).tripped is None


@given(st.lists(st.sampled_from(list(Verdict)), max_size=3 * WINDOW))
def test_it_trips_by_the_shares_of_the_last_ones(verdicts):
    last = verdicts[-WINDOW:]
    bounced, failed = last.count(Verdict.BOUNCED), last.count(Verdict.FAILED)
    expected = (len(last) >= MIN_SAMPLE and bounced > MAX_BOUNCED * len(last)) or (
        failed >= MIN_FAILED and failed > MAX_FAILED * len(last)
    )
    assert (after(*verdicts).tripped is not None) is expected
