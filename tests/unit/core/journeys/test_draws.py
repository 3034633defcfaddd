"""Splits: as large as their weights say, and always the same for the same lead (BR-014)."""

import pytest

from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.draws import BUCKETS, bucket, chance, drawn
from nexus_marketing.core.journeys.nodes import Share

pytestmark = pytest.mark.req("BR-014", "FR-P3-011")

LEADS = 20_000


def test_shares_are_as_large_as_they_say():
    shares = (Share("a", 5_000, "x"), Share("b", 3_333, "y"), Share("c", 1_667, "z"))
    found = [drawn(shares, bucket("", "j", "split", str(lead))).name for lead in range(LEADS)]
    for share in shares:
        expected = share.hundredths / BUCKETS
        tolerance = 4 * (expected * (1 - expected) / LEADS) ** 0.5  # four standard errors
        assert abs(found.count(share.name) / LEADS - expected) < tolerance


def test_every_bucket_belongs_to_one_share():
    shares = (Share("a", 1, "x"), Share("none", 0, "y"), Share("b", 9_999, "z"))
    assert [drawn(shares, number).name for number in (0, 1, 9_999)] == ["a", "b", "b"]
    with pytest.raises(ValueError, match="everything"):
        drawn(shares[:2], 1)


def test_a_lead_stays_where_it_was_unless_the_salt_changes():
    first = [bucket("", "j", "split", str(lead)) for lead in range(1_000)]
    assert first == [bucket("", "j", "split", str(lead)) for lead in range(1_000)]
    for other in (("new", "j", "split"), ("", "k", "split"), ("", "j", "other")):
        same = sum(a == bucket(*other, str(lead)) for lead, a in enumerate(first))
        assert same < 10


def test_chance_is_even():
    found = [chance("seed", str(number)) for number in range(10_000)]
    assert 0 <= min(found) < 0.01
    assert 0.99 < max(found) < 1
    assert abs(sum(found) / len(found) - 0.5) < 0.02


@pytest.mark.parametrize("weights", [(50, 49), (50, 50.01), (100, 1), (33.33, 33.33, 33.33)])
def test_weights_that_are_not_a_hundred_are_refused(weights):
    ways = [{"weight": weight, "to": "end", "name": str(number)} for number, weight in enumerate(weights)]
    with pytest.raises(ValidationError, match="must be exactly 100"):
        read_journey({"id": "j", "nodes": {"a": {"type": "split", "ways": ways}}})
