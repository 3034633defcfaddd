"""Who may hold a thread while somebody else's server answers: few at a time, so that nobody keeps the others waiting."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock

from nexus_marketing.core.errors import RateLimited


class Trials:
    """At most ``most`` at a time in a process, and one of each key; any thread may ask.

    >>> trials = Trials(1)
    >>> with trials.one("a"):
    ...     pass
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._busy: set[Hashable] = set()

    @contextmanager
    def one(self, key: Hashable) -> Iterator[None]:
        """While the block runs.

        Raises:
            RateLimited: this key's other one has not ended, or too many of others.
        """
        with self._lock:
            if key in self._busy or len(self._busy) >= self._most:
                raise RateLimited("Something else is being tried: wait until that ends.", retry_after_seconds=5.0)
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)
