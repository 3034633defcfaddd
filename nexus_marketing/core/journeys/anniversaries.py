"""When the date of a lead brings it into a journey: once, or every year, some days before or after.

>>> from datetime import UTC
>>> from nexus_marketing.core.journeys.model import TriggerKind
>>> trigger = Trigger(TriggerKind.DATE, "a", "born", path=("born",), at="09:00", is_yearly=True)
>>> found = next_occurrence(trigger, {"born": "1990-03-29"}, ZoneInfo("Europe/Berlin"), datetime(2026, 3, 1, tzinfo=UTC))
>>> found.at.isoformat(), found.day.isoformat()
('2026-03-29T07:00:00+00:00', '2026-03-29')
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from nexus_marketing.core.journeys.delays import UntilDate, day_of, ends_at, moved, read_clock
from nexus_marketing.core.journeys.model import Trigger

#: More than clocks anywhere, and an offset that is no whole day, can make of a day.
_AROUND = timedelta(days=3)


class Coming(NamedTuple):
    """An occurrence: when (UTC), and the day that it is about, before it was moved."""

    at: datetime
    day: date

    def name(self, trigger: Trigger) -> str:
        """What makes it the same however often it is found."""
        return f"date:{trigger.name}:{int(trigger.offset.total_seconds())}:{self.day.isoformat()}"

    def event(self, trigger: Trigger) -> dict[str, str]:
        """What conditions and delays of the run know as ``event``."""
        return {"type": "date", "field": trigger.name, "day": self.day.isoformat()}


def next_occurrence(trigger: Trigger, record: Mapping[str, object], zone: ZoneInfo, after: datetime) -> Coming | None:
    """The first time after a moment (strictly) that a date trigger occurs for a lead; nothing where there is none.

    Whoever was born on 29 February has a birthday on the 28th in other years. A date to come begins to count when it
    comes.
    """
    return NextDate(trigger, after).of(record, zone)


class NextDate:
    """As :func:`next_occurrence` for many leads."""

    __slots__ = ("_after", "_passed", "_trigger")

    def __init__(self, trigger: Trigger, after: datetime) -> None:
        self._trigger, self._after = trigger, after
        self._passed = (after - trigger.offset).date() - _AROUND

    def of(self, record: Mapping[str, object], zone: ZoneInfo) -> Coming | None:
        """The first one of a lead."""
        trigger, after, passed = self._trigger, self._after, self._passed
        day = day_of(trigger.path, zone, record)
        if day is None:
            return None
        if not trigger.is_yearly:
            rule = UntilDate(trigger.path, trigger.offset, None if trigger.at is None else read_clock(trigger.at))
            at = ends_at(rule, after, zone, record)
            return Coming(at, day) if at is not None and at > after else None
        first = max(passed.year, day.year)
        if first == passed.year and (day.month, day.day) < (passed.month, passed.day):
            first += 1  # it has passed this year, wherever clocks stand
        for year in range(first, first + 3):
            this = _in_year(day, year)
            found = _when(trigger.offset, trigger.at, this, zone)
            if found is not None and found > after:
                return Coming(found, this)
        return None


# There are as many as days of a year, times of day and zones: far fewer than leads.
@lru_cache(maxsize=1 << 15)
def _when(offset: timedelta, at: str | None, day: date, zone: ZoneInfo) -> datetime | None:
    """The moment at which a day has come, moved as a trigger says."""
    return moved(UntilDate((), offset, None if at is None else read_clock(at)), day, zone)


def _in_year(day: date, year: int) -> date:
    if day.month == 2 and day.day == 29:
        try:
            return day.replace(year=year)
        except ValueError:
            return date(year, 2, 28)
    return day.replace(year=year)
