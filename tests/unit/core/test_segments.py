"""Pure parts of segments: names, order, estimates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.segments import estimated, is_touched, levels, names_changed

pytestmark = pytest.mark.req("FR-P2-012", "US-012")


@given(st.integers(1, 5_000), st.data())
def test_an_interval_holds_its_middle_and_lies_within_all(sampled, data):
    total = data.draw(st.integers(sampled, 10**7))
    hits = data.draw(st.integers(0, sampled))
    found = estimated(hits, sampled, total, "cheap")
    assert 0 <= found.low <= found.count <= found.high <= total


@given(st.integers(1, 2_000))
def test_more_leads_say_it_more_exactly(sampled):
    def width(n):
        found = estimated(n // 2, n, 10**6, "cheap")
        return found.high - found.low

    assert width(sampled * 4) < width(sampled)


@given(st.dictionaries(st.integers(1, 12), st.sets(st.integers(1, 12), max_size=2), max_size=8))
def test_segments_come_after_those_they_read(reads):
    try:
        found = levels(reads)
    except ValidationError:
        return
    place = {each: number for number, level in enumerate(found) for each in level}
    assert place.keys() == reads.keys()
    assert all(place[read] < place[each] for each, seen in reads.items() for read in seen if read in reads)


def test_a_circle_is_named():
    with pytest.raises(ValidationError, match=r"1 -> 2 -> 1|2 -> 1 -> 2"):
        levels({1: [2], 2: [1]})


def test_a_change_of_a_field_touches_its_readers_only():
    changed = names_changed(["email", "metadata"], ["plan"])
    assert is_touched(["email_norm"], changed)
    assert is_touched(["metadata.plan", "score"], changed)
    assert not is_touched(["metadata.colour", "score"], changed)
    assert is_touched([], ["*"])
