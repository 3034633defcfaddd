"""Rules of recurring campaigns: by the clock of a place, bounded, and each fault with its key."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.recurrence import SHORTEST, read_recurrence

pytestmark = pytest.mark.req("FR-P2-004", "FR-P3-006")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2026-03-28T07:59:59+00:00", "2026-03-28T08:00:00+00:00"),
        ("2026-03-28T08:00:00+00:00", "2026-03-29T07:00:00+00:00"),  # the clock was put forward in the night
        ("2026-10-24T07:00:00+00:00", "2026-10-25T08:00:00+00:00"),
    ],
)
def test_nine_oclock_is_nine_oclock_there(after, expected):
    rule = read_recurrence({"cron": "0 9 * * *", "time_zone": "Europe/Berlin"})
    assert rule.next_after(at(after)) == at(expected)


def test_an_hour_that_the_clock_leaves_out_comes_when_it_goes_on():
    rule = read_recurrence({"cron": "30 2 * * *", "time_zone": "Europe/Berlin"})
    assert rule.next_after(at("2026-03-28T12:00:00+00:00")) == at("2026-03-29T01:00:00+00:00")


def test_it_ends_with_its_day_its_moment_or_its_count():
    last = read_recurrence({"cron": "0 9 * * *", "time_zone": "Asia/Tokyo", "until": "2026-03-02"})
    assert last.next_after(at("2026-03-01T12:00:00+00:00")) == at("2026-03-02T00:00:00+00:00")
    assert last.next_after(at("2026-03-02T00:00:00+00:00")) is None
    moment = read_recurrence({"cron": "0 9 * * *", "until": "2026-03-02T09:00:00Z"})
    assert moment.next_after(at("2026-03-02T08:00:00+00:00")) == at("2026-03-02T09:00:00+00:00")
    counted = read_recurrence({"cron": "0 9 * * *", "count": 2})
    assert counted.next_after(at("2026-03-02T00:00:00+00:00"), runs=1) is not None
    assert counted.next_after(at("2026-03-02T00:00:00+00:00"), runs=2) is None


def test_the_tenants_clock_counts_where_the_rule_names_none():
    rule = read_recurrence({"cron": "0 9 * * *"}, "America/New_York")
    assert rule.zone == ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("document", "path", "code"),
    [
        ({"cron": ""}, "cron", "not_a_rule"),
        ({"cron": "0 9 * *"}, "cron", "not_a_rule"),
        ({"cron": "0 0 9 * * *"}, "cron", "not_a_rule"),
        ({"cron": "61 9 * * *"}, "cron", "not_a_rule"),
        ({"cron": "0 9 * * someday"}, "cron", "not_a_rule"),
        ({"cron": "0 0 31 4 *"}, "cron", "not_a_rule"),
        ({"cron": "* * * * *"}, "cron", "too_often"),
        ({"cron": "0,1 9 * * *"}, "cron", "too_often"),
        ({"cron": "0 9 * * *", "time_zone": "Berlin"}, "time_zone", "not_a_time_zone"),
        ({"cron": "0 9 * * *", "until": "2026-02-30"}, "until", "not_canonical"),
        ({"cron": "0 9 * * *", "until": "tomorrow"}, "until", "not_canonical"),
    ],
)
def test_a_fault_is_named_at_its_key(document, path, code):
    with pytest.raises(ValidationError) as refused:
        read_recurrence(document)
    (problem,) = refused.value.problems
    assert problem.path == path
    assert code in (problem.code, "not_canonical")


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.timedeltas(timedelta(), timedelta(days=700)),
)
def test_runs_go_forward_and_are_a_day_apart_or_so(minute, hour, zone, later):
    rule = read_recurrence({"cron": f"{minute} {hour} * * *", "time_zone": zone})
    moment = datetime(2026, 1, 1, tzinfo=UTC) + later
    previous = None
    for _ in range(5):
        found = rule.next_after(moment)
        assert found is not None
        assert found > moment
        if previous is not None:
            assert timedelta(hours=20) < found - previous < timedelta(hours=28)
            assert found - previous >= SHORTEST
        previous = moment = found
