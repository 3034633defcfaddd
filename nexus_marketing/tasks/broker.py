"""Dramatiq as the doorbell: a message says that there may be work and carries ids only.

Losing the broker costs seconds of delay, never work: workers poll the tables anyway (DESIGN.md 4.16).
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import dramatiq
from dramatiq import Broker, Message, Middleware, Worker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications, TimeLimit
from redis import ConnectionPool, RedisError

from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

QUEUE = "nexus"
_RING: Final = "ring"
_RING_AGE_MS = 60_000
_HEARING_SECONDS = 5.0
#: Whoever launches waits no longer than this for the ring to leave.
_RINGING_SECONDS = 0.25
_AWAY_SECONDS = 5.0


class RedisRings(RedisBroker):
    """Fetches rings and nothing else.

    One message that cannot be read makes a consumer of Dramatiq's pause for three seconds and forget what it fetched
    with it; one that names another queue ends the thread that answers. Here both are dropped before they are seen.
    Redis gives them to the next worker when this one has ended, which drops them too.
    """

    def do_fetch(self, queue_name: str, count: int) -> list[bytes]:
        """Up to so many messages of a queue that are rings."""
        found = self._dispatch("fetch")(queue_name, count)
        rings = [each for each in found if _is_ring(each)]
        if len(rings) < len(found):
            log.warning("doorbell_rubbish", queue=queue_name, messages=len(found) - len(rings))
        return rings

    def close(self) -> None:
        """Part from Redis; the next message connects again."""
        super().close()
        self.client.connection_pool.disconnect()


def build_broker(url: str, timeout_seconds: float = _HEARING_SECONDS) -> Broker:
    """The broker behind a ``redis://`` or ``amqp://`` URL; nothing is connected yet.

    Args:
        url: of the server.
        timeout_seconds: how long Redis may take to connect (at most a second) and to answer.

    Raises:
        ImportError: it is RabbitMQ, and the extra ``rabbitmq`` is not installed.
        ValueError: the URL has options that the client does not know.
    """
    middleware = [AgeLimit(max_age=_RING_AGE_MS), TimeLimit(), ShutdownNotifications(), Callbacks(), Retries()]
    broker = _rabbitmq(url, middleware) if _is_rabbitmq(url) else _redis(url, middleware, timeout_seconds)
    broker.declare_queue(QUEUE)
    return broker


def _is_rabbitmq(url: str) -> bool:
    return url.startswith("amqp")


def _redis(url: str, middleware: list[Middleware], timeout_seconds: float) -> Broker:
    """A broker that gives a killed worker's messages back within seconds.

    Dramatiq's own values return them after minutes: the heartbeat is 60 s and maintenance runs in
    one of a thousand commands (DEPENDENCIES: kill -9 mid-task is redelivered, but late by default).
    """
    connect_seconds = min(1.0, timeout_seconds)
    return RedisRings(
        connection_pool=ConnectionPool.from_url(
            url, socket_timeout=timeout_seconds, socket_connect_timeout=connect_seconds
        ),
        middleware=middleware,
        heartbeat_timeout=15_000,
        maintenance_chance=50_000,
    )


def _rabbitmq(url: str, middleware: list[Middleware]) -> Broker:
    from nexus_marketing.tasks.rabbitmq import RingBroker  # noqa: PLC0415 - an extra

    return RingBroker(url, middleware, ring_age_ms=_RING_AGE_MS)


class DramatiqDoorbell:
    """Rings workers on any host through a broker, and this process directly.

    Args:
        url: of the broker.
        now_seconds: a clock that never goes back.

    Raises:
        ImportError: as of :func:`build_broker`, and so ``ValueError``.
    """

    def __init__(self, url: str, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._rung = threading.Event()
        self._now = now_seconds
        self._away_until = float("-inf")
        self._hearing = build_broker(url)
        # RabbitMQ's publishes in a thread of its own, for which nobody waits long.
        self._ringing = self._hearing if _is_rabbitmq(url) else build_broker(url, _RINGING_SECONDS)
        declare = dramatiq.actor(actor_name=_RING, queue_name=QUEUE, broker=self._hearing, max_retries=0)
        self._actor: dramatiq.Actor[Any, Any] = declare(self._answer)

    def ring(self, tenant_id: int, queue: str) -> None:
        """Send a nudge; a broker that is away is logged and forgotten, because the tables have the work."""
        self._rung.set()
        # Nobody waits for a server that did not answer a moment ago: a frozen one would hold up every request.
        if self._now() < self._away_until:
            return
        try:
            self._ringing.enqueue(self._actor.message(tenant_id, queue))
        except (RedisError, BrokerConnectionError) as error:
            self._away_until = self._now() + _AWAY_SECONDS
            reason = str(error)[:200]
            log.warning("doorbell_away", tenant_id=tenant_id, queue=queue, error=type(error).__name__, reason=reason)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until rung or timed out."""
        rung = self._rung.wait(timeout_seconds)
        self._rung.clear()
        return rung

    def listen(self) -> Callable[[], None]:
        """Take rings in a thread of Dramatiq's, which comes back to a broker that was away."""
        worker = Worker(self._hearing, worker_threads=1, queues={QUEUE})
        worker.start()

        def stop() -> None:
            worker.stop(timeout=5_000)
            self.close()

        return stop

    def close(self) -> None:
        """Part from the broker; the next ring connects again."""
        self._hearing.close()
        self._ringing.close()

    def _answer(self, tenant_id: int, queue: str) -> None:
        del tenant_id, queue
        self._rung.set()


def _is_ring(data: bytes) -> bool:
    try:
        message = Message.decode(data)
        options = dict(message.options)
        known = isinstance(options.get("redis_message_id"), str) and "eta" not in options
        return known and (message.queue_name, message.actor_name) == (QUEUE, _RING) and len(message.args) == 2
    except Exception:  # noqa: BLE001 - anybody may have put anything there, and none of it is a ring
        return False
