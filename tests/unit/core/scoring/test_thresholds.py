"""A crossing is told once, and the band between the two edges tells nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.scoring import Mark
from nexus_marketing.core.scoring.thresholds import Threshold, cross, settle

pytestmark = pytest.mark.req("FR-P2-010")

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOT = Threshold("hot", 80, 75)


NOWHERE = Mark()


def told(threshold, scores, mark=NOWHERE, step=HOUR):
    found, before = [], 0.0
    for number, score in enumerate(scores):
        mark, crossing, _ = cross(threshold, mark, before, score, NOW + number * step)
        before = score
        if crossing:
            found.append((crossing.direction, crossing.before, crossing.after))
    return found, mark


def test_up_at_eighty_down_below_seventy_five():
    found, _ = told(HOT, [79, 80, 76, 75, 85, 74.9, 79, 80])
    assert found == [("up", 79, 80), ("down", 85, 74.9), ("up", 79, 80)]


def test_without_a_band_one_number_is_the_edge():
    assert [each[0] for each in told(Threshold("x", 10, 10), [10, 9.9, 10])[0]] == ["up", "down", "up"]


def test_within_the_cooldown_a_crossing_waits_and_is_told_with_the_score_it_began_from():
    slow = Threshold("hot", 80, 75, 3 * HOUR)
    mark, crossing, wait = cross(slow, Mark(), 0, 90, NOW)
    assert crossing is not None
    mark, crossing, wait = cross(slow, mark, 90, 10, NOW + HOUR)
    assert (crossing, wait) == (None, NOW + 3 * HOUR)
    mark, crossing, wait = cross(slow, mark, 10, 10, NOW + 3 * HOUR)
    assert (crossing.direction, crossing.before, crossing.after, wait) == ("down", 90, 10, None)


def test_a_crossing_that_was_undone_within_the_cooldown_is_none():
    slow = Threshold("hot", 80, 75, 3 * HOUR)
    found, mark = told(slow, [90, 10, 90, 90, 90])
    assert [each[0] for each in found] == ["up"]
    assert mark.waits_from is None


def test_settling_tells_nothing_and_the_next_crossing_is_seen_from_there():
    mark = settle(HOT, Mark(), 85)
    assert mark.above
    assert told(HOT, [85, 70], mark)[0] == [("down", 85, 70)]


def test_marks_survive_being_stored():
    for mark in (Mark(), Mark(True, NOW, 3.5)):
        assert Mark.of(mark.kept()) == mark


@given(
    st.lists(st.floats(0, 100), max_size=60),
    st.integers(0, 5),
    st.floats(0, 100),
    st.floats(0, 40),
)
def test_crossings_alternate_and_nothing_is_told_twice(scores, cooldown, up, band):
    threshold = Threshold("x", up, up - band, cooldown * HOUR)
    found, mark = told(threshold, [*scores, *(scores[-1:] * 6)])
    directions = [each[0] for each in found]
    assert directions == ["up", "down"] * (len(directions) // 2) + ["up"] * (len(directions) % 2)
    # Once the score rests for as long as the cooldown, what was told last is where it is.
    if scores:
        above = scores[-1] >= (threshold.down if mark.above else threshold.up)
        assert mark.above == above
