"""When the last of so many messages may leave, if nothing else is sent: rates read the other way round (BEHAVIOUR.md 5.2).

A sliding window of ``count`` in ``reach`` lets a sender that never waits without need have ``count`` at once and as many again
after each ``reach``. Several windows over the same messages let through what the min-plus convolution of these staircases does
(network calculus: Le Boudec and Thiran, 2001); accounts beside one another let through the sum.

>>> from datetime import timedelta
>>> hourly = RateLimit(10, timedelta(hours=1))
>>> [Capacity((Steps.of([hourly], is_marketing=False),)).seconds_for(count) for count in (10, 11, 31)]
[0.0, 3601.0, 10803.0]
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple, Protocol, Self

from nexus_marketing.core.pacing.rates import RateLimit

#: Windows of one path that are told apart, the slowest of them: each more doubles the work.
_MOST: Final = 8
_EXACT_SECONDS: Final = 1e-4
_JUST_BEFORE: Final = 1e-6


class Step(NamedTuple):
    """At most so many in any interval of so many seconds."""

    most: int
    reach: float


class Passage(Protocol):
    """What lets so many messages through in a time."""

    @property
    def windows(self) -> tuple[Step, ...]:
        """Those that limit all of it."""

    @property
    def rate(self) -> float:
        """How many a second in the long run; infinite where nothing limits them."""

    def within(self, seconds: float) -> float:
        """How many may have left so many seconds after the first; infinite where nothing limits them."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Windows that all hold for the same messages, the shortest first."""

    windows: tuple[Step, ...] = ()

    @classmethod
    def of(cls, limits: Iterable[RateLimit], own: Iterable[RateLimit] = (), *, is_marketing: bool) -> Self:
        """Of limits that others share (marketing leaves a part of these), and those of the send alone."""
        found = [Step(each.most(is_marketing=is_marketing), each.reach.total_seconds()) for each in limits]
        found += [Step(each.count, each.reach.total_seconds()) for each in own]
        slowest = sorted(found, key=lambda each: each.most / each.reach)
        binding: list[Step] = []
        for each in sorted(slowest[:_MOST], key=lambda each: (each.most, -each.reach)):
            if not any(
                other.reach >= each.reach for other in binding
            ):  # no more than these in a longer time says it all
                binding.append(each)
        return cls(tuple(sorted(binding, key=lambda each: each.reach)))

    @property
    def rate(self) -> float:
        """How many a second in the long run; infinite where nothing limits them."""
        return min((each.most / each.reach for each in self.windows), default=inf)

    def within(self, seconds: float) -> float:
        """How many may have left so many seconds after the first; infinite where nothing limits them."""
        return _within(self.windows, seconds)


@dataclass(frozen=True, slots=True)
class Fork:
    """A path of which each kind of messages (those to a domain) has its own part, and what holds for all of them together."""

    parts: Sequence[Steps]
    together: Steps

    @property
    def windows(self) -> tuple[Step, ...]:
        """Those that limit all of it."""
        return self.together.windows

    @property
    def rate(self) -> float:
        """How many a second in the long run."""
        return min(self.together.rate, sum(each.rate for each in self.parts))

    def within(self, seconds: float) -> float:
        """How many may have left so many seconds after the first, where no part keeps another from the whole's windows."""
        return min(self.together.within(seconds), sum(each.within(seconds) for each in self.parts))


@dataclass(frozen=True, slots=True)
class Capacity:
    """Paths beside one another (a sender's accounts), and what holds for all of them together."""

    paths: Sequence[Passage]
    together: Passage = Steps()

    def fluid_seconds_for(self, count: int) -> float:
        """About how long the last of so many waits, at a hundredth of the price of :meth:`seconds_for`."""
        rate = min(self.together.rate, sum(path.rate for path in self.paths) if self.paths else inf)
        return max(0.0, count - self.within(0.0)) / rate

    def within(self, seconds: float) -> float:
        """How many may have left so many seconds after the first; infinite where nothing limits them."""
        paths, together = self._paths, self.together.within
        found = min(paths(seconds), together(seconds))
        for window in self.together.windows:
            found = min(found, _after_rounds(together, paths, window, seconds))
        for window in {window for path in self.paths for window in path.windows}:
            found = min(found, _after_rounds(paths, together, window, seconds))
        return found

    def seconds_for(self, count: int) -> float:
        """How long the last of so many waits."""
        if self.within(0.0) >= count:
            return 0.0
        least, most = 0.0, 1.0
        while self.within(most) < count:
            least, most = most, 2 * most
        while most - least > _EXACT_SECONDS:
            middle = (least + most) / 2
            least, most = (least, middle) if self.within(middle) >= count else (middle, most)
        return round(most, 3)

    def _paths(self, seconds: float) -> float:
        return sum(path.within(seconds) for path in self.paths) if self.paths else inf


def _after_rounds(
    slow: Callable[[float], float], other: Callable[[float], float], window: Step, seconds: float
) -> float:
    """As long as one side takes all whole rounds of its window, and the other the rest of the time."""
    rounds = int(seconds // window.reach)
    if not rounds:
        return inf
    return slow(rounds * window.reach - _JUST_BEFORE) + other(seconds - rounds * window.reach)


def _within(windows: Sequence[Step], seconds: float) -> float:
    if not windows:
        return inf
    *faster, slowest = windows
    rounds = int(seconds // slowest.reach)
    rest = min(slowest.most, _within(faster, seconds - rounds * slowest.reach))
    through = rounds * slowest.most + rest
    return min(through, _within(faster, seconds)) if rounds else through
