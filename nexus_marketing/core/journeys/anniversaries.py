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
from typing import NamedTuple
from zoneinfo import ZoneInfo

from nexus_marketing.core.journeys.delays import UntilDate, day_of, ends_at, moved, read_clock
from nexus_marketing.core.journeys.model import Trigger

#: More than clocks anywhere, and an offset that is no whole day, can make of a day.
_AROUND = timedelta(days=3)
_FEBRUARY_29: tuple[int, int] = (2, 29)


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
    rule = UntilDate(trigger.path, trigger.offset, None if trigger.at is None else read_clock(trigger.at))
    day = day_of(trigger.path, zone, record)
    if day is None:
        return None
    if not trigger.is_yearly:
        at = ends_at(rule, after, zone, record)
        return Coming(at, day) if at is not None and at > after else None
    first = max((after - trigger.offset).year - 1, day.year)
    passed = (after - trigger.offset).date() - _AROUND
    for year in range(first, first + 4):
        this = _in_year(day, year)
        if this < passed:  # wherever clocks stand
            continue
        at = moved(rule, this, zone)
        if at is not None and at > after:
            return Coming(at, this)
    return None


def _in_year(day: date, year: int) -> date:
    if (day.month, day.day) == _FEBRUARY_29:
        try:
            return day.replace(year=year)
        except ValueError:
            return date(year, 2, 28)
    return day.replace(year=year)
