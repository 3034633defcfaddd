"""What a process may believe for a moment without asking again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


class ShortMemory(Generic[Key, Found]):
    """Answers by key, each for so many seconds; of too many the one that was noted longest ago is forgotten.

    Every method may be called from any thread.

    >>> moments = iter([0.0, 0.5, 2.0])
    >>> memory = ShortMemory(1.0, lambda: next(moments))
    >>> memory.note("a", 1)
    >>> memory.fresh("a"), memory.fresh("a"), memory.last("a")
    (1, None, 1)
    """

    def __init__(self, lifetime_seconds: float, now_seconds: Callable[[], float], *, max_keys: int = 10_000) -> None:
        self._lifetime = lifetime_seconds
        self._now = now_seconds
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, tuple[float, Found]] = OrderedDict()

    def fresh(self, key: Key) -> Found | None:
        """What may still be believed."""
        known = self._kept.get(key)
        return known[1] if known is not None and self._now() < known[0] else None

    def last(self, key: Key) -> Found | None:
        """What was noted last, however long ago."""
        known = self._kept.get(key)
        return None if known is None else known[1]

    def ask(self, key: Key, read: Callable[[], Found]) -> Found:
        """What may still be believed, else what ``read`` answers: believed from the moment before it was asked."""
        known = self.fresh(key)
        if known is not None:
            return known
        begun = self._now()
        found = read()
        self._note(key, found, begun)
        return found

    def note(self, key: Key, found: Found) -> None:
        """Believe this from now on."""
        self._note(key, found, self._now())

    def _note(self, key: Key, found: Found, since: float) -> None:
        with self._lock:
            self._kept[key] = since + self._lifetime, found
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_keys:
                self._kept.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Ask again."""
        with self._lock:
            self._kept.pop(key, None)
