"""A cache in Redis, shared by the processes of a deployment; a Redis that is away is a cache that is empty."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from redis import Redis, RedisError

from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PREFIX = "nexus:cache"
_TIMEOUT_SECONDS = 0.25  # for longer than that computing is no slower
_AWAY_SECONDS = 5.0


class RedisCache:
    """Keeps values as ``nexus:cache:TENANT:KEY``, each with its own time to live.

    Args:
        url: of the server.
        now_seconds: a clock that never goes back.
    """

    def __init__(self, url: str, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._client = Redis.from_url(url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)
        self._now = now_seconds
        self._away_until = float("-inf")

    def get(self, tenant_id: int, key: str) -> bytes | None:
        """The value, or nothing: it was never there, is over, was thrown out, or Redis is away."""
        return self._ask(lambda: self._client.get(_name(tenant_id, key)))

    def put(self, tenant_id: int, key: str, value: bytes, lifetime: timedelta) -> None:
        """Keep it for so long, where Redis takes it."""
        self._ask(lambda: self._client.set(_name(tenant_id, key), value, px=lifetime))

    def _ask(self, command: Callable[[], Any]) -> Any:
        # Nobody waits for a server that did not answer a moment ago.
        if self._now() < self._away_until:
            return None
        try:
            return command()
        except (RedisError, OSError) as error:
            self._away_until = self._now() + _AWAY_SECONDS
            log.warning("cache_away", error=type(error).__name__)
            return None


def _name(tenant_id: int, key: str) -> str:
    return f"{_PREFIX}:{tenant_id}:{key}"
