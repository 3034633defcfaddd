"""Time as an argument: the product reads clocks only through this protocol."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Answers the present moment; tests and the simulator bring their own."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)


class FakeClock:
    """A clock that stands still until it is moved: for tests, doctests and simulations.

    >>> clock = FakeClock(datetime(2026, 3, 29, tzinfo=UTC))
    >>> clock.advance(hours=2).isoformat()
    '2026-03-29T02:00:00+00:00'
    """

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """The moment this clock was last set to."""
        return self._now

    def advance(self, **delta: float) -> datetime:
        """Move forward by ``timedelta(**delta)`` and answer the new moment."""
        self._now += timedelta(**delta)
        return self._now
