"""How long a timer that failed waits."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.timers import MAX_ATTEMPTS, retry_after

pytestmark = pytest.mark.req("FR-P3-006")


@given(st.integers(1, MAX_ATTEMPTS - 1), st.integers())
def test_the_pause_doubles_up_to_two_hours_and_is_never_nothing(attempts: int, seed: int) -> None:
    pause = retry_after(attempts, random.Random(seed))
    assert pause is not None
    bound = min(10.0 * 2 ** (attempts - 1), 7_200.0)
    assert 0.1 * bound <= pause.total_seconds() <= bound


def test_the_last_attempt_has_no_next() -> None:
    assert retry_after(MAX_ATTEMPTS, random.Random(0)) is None
