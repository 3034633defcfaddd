"""When dates of leads come, over leap years, zones and nights in which clocks change."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.journeys.anniversaries import next_occurrence
from nexus_marketing.core.journeys.delays import local_instant
from nexus_marketing.core.journeys.model import Trigger, TriggerKind

pytestmark = pytest.mark.req("FR-P3-004", "D06")

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe")
moments = st.datetimes(datetime(2012, 1, 1), datetime(2029, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - wanted naive


def trigger(at="09:00", offset=timedelta(), *, yearly=True):
    return Trigger(TriggerKind.DATE, "a", "born", None, offset, at, ("born",), yearly)


@pytest.mark.parametrize(
    ("born", "after", "offset", "comes", "day"),
    [
        # By the clock of the place, also in the night in which it is put forward.
        ("1990-03-29", "2026-03-29T00:30", timedelta(), "2026-03-29T07:00", "2026-03-29"),
        ("1990-03-29", "2026-03-29T07:00", timedelta(), "2027-03-29T07:00", "2027-03-29"),
        ("1992-02-29", "2026-01-01T00:00", timedelta(), "2026-02-28T08:00", "2026-02-28"),
        ("1992-02-29", "2028-01-01T00:00", timedelta(), "2028-02-29T08:00", "2028-02-29"),
        # Three days before New Year's Day belong to the year before.
        ("1990-01-02", "2026-12-29T00:00", timedelta(days=-3), "2026-12-30T08:00", "2027-01-02"),
        ("1990-12-30", "2027-01-01T00:00", timedelta(days=5), "2027-01-04T08:00", "2026-12-30"),
        # What begins in some years begins then.
        ("2035-05-01", "2026-01-01T00:00", timedelta(), "2035-05-01T07:00", "2035-05-01"),
        ("no date", "2026-01-01T00:00", timedelta(), None, None),
    ],
)
def test_a_date_comes_every_year(born, after, offset, comes, day):
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = next_occurrence(trigger(offset=offset), {"born": born}, BERLIN, moment)
    if comes is None:
        assert found is None
    else:
        assert found == (datetime.fromisoformat(comes).replace(tzinfo=UTC), date.fromisoformat(day))


def test_a_date_that_comes_once_comes_once():
    once, before = trigger(yearly=False), datetime(2026, 3, 1, tzinfo=UTC)
    found = next_occurrence(once, {"born": "2026-03-05"}, BERLIN, before)
    assert found is not None
    assert next_occurrence(once, {"born": "2026-03-05"}, BERLIN, found.at) is None
    assert found.name(once) == "date:born:0:2026-03-05"


@given(
    born=st.dates(date(1930, 1, 1), date(2011, 12, 31)),
    after=moments,
    days=st.integers(-30, 30),
    zone=st.sampled_from(ZONES),
    clock=st.builds(time, st.integers(0, 23), st.integers(0, 59)),
)
def test_the_next_one_is_within_a_year_and_the_one_after_it_another(born, after, days, zone, clock):
    place, about = ZoneInfo(zone), trigger(clock.strftime("%H:%M"), timedelta(days=days))
    found = next_occurrence(about, {"born": born.isoformat()}, place, after)
    assert found is not None
    assert after < found.at <= after + timedelta(days=368)
    assert found.at == local_instant(found.day + timedelta(days=days), clock, place)
    following = next_occurrence(about, {"born": born.isoformat()}, place, found.at)
    assert following is not None
    assert following.day.year == found.day.year + 1
