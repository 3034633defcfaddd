"""How wide a window is."""

import pytest

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.delivery.pace import MAX_WINDOW, Pace

pytestmark = pytest.mark.req("REL-001", "REL-006")


@pytest.mark.parametrize(
    ("message_class", "per_second", "width"),
    [
        (MessageClass.MARKETING, 100, 8),
        (MessageClass.MARKETING, 5_000, 50),
        (MessageClass.MARKETING, 50_000, MAX_WINDOW),
        (MessageClass.TRANSACTIONAL, 50_000, 8),
    ],
)
def test_a_window_holds_ten_milliseconds_of_messages_within_bounds(message_class, per_second, width):
    pace = Pace()
    pace.saw(per_second, 1.0)
    assert pace.window(8, message_class) == width


def test_a_slow_disk_makes_no_window_narrow():
    pace = Pace()
    pace.saw(1_000, 1.0, 0.75)
    assert (pace.rate, pace.wire_rate) == (1_000, 4_000)
    assert pace.window(8, MessageClass.MARKETING) == 40


def test_a_window_that_only_waited_teaches_nothing():
    pace = Pace()
    pace.saw(100, 1.0, 1.0)
    assert (pace.rate, pace.wire_rate) == (0, 0)
