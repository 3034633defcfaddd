"""Exact sliding windows in the memory of one process (SECURITY.md S18).

A window counter that starts anew at each clock minute lets twice its limit through around the full
minute, and an approximated one refuses too early or too late. This one remembers each moment and is
exact. What was taken longer ago than a window is forgotten, so that its memory is that of one window's takes.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a window says.

    ``remaining`` is how many more are allowed now; ``reset_seconds`` until the window is as good as new,
    ``retry_after_seconds`` until the next one is allowed (0 when this one was).
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class SlidingWindows:
    """At most ``limit`` takes in any ``window_seconds``, for each key on its own.

    >>> windows = SlidingWindows(2, 60.0, lambda: 0.0)
    >>> [windows.take("a").allowed for _ in range(3)], windows.take("b").allowed
    ([True, True, False], True)
    """

    def __init__(
        self, limit: int, window_seconds: float, now_seconds: Callable[[], float], *, max_keys: int = 10_000
    ) -> None:
        self.limit = limit
        self.window_seconds = window_seconds
        self._now = now_seconds
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._moments: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def take(self, key: Hashable) -> Verdict:
        """Take one if it is allowed; a refusal takes nothing."""
        return self._ask(key, 1)

    def look(self, key: Hashable) -> Verdict:
        """The verdict that the next take would get, without taking."""
        return self._ask(key, 0)

    def _ask(self, key: Hashable, amount: int) -> Verdict:
        with self._lock:
            now = self._now()
            moments = self._current(key, now)
            allowed = len(moments) < self.limit
            if allowed and amount:
                moments.append(now)
            return self._verdict(moments, now, allowed=allowed)

    def _current(self, key: Hashable, now: float) -> deque[float]:
        moments = self._moments.get(key)
        if moments is None:
            self._forget(now - self.window_seconds)
            moments = self._moments[key] = deque()
        else:
            self._moments.move_to_end(key)
        oldest = now - self.window_seconds
        while moments and moments[0] <= oldest:
            moments.popleft()
        return moments

    def _forget(self, oldest: float) -> None:
        """Whoever was quiet for a window, and whoever was quiet longest where there are too many."""
        while self._moments:
            key, moments = next(iter(self._moments.items()))
            if len(self._moments) < self._max_keys and moments and moments[-1] > oldest:
                return
            del self._moments[key]

    def _verdict(self, moments: deque[float], now: float, *, allowed: bool) -> Verdict:
        if not moments:
            return Verdict(allowed, self.limit, self.limit, 0.0, 0.0)
        window = self.window_seconds
        wait = 0.0 if allowed else moments[-self.limit] + window - now
        return Verdict(allowed, self.limit, max(0, self.limit - len(moments)), moments[-1] + window - now, wait)
