"""What a condition may know about the moment of its evaluation: read once, then bound.

No database does zone arithmetic for us; dates in a zone are computed here, in Python.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from nexus_marketing.core.conditions.tree import Clock, ClockKind, FieldType
from nexus_marketing.core.values import canonical_datetime

EARLIEST: Final = datetime.min.replace(tzinfo=UTC) + timedelta(days=2)
LATEST: Final = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One reading of the clock, shared by all records of one evaluation.

    ``now`` is aware UTC; ``zone`` is the IANA zone in which ``today()`` is meant (the tenant's).
    """

    now: datetime
    zone: str = "UTC"
    _read: dict[object, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a naive clock: it would silently mean the machine's zone."""
        if self.now.tzinfo is None:
            raise ValueError("Evaluation.now must be an aware datetime")

    @property
    def today(self) -> date:
        """The date in ``zone``."""
        return self.day(Clock(ClockKind.TODAY))

    def next_day(self) -> datetime:
        """When the date in ``zone`` changes."""
        return start_of_day(self.today + timedelta(days=1), self.zone)

    def instant(self, clock: Clock) -> datetime:
        """The clock as a point in time; ``today()`` is the start of that day in ``zone``."""
        found = self._read.get((clock, FieldType.DATETIME))
        if found is None:
            found = self._read[clock, FieldType.DATETIME] = self._instant(clock)
        return found  # type: ignore[return-value]

    def day(self, clock: Clock) -> date:
        """The clock as a date in ``zone``."""
        found = self._read.get((clock, FieldType.DATE))
        if found is None:
            found = self._read[clock, FieldType.DATE] = self._date(clock, self.zone)
        return found  # type: ignore[return-value]

    def local_day(self, clock: Clock, zone: str | None) -> date:
        """The date in a lead's own zone; an absent or unknown zone is the evaluation's."""
        if not isinstance(zone, str) or not zone:
            return self.day(clock)
        found = self._read.get((clock, zone))
        if found is None:
            found = self._read[clock, zone] = self._date(clock, zone if is_zone(zone) else self.zone)
        return found  # type: ignore[return-value]

    def text(self, clock: Clock, kind: FieldType) -> str:
        """The clock as canonical text of a date or datetime."""
        found = self._read.get((clock, kind, "text"))
        if found is None:
            found = self.day(clock).isoformat() if kind is FieldType.DATE else canonical_datetime(self.instant(clock))
            self._read[clock, kind, "text"] = found
        return found  # type: ignore[return-value]

    def zones_by_date(self, clock: Clock, zones: Iterable[str]) -> dict[date, tuple[str, ...]]:
        """The known zones grouped by their local date: at most three dates exist at one moment."""
        groups: dict[date, list[str]] = {}
        for zone in sorted(set(zones)):
            if is_zone(zone):
                groups.setdefault(self.local_day(clock, zone), []).append(zone)
        return {day: tuple(names) for day, names in groups.items()}

    def _instant(self, clock: Clock) -> datetime:
        if clock.kind is ClockKind.NOW:
            return _clamped(self.now.astimezone(UTC), clock.offset_seconds)
        return start_of_day(self.day(clock), self.zone)

    def _date(self, clock: Clock, zone: str) -> date:
        if clock.kind is ClockKind.NOW:
            return _clamped(self.now, clock.offset_seconds).astimezone(ZoneInfo(zone)).date()
        local = _clamped(self.now, 0).astimezone(ZoneInfo(zone)).date()
        days = max(min(clock.offset_seconds // 86_400, (LATEST.date() - local).days), (EARLIEST.date() - local).days)
        return local + timedelta(days=days)


def start_of_day(day: date, zone: str) -> datetime:
    """The first instant of a date in a zone, in UTC (after a gap at midnight, the end of the gap)."""
    day = max(min(day, LATEST.date()), EARLIEST.date())
    return datetime.combine(day, time(), tzinfo=ZoneInfo(zone)).astimezone(UTC)


def is_zone(name: str) -> bool:
    """Whether the name is an IANA zone we know."""
    return name in known_zones()


@cache
def known_zones() -> frozenset[str]:
    """Every IANA zone of the installed database."""
    return frozenset(available_timezones())


def _clamped(moment: datetime, seconds: int) -> datetime:
    try:
        return max(min(moment + timedelta(seconds=seconds), LATEST), EARLIEST)
    except OverflowError:
        return EARLIEST if seconds < 0 else LATEST
