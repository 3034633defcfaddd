"""A cache in the memory of one process."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta


class MemoryCache:
    """Keeps what was used last.

    Args:
        most: values at most.
        now_seconds: a clock that never goes back.
    """

    def __init__(self, now_seconds: Callable[[], float], most: int = 1_000) -> None:
        self._now, self._most = now_seconds, most
        self._kept: OrderedDict[tuple[int, str], tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tenant_id: int, key: str) -> bytes | None:
        """The value, unless its time is over or others took its place."""
        with self._lock:
            until, value = self._kept.pop((tenant_id, key), (0.0, b""))
            if until <= self._now():
                return None
            self._kept[tenant_id, key] = until, value
            return value

    def put(self, tenant_id: int, key: str, value: bytes, lifetime: timedelta) -> None:
        """Keep it for so long."""
        with self._lock:
            self._kept.pop((tenant_id, key), None)
            self._kept[tenant_id, key] = self._now() + lifetime.total_seconds(), value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
