"""When delays end, over daylight saving, midnights and zones (D06)."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.delays import (
    DaysAt,
    Span,
    UntilDate,
    Weekdays,
    ends_at,
    local_instant,
    read_offset,
)

pytestmark = pytest.mark.req("FR-P3-011", "D06")

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe")
moments = st.datetimes(datetime(2010, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - wanted naive
clocks = st.builds(time, st.integers(0, 23), st.integers(0, 59))


def at(text, zone=BERLIN):
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


@pytest.mark.parametrize(
    ("rule", "arrived", "ends"),
    [
        # A day is 24 hours where it is a span, also over the change of clocks.
        (Span(timedelta(days=1)), "2026-03-28T12:00", "2026-03-29T13:00"),
        # Monday 21:00, "1 day at 09:00": Tuesday 09:00, not Wednesday.
        (DaysAt(1, time(9)), "2026-03-02T21:00", "2026-03-03T09:00"),
        (DaysAt(1, time(9)), "2026-03-02T00:00", "2026-03-03T09:00"),
        (DaysAt(0, time(9)), "2026-03-02T08:00", "2026-03-02T09:00"),
        (DaysAt(2, time(0)), "2026-02-27T23:59", "2026-03-01T00:00"),
        # 29 March 2026: 02:00 is 03:00. What does not exist is the first moment after the gap.
        (DaysAt(1, time(2, 30)), "2026-03-28T12:00", "2026-03-29T03:00"),
        (DaysAt(1, time(2, 0)), "2026-03-28T12:00", "2026-03-29T03:00"),
        (DaysAt(1, time(3, 0)), "2026-03-28T12:00", "2026-03-29T03:00"),
        # Tuesday to Tuesday: strictly after the arrival.
        (Weekdays(frozenset({1}), time(9)), "2026-03-03T09:00", "2026-03-10T09:00"),
        (Weekdays(frozenset({1}), time(9)), "2026-03-03T08:59", "2026-03-03T09:00"),
        (Weekdays(frozenset({0, 4}), time(9)), "2026-03-03T10:00", "2026-03-06T09:00"),
        (Weekdays(frozenset({6}), time(2, 15)), "2026-03-28T10:00", "2026-03-29T03:00"),
    ],
)
def test_a_delay_ends_when_the_clock_there_says(rule, arrived, ends):
    assert ends_at(rule, at(arrived), BERLIN, {}) == at(ends)


def test_an_hour_that_comes_twice_is_the_first():
    twice = ends_at(DaysAt(1, time(2, 30)), at("2026-10-24T12:00"), BERLIN, {})
    assert twice == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_day_that_a_country_left_out_ends_at_once():
    # Samoa had no 30 December 2011: it crossed the date line.
    assert local_instant(date(2011, 12, 30), time(9), ZoneInfo("Pacific/Apia")) == datetime(
        2011, 12, 30, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("value", "rule", "ends"),
    [
        ("2026-06-10T12:00:00.000000Z", {}, "2026-06-10T12:00+00:00"),
        ("2026-06-10T12:00:00Z", {"offset": timedelta(days=-3)}, "2026-06-07T12:00+00:00"),
        ("2026-06-10", {"at": time(9)}, "2026-06-10T07:00+00:00"),
        ("2026-06-10", {}, "2026-06-09T22:00+00:00"),
        (date(2026, 6, 10), {"at": time(9), "offset": timedelta(days=-1, hours=2)}, "2026-06-09T09:00+00:00"),
        # A moment with a time of day is its day there.
        ("2026-06-10T23:30:00Z", {"at": time(9)}, "2026-06-11T07:00+00:00"),
        # A day earlier by the calendar, over the change of clocks.
        ("2026-03-30", {"at": time(9), "offset": timedelta(days=-1)}, "2026-03-29T07:00+00:00"),
        (None, {}, None),
        ("soon", {}, None),
        ("2026-02-30", {}, None),
        (7, {}, None),
        (datetime(2026, 1, 1), {}, None),  # noqa: DTZ001 - without a zone it is no moment
        ("9999-12-31", {"offset": timedelta(days=3_000)}, None),
    ],
)
def test_a_date_is_waited_for_where_it_is_one(value, rule, ends):
    found = ends_at(
        UntilDate(("metadata", "renews"), **rule), at("2026-01-01T00:00"), BERLIN, {"metadata": {"renews": value}}
    )
    assert found == (None if ends is None else datetime.fromisoformat(ends))


def test_a_path_that_leads_nowhere_is_a_missing_date():
    assert ends_at(UntilDate(("metadata", "a", "b")), at("2026-01-01T00:00"), BERLIN, {"metadata": 3}) is None


@given(moments, clocks, st.integers(1, 60), st.sampled_from(ZONES))
def test_days_end_on_their_day_or_after_the_gap(arrived, clock, days, name):
    zone = ZoneInfo(name)
    local = ends_at(DaysAt(days, clock), arrived, zone, {}).astimezone(zone)
    wanted = datetime.combine(arrived.astimezone(zone).date() + timedelta(days=days), clock)
    if local.replace(tzinfo=None) == wanted:
        assert local.fold == 0
        return
    before = local - timedelta.resolution
    shown = (before.astimezone(UTC) - timedelta.resolution).astimezone(zone).replace(tzinfo=None)
    assert shown < wanted < local.replace(tzinfo=None)


@given(moments, clocks, st.sets(st.integers(0, 6), min_size=1), st.sampled_from(ZONES))
def test_weekdays_end_within_nine_days_strictly_after_the_arrival(arrived, clock, days, name):
    zone = ZoneInfo(name)
    ends = ends_at(Weekdays(frozenset(days), clock), arrived, zone, {})
    assert timedelta() < ends - arrived <= timedelta(days=9)
    local = ends.astimezone(zone)
    assert local.weekday() in days or local.time() < clock or name == "Pacific/Apia"


@pytest.mark.parametrize(
    ("text", "offset"),
    [("3 days", timedelta(days=3)), ("+ 2 hours", timedelta(hours=2)), (" -1 week", timedelta(weeks=-1))],
)
def test_an_offset_may_have_a_sign(text, offset):
    assert read_offset(text) == offset


def test_what_is_no_offset_is_refused():
    with pytest.raises(ValidationError):
        read_offset("--3 days")
