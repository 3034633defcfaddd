"""A new sender's plan: a few messages a day, and more only after days on which they were welcome (BEHAVIOUR.md 5.2, Rate control).

Mailbox providers judge an address that they do not know by its first weeks. The bounds are where Gmail and Yahoo begin to refuse
(complaints: 0.1 % is their advice to bulk senders, 0.3 % their limit) and well below where mail services suspend (5 % of bounces).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from nexus_marketing.core.pacing.rates import RateLimit
from nexus_marketing.core.pacing.tables import Table, checked_tables

MAX_BOUNCED: Final = 0.03
MAX_COMPLAINED: Final = 0.001
_MOST_DAYS: Final = 90
_MOST: Final = 1_000_000_000
_DAY: Final = timedelta(days=1)
#: A day on which less was sent than this share of what it allowed proves nothing.
_USED: Final = 0.5


class DayFigures(NamedTuple):
    """What became of a sender's messages of one day."""

    left: int
    bounced: int
    complained: int


class Burst(NamedTuple):
    """So many messages leave at once, so many seconds after the first."""

    seconds: float
    messages: int


class Standing(NamedTuple):
    """Where a sender is in its plan: the number of its day, from 0, and on which date it is that."""

    step: int
    day: date


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How many messages may leave from an address on the first day, the second, …; after the last as many as one likes."""

    sender: str
    daily: tuple[int, ...]
    max_bounced: float = MAX_BOUNCED
    max_complained: float = MAX_COMPLAINED

    def limit(self, step: int) -> RateLimit | None:
        """What holds on a day of the plan, in any 24 hours; nothing once it is through."""
        return RateLimit(self.daily[step], _DAY, sender=self.sender) if step < len(self.daily) else None

    def last_burst(self, count: int, step: int, day_seconds: float, *, is_marketing: bool) -> "Burst":
        """When the last of so many messages may leave, if every day is used and good, and nothing else is sent.

        Args:
            count: messages, one at least.
            step: of the plan today.
            day_seconds: how much of today (UTC) is over.
            is_marketing: leaves a part of every limit to others.
        """
        window: deque[Burst] = deque()
        now, midnight, today = 0.0, _DAY.total_seconds() - day_seconds, 0
        while True:
            limit = self.limit(step)
            if limit is None:
                return Burst(now, count)
            reach = limit.reach.total_seconds()
            while window and window[0].seconds + reach <= now:
                window.popleft()
            free = limit.most(is_marketing=is_marketing) - sum(each.messages for each in window)
            if free >= count:
                return Burst(now, count)
            if free > 0:
                window.append(Burst(now, free))
                count, today = count - free, today + free
            now = min(midnight, window[0].seconds + reach)
            if now == midnight:
                step, today, midnight = self.after(step, DayFigures(today, 0, 0)), 0, now + _DAY.total_seconds()

    def after(self, step: int, figures: DayFigures) -> int:
        """The next day's step: one on if the day was used and good, else the same again.

        >>> plan = WarmUp("news@acme.example", (50, 100))
        >>> plan.after(0, DayFigures(50, 1, 0)), plan.after(0, DayFigures(50, 2, 0)), plan.after(0, DayFigures(10, 0, 0))
        (1, 0, 0)
        """
        if step >= len(self.daily):
            return step
        is_used = figures.left >= _USED * self.daily[step]
        is_good = (
            figures.bounced <= self.max_bounced * figures.left
            and figures.complained <= self.max_complained * figures.left
        )
        return step + (is_used and is_good)


def warm_ups_of(settings: Mapping[str, Any]) -> tuple[WarmUp, ...]:
    """The plans of a tenant, from its stored settings."""
    return tuple(_warm_up(Table(document)) for document in settings.get("warm_up", ()))


def check_warm_ups(value: object) -> list[dict[str, Any]]:
    """Plans as a tenant writes them down, in the form in which they are stored.

    Each is a table: ``sender`` (an e-mail address that messages come from), ``daily`` (1 to 90 numbers of messages, none
    smaller than the one before), and, if wanted, ``max_bounced`` and ``max_complained`` (shares above 0 and up to 1).

    Raises:
        ValidationError: every fault with its place.
    """
    return checked_tables(value, "warm_up", _warm_up)


def _warm_up(table: Table) -> WarmUp:
    table.only("sender", "daily", "max_bounced", "max_complained")
    sender = table.sender()
    if sender is None:
        table.refuse("sender", "missing", "A plan is for the address that messages come from: name it as sender.")
    return WarmUp(
        sender, _daily(table), table.share("max_bounced", MAX_BOUNCED), table.share("max_complained", MAX_COMPLAINED)
    )


def _daily(table: Table) -> tuple[int, ...]:
    value = table.get("daily")
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_DAYS or not all(map(_is_count, value)):
        table.refuse(
            "daily", "not_counts", f"{value!r} is no list of 1 to {_MOST_DAYS} numbers such as [50, 100, 200]."
        )
    if value != sorted(value):
        table.refuse(
            "daily", "not_growing", f"{value!r} grows smaller: a later day allows no less than an earlier one."
        )
    return tuple(value)


def _is_count(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and 0 < value <= _MOST
