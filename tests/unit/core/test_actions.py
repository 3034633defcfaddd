"""What follows from the answer of an action, whatever stands in it."""

from datetime import timedelta

import pytest

from nexus_marketing.core.actions import ActionState, judged
from nexus_marketing.core.extensions import ActionOutcome, ActionResult

pytestmark = pytest.mark.req("FR-EXT-001", "REL-005")

PAUSE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [
        (None, PAUSE),
        (5.0, PAUSE),
        (3_600.0, timedelta(hours=1)),
        (1e300, timedelta(days=1)),
        (float("inf"), timedelta(days=1)),
        (float("nan"), PAUSE),
        (-1e300, PAUSE),
    ],
)
def test_it_waits_as_long_as_it_asks_and_no_longer_than_a_day(seconds: float | None, wait: timedelta) -> None:
    verdict = judged(ActionOutcome(ActionResult.TRANSIENT, "later", seconds), PAUSE)
    assert (verdict.state, verdict.again_in) == (ActionState.WAITING, wait)


def test_what_it_says_is_made_fit_for_a_database() -> None:
    """What cannot be written down would have it called again for ever."""
    assert judged(ActionOutcome(ActionResult.DONE, "a\x00b\ud800"), PAUSE).detail == "ab?"
