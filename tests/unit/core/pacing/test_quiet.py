"""Quiet hours by the clock where people live: over zones, midnights, daylight saving and leap days (D06)."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.quiet import OnQuiet, Quiet, QuietHours, check_quiet_hours, quiet_hours_of, quiet_now
from nexus_marketing.core.pacing.zones import UTC_ZONE, zone_named, zone_of, zones_of

pytestmark = pytest.mark.req("FR-P2-004")

NIGHT = QuietHours(time(21), time(8))
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Australia/Lord_Howe",
)
DAYS = ("2026-01-15", "2026-07-15", "2028-02-29", "2026-12-31", "2027-01-01")
#: Local time → whether it is quiet from 21:00 to 08:00.
CLOCK = {"00:00": True, "07:59": True, "08:00": False, "20:59": False, "21:00": True, "23:59": True}
moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - wanted naive
times = st.builds(time, st.integers(0, 23), st.integers(0, 59))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("clock", CLOCK)
def test_the_local_clock_decides(zone, day, clock):
    now = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    quiet = quiet_now([NIGHT], [ZoneInfo(zone)], now)
    assert (quiet is not None) is CLOCK[clock]
    if quiet is not None:
        assert quiet.until.astimezone(ZoneInfo(zone)).strftime("%H:%M") == "08:00"
        assert quiet.until - now <= timedelta(hours=11)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00. The night is an hour shorter.
        ("2026-03-28T22:00+01:00", "2026-03-29T08:00+02:00"),
        # 25 October 2026: 03:00 becomes 02:00. The night is an hour longer.
        ("2026-10-24T22:00+02:00", "2026-10-25T08:00+01:00"),
    ],
)
def test_a_night_in_which_clocks_change_ends_by_the_clock(now, until):
    quiet = quiet_now([NIGHT], [ZoneInfo("Europe/Berlin")], datetime.fromisoformat(now).astimezone(UTC))
    assert quiet.until == datetime.fromisoformat(until)


def test_an_end_that_comes_twice_is_the_second():
    rule = QuietHours(time(1), time(2, 30))
    now = datetime.fromisoformat("2026-10-25T01:30+02:00").astimezone(UTC)
    assert rule.until(now, ZoneInfo("Europe/Berlin")) == datetime.fromisoformat("2026-10-25T02:30+01:00")


def test_a_weekend_is_named_by_the_days_on_which_it_begins():
    rule = QuietHours(time(18), time(17, 59), days=frozenset({4, 5}))  # Friday evening until Sunday evening
    friday = datetime(2026, 11, 27, 20, tzinfo=UTC)
    assert quiet_now([rule], [UTC_ZONE], friday).until == datetime(2026, 11, 28, 17, 59, tzinfo=UTC)
    assert quiet_now([rule], [UTC_ZONE], friday - timedelta(hours=3)) is None


def test_of_an_unknown_place_every_zone_must_allow_it():
    now = datetime(2026, 1, 15, 13, tzinfo=UTC)  # 08:00 in New York, 05:00 in Los Angeles, 03:00 on Hawaii
    assert quiet_now([NIGHT], zones_of("America/New_York", "US", UTC_ZONE), now) is None
    anywhere = quiet_now([NIGHT], zones_of(None, "US", UTC_ZONE), now)
    assert anywhere.until == datetime(2026, 1, 15, 18, tzinfo=UTC)  # Hawaii's 08:00
    # Kamchatka and Kaliningrad are ten hours apart: a night of 16 hours leaves no moment for both.
    assert quiet_now([QuietHours(time(17), time(9))], zones_of(None, "RU", UTC_ZONE), now) == Quiet(None)


def test_whose_clock_counts():
    tokyo = ZoneInfo("Asia/Tokyo")
    assert zone_of("Europe/Paris", tokyo).key == "Europe/Paris"
    assert zone_of("Mars/Olympus", tokyo) is zone_of(None, tokyo) is tokyo
    assert zones_of("", "JP", UTC_ZONE) == (tokyo,)
    assert zones_of(None, "ZZ", tokyo) == zones_of(None, None, tokyo) == (tokyo,)
    assert len(zones_of(None, "us", UTC_ZONE)) > 20
    assert zone_named("../../etc/passwd") is None


def test_skip_and_a_hold_that_is_too_long():
    now = datetime(2026, 1, 15, 22, tzinfo=UTC)
    assert quiet_now([QuietHours(time(21), time(8), on_quiet=OnQuiet.SKIP)], [UTC_ZONE], now) == Quiet(None)
    short = QuietHours(time(21), time(8), max_hold=timedelta(hours=9))
    assert quiet_now([short], [UTC_ZONE], now).until is None
    assert quiet_now([short], [UTC_ZONE], now + timedelta(hours=2)).until == datetime(2026, 1, 16, 8, tzinfo=UTC)


@given(moments, times, times, st.sampled_from(ZONES), st.sets(st.integers(0, 6), min_size=1))
def test_what_was_held_leaves_when_it_may_and_no_earlier(now, start, end, zone, days):
    assume(start != end)
    rule, place = QuietHours(start, end, frozenset(days), max_hold=timedelta(days=30)), [ZoneInfo(zone)]
    quiet = quiet_now([rule], place, now)
    if quiet is None:
        assert rule.until(now, place[0]) is None
    elif quiet.until is not None:
        assert quiet.until > now
        assert quiet_now([rule], place, quiet.until) is None
        assert quiet_now([rule], place, quiet.until - timedelta(seconds=1)) is not None


@pytest.mark.parametrize(
    ("value", "place", "code"),
    [
        ("21:00", "", "not_a_list"),
        ([{"from": "21:00"}], "[0].to", "not_a_clock"),
        ([{"from": "24:00", "to": "08:00"}], "[0].from", "not_a_clock"),
        ([{"from": "8:00", "to": "08:00"}], "[0].from", "not_a_clock"),
        ([{"from": "08:00", "to": "08:00"}], "[0].to", "no_time_left"),
        ([{"from": "21:00", "to": "08:00", "days": ["monday"]}], "[0].days", "not_days"),
        ([{"from": "21:00", "to": "08:00", "days": []}], "[0].days", "not_days"),
        ([{"from": "21:00", "to": "08:00", "spread": "soon"}], "[0].spread", "not_a_span"),
        ([{"from": "21:00", "to": "08:00", "on_quiet": "drop"}], "[0].on_quiet", "unknown_choice"),
        ([{"from": "21:00", "until": "08:00"}], "[0].until", "unknown_key"),
    ],
)
def test_what_are_no_quiet_hours_is_refused_with_its_place(value, place, code):
    with pytest.raises(ValidationError) as caught:
        check_quiet_hours(value)
    assert [(each.path, each.code) for each in caught.value.problems] == [(place, code)]


def test_a_channel_has_its_own():
    written = [
        {
            "from": "20:00",
            "to": "08:00",
            "channel": "sms",
            "days": ["sat", "sun"],
            "max_hold": "1 day",
            "spread": "5 minutes",
        },
        {"from": "22:00", "to": "07:00"},
    ]
    settings = {"quiet_hours": check_quiet_hours(written)}
    both, general = quiet_hours_of(settings, "sms"), quiet_hours_of(settings, "email")
    assert both[0] == QuietHours(
        time(20), time(8), frozenset({5, 6}), "sms", OnQuiet.HOLD, timedelta(days=1), timedelta(minutes=5)
    )
    assert both[1:] == general == (QuietHours(time(22), time(7)),)
    assert quiet_hours_of({}, "email") == ()
