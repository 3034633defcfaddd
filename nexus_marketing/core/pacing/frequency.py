"""How often somebody may be written to: frequency caps and who goes first (BEHAVIOUR.md 5.1, BR-001).

A cap allows so many *targetings* of a lead within a window: a calendar day, week or month where the lead lives, or any span of
time. One send is one, however many tries it takes, and so is one visit of a journey's run to a message. Caps are for marketing; what a person asked for is never held back.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from nexus_marketing.core.pacing.tables import Table, checked_tables


class Period(StrEnum):
    """Windows of the calendar where the lead lives; weeks begin on Monday (ISO 8601)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class OnCap(StrEnum):
    """What becomes of a message that is one too many."""

    SKIP = "skip"
    DEFER = "defer"


_LONGEST: Final = timedelta(days=366)
_DEFER: Final = timedelta(days=3)
_MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``count`` targetings of a lead within ``window``, on one channel or (``None``) on all together.

    A message that is one too many is skipped, or waits for room; longer than ``defer_max`` it does not wait.
    """

    count: int = 1
    window: Period | timedelta = Period.DAY
    channel: str | None = None
    on_cap: OnCap = OnCap.SKIP
    defer_max: timedelta = _DEFER

    def since(self, now: datetime, zone: ZoneInfo) -> datetime:
        """The first moment of the window that ends now: uses before it do not count."""
        if isinstance(self.window, timedelta):
            return now - self.window + timedelta.resolution
        return _midnight(_first_day(self.window, now.astimezone(zone)), zone)

    def free_at(self, uses: Sequence[datetime], now: datetime, zone: ZoneInfo) -> datetime:
        """When there is room again for somebody whose uses fill the window.

        Args:
            uses: the moments that count, oldest first; ``count`` of them at least.
        """
        if isinstance(self.window, timedelta):
            return uses[-self.count] + self.window
        local = _first_day(self.window, now.astimezone(zone))
        if self.window is Period.MONTH:
            later = (local.replace(day=28) + timedelta(days=4)).replace(day=1)
        else:
            later = local + timedelta(days=7 if self.window is Period.WEEK else 1)
        return _midnight(later, zone)

    @property
    def reach(self) -> timedelta:
        """No window is longer: what was earlier than this need not be read."""
        if isinstance(self.window, timedelta):
            return self.window
        return {Period.DAY: timedelta(days=2), Period.WEEK: timedelta(days=8), Period.MONTH: timedelta(days=32)}[
            self.window
        ]


#: BR-001: no lead is targeted more than once a day, unless a tenant says otherwise.
DEFAULT_CAPS: Final = (Cap(),)


@dataclass(frozen=True, slots=True)
class Use:
    """Somebody was written to, or is just being: ``at`` is when it left, or now where it has not yet.

    Uses of one targeting are one: its channels carry the same message (BEHAVIOUR.md 5.1).
    """

    at: datetime
    channel: str
    targeting: Hashable


#: Of a campaign that says none.
DEFAULT_PRIORITY: Final = 50


@dataclass(frozen=True, slots=True)
class Rank:
    """What decides between messages that are due for the same lead: the smaller goes first.

    Higher ``priority`` (0 to 100) first, then the send that was launched earlier.
    """

    priority: int
    send_id: int

    @property
    def order(self) -> tuple[int, int]:
        """To be compared."""
        return (-self.priority, self.send_id)


class Answer(StrEnum):
    """What the caps say about one more message."""

    GO = "go"
    SKIP = "skip"
    LATER = "later"
    OUTRANKED = "outranked"


@dataclass(frozen=True, slots=True)
class Room:
    """An answer; with ``LATER`` also when there is room again."""

    answer: Answer
    until: datetime | None = None


def room_for(
    caps: Iterable[Cap], channel: str, uses: Sequence[Use], waiting: int, now: datetime, zone: ZoneInfo
) -> Room:
    """What the caps, which must all agree, say about one more message to a lead.

    Args:
        caps: of the tenant.
        channel: of the message.
        uses: of the lead, oldest first.
        waiting: messages of other sends that are due for the same lead and go first.
        now: the moment.
        zone: where the lead lives.
    """
    until: datetime | None = None
    is_outranked = False
    for cap in caps:
        if cap.channel not in (None, channel):
            continue
        since = cap.since(now, zone)
        # The last of each targeting, which is the one that stays in the window longest.
        last = {use.targeting: use.at for use in uses if use.at >= since and cap.channel in (None, use.channel)}
        counted = sorted(last.values())
        if len(counted) < cap.count:
            is_outranked = is_outranked or len(counted) + waiting >= cap.count
            continue
        free_at = cap.free_at(counted, now, zone)
        if cap.on_cap is OnCap.SKIP or free_at - now > cap.defer_max:
            return Room(Answer.SKIP)
        until = free_at if until is None else max(until, free_at)
    if until is not None:
        return Room(Answer.LATER, until)
    return Room(Answer.OUTRANKED if is_outranked else Answer.GO)


def caps_of(settings: Mapping[str, Any]) -> tuple[Cap, ...]:
    """The caps of a tenant, from its stored settings; BR-001 where it says nothing."""
    if "frequency_caps" not in settings:
        return DEFAULT_CAPS
    return tuple(_cap(Table(document)) for document in settings["frequency_caps"])


def check_caps(value: object) -> list[dict[str, Any]]:
    """Frequency caps as a tenant writes them down, in the form in which they are stored.

    Each is a table: ``count`` (1 to 1,000), ``window`` (``day``, ``week``, ``month`` of the lead's calendar, or a span
    such as ``"36 hours"``), and, if wanted, ``channel``, ``on_cap`` (``skip`` or ``defer``) and ``defer_max``
    (``"3 days"``). An empty list switches them off.

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "frequency_caps", _cap)


def _cap(table: Table) -> Cap:
    table.only("count", "window", "channel", "on_cap", "defer_max")
    window = table.get("window", Period.DAY)
    return Cap(
        table.count("count", 1, _MOST),
        Period(window) if window in tuple(Period) else table.span("window", None, _LONGEST),
        table.channel(),
        table.choice("on_cap", OnCap.SKIP),
        table.span("defer_max", _DEFER, _LONGEST),
    )


def _first_day(period: Period, local: datetime) -> datetime:
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day


def _midnight(day: datetime, zone: ZoneInfo) -> datetime:
    """When a day begins there: the first moment that has its date, also where midnight does not exist or comes twice."""
    return datetime.combine(day.date(), time(), zone).astimezone(UTC)
