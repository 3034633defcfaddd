"""Quiet hours: when nobody is to be disturbed, by the clock where they live (BEHAVIOUR.md 5.1)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from nexus_marketing.core.pacing.tables import Table, checked_tables


class OnQuiet(StrEnum):
    """What becomes of a message that falls into quiet hours."""

    HOLD = "hold"
    SKIP = "skip"


_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_MOST_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From ``start`` until ``end`` by the local clock, also past midnight; on days (0 is Monday) on which they begin.

    A message that falls inside waits until they are over, at most ``max_hold``, or is skipped. Those that waited leave
    over a ``spread`` of time, not all at once.
    """

    start: time
    end: time
    days: frozenset[int] = frozenset(range(7))
    channel: str | None = None
    on_quiet: OnQuiet = OnQuiet.HOLD
    max_hold: timedelta = timedelta(days=3)
    spread: timedelta = timedelta(minutes=15)

    def until(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """When they are over, if they are on.

        Clocks that are put forward or back while they are on make them shorter or longer; an end that comes twice is
        the second.
        """
        today = now.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() not in self.days:
                continue
            last = day if self.end > self.start else day + timedelta(days=1)
            begins = datetime.combine(day, self.start, zone).astimezone(UTC)
            ends = datetime.combine(last, self.end, zone).replace(fold=1).astimezone(UTC)
            if begins <= now < ends:
                return ends
        return None


@dataclass(frozen=True, slots=True)
class Quiet:
    """A message falls into quiet hours: ``until`` is when they are over everywhere, nothing where it is skipped."""

    until: datetime | None
    spread: timedelta = timedelta()


def quiet_now(rules: Sequence[QuietHours], zones: Iterable[ZoneInfo], now: datetime) -> Quiet | None:
    """Whether a message must not leave now: it leaves when all rules allow it in every zone the lead may live in.

    Args:
        rules: those of the message's channel.
        zones: of :func:`nexus_marketing.core.pacing.zones.zones_of`.
        now: the moment.
    """
    places = tuple(zones)
    moment, spread, most = now, timedelta(), None
    for _ in range(_MOST_STEPS):
        hits = [(rule, end) for rule in rules for zone in places if (end := rule.until(moment, zone)) is not None]
        if not hits:
            break
        if moment == now and any(rule.on_quiet is OnQuiet.SKIP for rule, _ in hits):
            return Quiet(None)
        spread = max(spread, *(rule.spread for rule, _ in hits))
        limit = min(rule.max_hold for rule, _ in hits)
        most = limit if most is None else min(most, limit)
        moment = max(end for _, end in hits)
    else:
        return Quiet(None)  # never allowed anywhere at once
    if moment == now:
        return None
    return Quiet(moment if most is None or moment - now <= most else None, spread)


def quiet_hours_of(settings: Mapping[str, Any], channel: str) -> tuple[QuietHours, ...]:
    """The rules of a tenant for a channel, from its stored settings."""
    rules = (_quiet(Table(document)) for document in settings.get("quiet_hours", ()))
    return tuple(rule for rule in rules if rule.channel in (None, channel))


def check_quiet_hours(value: object) -> list[dict[str, Any]]:
    """Quiet hours as a tenant writes them down, in the form in which they are stored.

    Each is a table: ``from`` and ``to`` (``"21:00"``, ``"08:00"``), and, if wanted, ``days`` (of ``mon`` to ``sun``, on which
    they begin), ``channel``, ``on_quiet`` (``hold`` or ``skip``), ``max_hold`` (``"3 days"``) and ``spread`` (``"15 minutes"``).

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "quiet_hours", _quiet)


def _quiet(table: Table) -> QuietHours:
    table.only("from", "to", "days", "channel", "on_quiet", "max_hold", "spread")
    start, end = _clock(table, "from"), _clock(table, "to")
    if start == end:
        table.refuse("to", "no_time_left", "Quiet hours that end when they begin leave no time at all.")
    days = table.get("days", list(_DAYS))
    if not isinstance(days, list) or not days or not all(day in _DAYS for day in days):
        table.refuse("days", "not_days", f"{days!r} is no list of days: use {', '.join(_DAYS)}.")
    on_quiet = table.choice("on_quiet", OnQuiet.HOLD)
    return QuietHours(
        start,
        end,
        frozenset(_DAYS.index(day) for day in days),
        table.channel(),
        on_quiet,
        table.span("max_hold", timedelta(days=3), timedelta(days=366)),
        table.span("spread", timedelta(minutes=15), timedelta(days=1)),
    )


def _clock(table: Table, key: str) -> time:
    value = table.get(key)
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        table.refuse(key, "not_a_clock", f"{value!r} is no time of day: write hours and minutes, such as '21:00'.")
    hours, minutes = map(int, match.groups())
    return time(hours, minutes)
