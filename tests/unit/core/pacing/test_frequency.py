"""Caps: windows of the calendar and of a span, who has room, who waits until when."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.frequency import (
    DEFAULT_CAPS,
    Answer,
    Cap,
    OnCap,
    Period,
    Rank,
    Room,
    Use,
    caps_of,
    check_caps,
    room_for,
)

pytestmark = pytest.mark.req("BR-001")

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)  # the day on which Europe puts its clocks forward
ZONES = [
    ZoneInfo(name)
    for name in ("UTC", "Europe/Berlin", "America/Santiago", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo")
]
moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - wanted naive
windows = st.one_of(st.sampled_from(list(Period)), st.timedeltas(timedelta(minutes=1), timedelta(days=60)))
caps = st.builds(
    Cap,
    st.integers(1, 4),
    windows,
    st.sampled_from([None, "email", "sms"]),
    st.just(OnCap.DEFER),
    st.just(timedelta(days=90)),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("window", "zone", "now", "since", "free"),
    [
        (Period.DAY, BERLIN, "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        (Period.DAY, BERLIN, "2026-10-25T23:59+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        (
            Period.DAY,
            ZoneInfo("Pacific/Kiritimati"),
            "2026-01-01T10:00Z",
            "2026-01-02T00:00+14:00",
            "2026-01-03T00:00+14:00",
        ),
        (Period.WEEK, BERLIN, "2026-03-29T23:00+02:00", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00"),
        (Period.MONTH, BERLIN, "2026-12-31T23:59+01:00", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
        (Period.MONTH, UTC_ZONE, "2028-02-29T05:00Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        # Where midnight does not exist the day begins an hour later.
        (
            Period.DAY,
            ZoneInfo("America/Santiago"),
            "2026-09-06T12:00-03:00",
            "2026-09-06T01:00-03:00",
            "2026-09-07T00:00-03:00",
        ),
        (
            timedelta(hours=36),
            BERLIN,
            "2026-03-29T12:00+02:00",
            "2026-03-28T00:00:00.000001+02:00",
            "2026-03-30T23:00+02:00",
        ),
    ],
)
def test_a_window_begins_and_ends_by_the_leads_calendar(window, zone, now, since, free):
    cap = Cap(window=window, on_cap=OnCap.DEFER)
    assert cap.since(at(now), zone) == at(since)
    assert cap.free_at([at(now) - timedelta(hours=1)], at(now), zone) == at(free)


def test_one_a_day_unless_a_tenant_says_otherwise():
    assert caps_of({}) == DEFAULT_CAPS == (Cap(1, Period.DAY, None, OnCap.SKIP),)
    assert caps_of({"frequency_caps": []}) == ()


def test_what_is_full_is_skipped_or_waits():
    use = [Use(NOON - timedelta(hours=1), "email", 1)]
    assert room_for([Cap()], "email", [], 0, NOON, BERLIN) == Room(Answer.GO)
    assert room_for([Cap()], "sms", use, 0, NOON, BERLIN) == Room(Answer.SKIP)
    assert room_for([Cap(channel="email")], "sms", use, 0, NOON, BERLIN) == Room(Answer.GO)
    later = room_for([Cap(on_cap=OnCap.DEFER)], "email", use, 0, NOON, BERLIN)
    assert later == Room(Answer.LATER, at("2026-03-30T00:00+02:00"))
    too_long = Cap(window=Period.MONTH, on_cap=OnCap.DEFER, defer_max=timedelta(days=1))
    assert room_for([too_long], "email", use, 0, NOON, BERLIN) == Room(Answer.SKIP)


def test_of_several_caps_the_strictest_counts():
    uses = [Use(NOON - timedelta(hours=3), "email", 1), Use(NOON - timedelta(hours=1), "email", 2)]
    caps = [Cap(3, Period.DAY), Cap(2, timedelta(hours=12), on_cap=OnCap.DEFER)]
    assert room_for(caps, "email", uses, 0, NOON, BERLIN) == Room(Answer.LATER, NOON + timedelta(hours=9))


def test_the_channels_of_a_launch_are_one_use():
    uses = [Use(NOON - timedelta(hours=3), "email", 1), Use(NOON - timedelta(hours=1), "sms", 1)]
    assert room_for([Cap(2)], "email", uses, 0, NOON, BERLIN).answer is Answer.GO
    assert room_for([Cap(1, channel="sms")], "sms", uses, 0, NOON, BERLIN).answer is Answer.SKIP
    rolling = Cap(1, timedelta(hours=12), on_cap=OnCap.DEFER)
    assert room_for([rolling], "email", uses, 0, NOON, BERLIN).until == NOON + timedelta(hours=11)


def test_the_last_slot_is_for_whoever_goes_first():
    assert room_for([Cap(2)], "email", [], 1, NOON, BERLIN).answer is Answer.GO
    assert room_for([Cap(2)], "email", [], 2, NOON, BERLIN).answer is Answer.OUTRANKED
    order = sorted([Rank(50, 7), Rank(50, 3), Rank(90, 9)], key=lambda rank: rank.order)
    assert order == [Rank(90, 9), Rank(50, 3), Rank(50, 7)]


@given(caps, moments, st.sampled_from(ZONES), st.lists(st.timedeltas(timedelta(), timedelta(days=70)), max_size=8))
def test_there_is_room_when_it_was_promised_and_not_before(cap, now, zone, ages):
    uses = sorted((Use(now - age, "email", n) for n, age in enumerate(ages)), key=lambda use: use.at)
    room = room_for([cap], "email", uses, 0, now, zone)
    if room.answer is Answer.LATER:
        assert now < room.until <= now + timedelta(days=62)
        assert room_for([cap], "email", uses, 0, room.until + timedelta(microseconds=1), zone).answer is Answer.GO
        early = room.until - timedelta(seconds=1)
        if early > now:
            assert room_for([cap], "email", uses, 0, early, zone).answer is Answer.LATER
    else:
        assert room.answer is Answer.GO


@given(caps, moments, st.sampled_from(ZONES), st.lists(st.timedeltas(timedelta(), timedelta(hours=20)), max_size=30))
def test_no_window_ever_holds_more_than_it_may(cap, start, zone, pauses):
    """Somebody is asked for again and again, and written to whenever there is room."""
    now, uses = start, []
    for pause in pauses:
        now += pause
        if room_for([cap], "email", uses, 0, now, zone).answer is Answer.GO:
            uses.append(Use(now, "email", len(uses)))
        if cap.channel in (None, "email"):
            assert sum(use.at >= cap.since(now, zone) for use in uses) <= cap.count


@given(moments, st.sampled_from(ZONES), windows)
def test_nothing_older_than_its_reach_can_count(now, zone, window):
    cap = Cap(window=window)
    assert now - cap.reach <= cap.since(now, zone) <= now


@pytest.mark.parametrize(
    ("value", "place", "code"),
    [
        ({"count": 1}, "", "not_a_list"),
        (["day"], "[0]", "not_a_table"),
        ([{"count": 0}], "[0].count", "not_a_count"),
        ([{"count": True}], "[0].count", "not_a_count"),
        ([{}, {"window": "fortnight"}], "[1].window", "not_a_span"),
        ([{"window": "400 days"}], "[0].window", "not_a_span"),
        ([{"window": "0 days"}], "[0].window", "not_a_span"),
        ([{"on_cap": "drop"}], "[0].on_cap", "unknown_choice"),
        ([{"channel": ""}], "[0].channel", "not_a_channel"),
        ([{"limit": 3}], "[0].limit", "unknown_key"),
    ],
)
def test_what_is_no_cap_is_refused_with_its_place(value, place, code):
    with pytest.raises(ValidationError) as caught:
        check_caps(value)
    assert [(each.path, each.code) for each in caught.value.problems] == [(place, code)]


def test_what_is_stored_is_what_was_written():
    written = [{"count": 2, "window": "36 hours", "channel": "sms", "on_cap": "defer", "defer_max": "1 day"}]
    assert check_caps(written) == written
    assert caps_of({"frequency_caps": written}) == (Cap(2, timedelta(hours=36), "sms", OnCap.DEFER, timedelta(days=1)),)
