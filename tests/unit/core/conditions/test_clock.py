from datetime import UTC, date, datetime

import pytest

from nexus_marketing.core.conditions import Clock, ClockKind, Evaluation
from nexus_marketing.core.conditions.clock import start_of_day

pytestmark = pytest.mark.req("FR-P2-003")
MOMENT = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
TODAY, LOCAL = Clock(ClockKind.TODAY), Clock(ClockKind.LOCAL_TODAY)


def test_a_naive_clock_is_refused():
    with pytest.raises(ValueError, match="aware"):
        Evaluation(datetime(2026, 1, 1))  # noqa: DTZ001


def test_today_is_the_date_in_the_zone():
    assert Evaluation(MOMENT).today == date(2026, 3, 28)
    assert Evaluation(MOMENT, "Europe/Berlin").today == date(2026, 3, 29)
    assert Evaluation(MOMENT, "Europe/Berlin").instant(TODAY) == datetime(2026, 3, 28, 23, tzinfo=UTC)


def test_the_local_date_falls_back_to_the_evaluation():
    evaluation = Evaluation(MOMENT, "Europe/Berlin")
    assert evaluation.local_day(LOCAL, "America/New_York") == date(2026, 3, 28)
    for zone in (None, "", "Mars/Olympus", "../etc/passwd"):
        assert evaluation.local_day(LOCAL, zone) == date(2026, 3, 29)


def test_zones_are_grouped_by_their_date():
    groups = Evaluation(MOMENT).zones_by_date(LOCAL, ["Europe/Berlin", "UTC", "Mars/Olympus", "Asia/Kolkata"])
    assert groups == {date(2026, 3, 29): ("Asia/Kolkata", "Europe/Berlin"), date(2026, 3, 28): ("UTC",)}


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
@pytest.mark.parametrize("seconds", [0, 36_525 * 86_400, -36_525 * 86_400])
def test_the_ends_of_the_calendar_are_not_passed(moment, seconds):
    evaluation = Evaluation(moment, "Pacific/Auckland")
    for kind in ClockKind:
        clock = Clock(kind, seconds)
        assert evaluation.instant(clock).year in range(1, 10_000)
        assert evaluation.local_day(clock, "America/New_York").year in range(1, 10_000)


def test_a_day_without_midnight_starts_after_the_gap():
    assert start_of_day(date(2018, 11, 4), "America/Sao_Paulo") == datetime(2018, 11, 4, 3, tzinfo=UTC)
