"""Dramatiq as the doorbell: a message says that there may be work and carries ids only.

Losing the broker costs seconds of delay, never work: workers poll the tables anyway (DESIGN.md 4.16).
"""

import threading
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Broker, Middleware, Worker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications, TimeLimit
from redis import ConnectionPool, RedisError

from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

QUEUE = "nexus"
_RING_AGE_MS = 60_000


def build_broker(url: str) -> Broker:
    """The broker behind a ``redis://`` or ``amqp://`` URL; nothing is connected yet.

    Raises:
        ImportError: it is RabbitMQ, and the extra ``rabbitmq`` is not installed.
        ValueError: the URL has options that the client does not know.
    """
    middleware = [AgeLimit(max_age=_RING_AGE_MS), TimeLimit(), ShutdownNotifications(), Callbacks(), Retries()]
    broker = _rabbitmq(url, middleware) if url.startswith("amqp") else _redis(url, middleware)
    broker.declare_queue(QUEUE)
    return broker


def _redis(url: str, middleware: list[Middleware]) -> Broker:
    """A broker that gives a killed worker's messages back within seconds.

    Dramatiq's own values return them after minutes: the heartbeat is 60 s and maintenance runs in
    one of a thousand commands (DEPENDENCIES: kill -9 mid-task is redelivered, but late by default).
    """
    return RedisBroker(
        connection_pool=ConnectionPool.from_url(url, socket_timeout=5, socket_connect_timeout=1),
        middleware=middleware,
        heartbeat_timeout=15_000,
        maintenance_chance=50_000,
    )


def _rabbitmq(url: str, middleware: list[Middleware]) -> Broker:
    from nexus_marketing.tasks.rabbitmq import RingBroker  # noqa: PLC0415 - an extra

    return RingBroker(url, middleware, ring_age_ms=_RING_AGE_MS)


class DramatiqDoorbell:
    """Rings workers on any host through a broker, and this process directly."""

    def __init__(self, broker: Broker) -> None:
        self._rung = threading.Event()
        self._broker = broker
        declare = dramatiq.actor(actor_name="ring", queue_name=QUEUE, broker=broker, max_retries=0)
        self._actor: dramatiq.Actor[Any, Any] = declare(self._answer)

    def ring(self, tenant_id: int, queue: str) -> None:
        """Send a nudge; a broker that is away is logged and forgotten, because the tables have the work."""
        self._rung.set()
        try:
            self._actor.send(tenant_id, queue)
        except (RedisError, BrokerConnectionError) as error:
            reason = str(error)[:200]
            log.warning("doorbell_away", tenant_id=tenant_id, queue=queue, error=type(error).__name__, reason=reason)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until rung or timed out."""
        rung = self._rung.wait(timeout_seconds)
        self._rung.clear()
        return rung

    def listen(self) -> Callable[[], None]:
        """Take rings in a thread of Dramatiq's, which comes back to a broker that was away."""
        worker = Worker(self._broker, worker_threads=1, queues={QUEUE})
        worker.start()

        def stop() -> None:
            worker.stop(timeout=5_000)
            self._broker.close()

        return stop

    def _answer(self, tenant_id: int, queue: str) -> None:
        del tenant_id, queue
        self._rung.set()
