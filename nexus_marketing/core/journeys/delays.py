"""When a delay ends: exact spans and readings of a clock somewhere (BEHAVIOUR.md 5.1, Delay).

A reading that a clock leaves out in spring is the first moment after the gap; one that comes twice in autumn is the first.

>>> local_instant(date(2026, 3, 29), time(2, 30), ZoneInfo("Europe/Berlin")).isoformat()
'2026-03-29T01:00:00+00:00'
>>> local_instant(date(2026, 10, 25), time(2, 30), ZoneInfo("Europe/Berlin")).isoformat()
'2026-10-25T00:30:00+00:00'
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from nexus_marketing.core.conditions.clock import EARLIEST, LATEST
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.values import DATE_SHAPE, parse_date, parse_datetime, parse_duration

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z")
_DAY: Final = timedelta(days=1)
_SIGN: Final = re.compile(r"\s*([+-]?)\s*(.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time, to the microsecond."""

    length: timedelta


@dataclass(frozen=True, slots=True)
class DaysAt:
    """So many calendar days after the day of arrival, at a time of day."""

    days: int
    at: time


@dataclass(frozen=True, slots=True)
class Weekdays:
    """The next of some days of the week (0 is Monday) at a time of day, strictly after the arrival."""

    days: frozenset[int]
    at: time


@dataclass(frozen=True, slots=True)
class Fallback:
    """What to do about a date that is past or missing: go on, leave, or go on somewhere else."""

    word: str = "continue"
    to: str | None = None


@dataclass(frozen=True, slots=True)
class UntilDate:
    """A date of the lead or of the event that started the run, moved by ``offset``; of a day ``at`` is the time."""

    path: tuple[str, ...]
    offset: timedelta = timedelta()
    at: time | None = None
    if_past: Fallback = Fallback()
    if_missing: Fallback = Fallback()


DelayRule = Span | DaysAt | Weekdays | UntilDate


def ends_at(rule: DelayRule, arrived: datetime, zone: ZoneInfo, record: Mapping[str, object]) -> datetime | None:
    """When a delay ends; nothing where the date it waits for is missing.

    Args:
        rule: of the delay.
        arrived: when the run came (aware UTC).
        zone: whose clock counts.
        record: what is known of the lead, with ``event``.
    """
    match rule:
        case Span():
            return arrived + rule.length
        case DaysAt():
            return local_instant(arrived.astimezone(zone).date() + rule.days * _DAY, rule.at, zone)
        case Weekdays():
            return _next_weekday(rule, arrived, zone)
    return _until(rule, zone, record)


@lru_cache(maxsize=10_000)  # the leads of a birthday share it: days of some years, in some zones
def local_instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """The moment (UTC) at which a clock shows this: the first of two, and of none the first after the gap."""
    first, second = datetime.combine(day, clock, zone), datetime.combine(day, clock.replace(fold=1), zone)
    early = first.astimezone(UTC)
    if first.utcoffset() == second.utcoffset():  # it comes once
        return early
    late = second.astimezone(UTC)
    if early <= late:  # twice
        return early
    low, high, wanted = late, early, datetime.combine(day, clock)
    while high - low > timedelta.resolution:
        middle = low + (high - low) / 2
        if middle.astimezone(zone).replace(tzinfo=None) < wanted:
            low = middle
        else:
            high = middle
    return high


def read_offset(text: str, path: str = "") -> timedelta:
    """A length of time that may have a sign.

    >>> read_offset("-3 days")
    datetime.timedelta(days=-3)
    """
    match = _SIGN.match(text)
    sign, rest = match.groups() if match else ("", text)
    length = parse_duration(rest, path)
    return -length if sign == "-" else length


def read_clock(text: str) -> time:
    """A time of day; its form was checked."""
    return time.fromisoformat(text)


def _next_weekday(rule: Weekdays, arrived: datetime, zone: ZoneInfo) -> datetime:
    day = arrived.astimezone(zone).date()
    while True:
        if day.weekday() in rule.days:
            found = local_instant(day, rule.at, zone)
            if found > arrived:
                return found
        day += _DAY


def day_of(path: tuple[str, ...], zone: ZoneInfo, record: Mapping[str, object]) -> date | None:
    """The day that a record keeps somewhere; of a moment the one that clocks in the zone show."""
    value = _value(path, record)
    try:
        moment, day = _read_text(value) if isinstance(value, str) else _read(value)
    except (ValidationError, ValueError, OverflowError):
        return None
    return day if moment is None else moment.astimezone(zone).date()


def moved(rule: UntilDate, value: object, zone: ZoneInfo) -> datetime | None:
    """When a date, moved as the rule says, has come; nothing where it is none or beyond the calendar."""
    try:
        return _moved(rule, value, zone)
    except (ValidationError, ValueError, OverflowError):
        return None


def _until(rule: UntilDate, zone: ZoneInfo, record: Mapping[str, object]) -> datetime | None:
    return moved(rule, _value(rule.path, record), zone)


def _value(path: tuple[str, ...], record: Mapping[str, object]) -> object:
    value: object = record
    for key in path:
        # The first question is answered in a tenth of the time, and with yes.
        value = value.get(key) if type(value) is dict or isinstance(value, Mapping) else None
    return value


def _moved(rule: UntilDate, value: object, zone: ZoneInfo) -> datetime | None:
    moment, day = _read(value)
    if moment is not None and rule.at is None:
        found = moment + rule.offset
    elif moment is None and day is None:
        return None
    else:
        shown = moment.astimezone(zone).date() if moment is not None else day
        assert shown is not None
        whole, rest = divmod(rule.offset, _DAY)
        found = local_instant(shown + whole * _DAY, rule.at or time(), zone) + rest
    return found if EARLIEST < found < LATEST else None


def _read(value: object) -> tuple[datetime | None, date | None]:
    """A moment, or a day."""
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, datetime):
        return (value.astimezone(UTC), None) if value.tzinfo is not None else (None, None)
    return (None, value) if isinstance(value, date) else (None, None)


# People were born on far fewer days than there are people.
@lru_cache(maxsize=1 << 15)
def _read_text(text: str) -> tuple[datetime | None, date | None]:
    return (None, parse_date(text)) if DATE_SHAPE.match(text) else (parse_datetime(text), None)
