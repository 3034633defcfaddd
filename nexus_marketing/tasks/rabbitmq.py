"""RabbitMQ as the broker of the doorbell; needs the extra ``rabbitmq``."""

from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pika
from dramatiq import Message, Middleware
from dramatiq.broker import Consumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.exceptions import AMQPError

from nexus_marketing.tasks.publisher import Publisher
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Of a connection, unless the URL has others (pika's names): given up after about a second, tried once.
_OPTIONS = {
    "heartbeat": "20",
    "connection_attempts": "1",
    "socket_timeout": "1",
    "stack_timeout": "2",
    "blocked_connection_timeout": "1",
}
#: Between looks at a connection that wants no heartbeats.
_LONG_SECONDS = 60


class RingBroker(RabbitmqBroker):
    """Never holds up who rings, and lets rings that nobody hears expire inside RabbitMQ."""

    def __init__(self, url: str, middleware: list[Middleware], *, ring_age_ms: int) -> None:
        # A list, because Dramatiq divides a text at each semicolon, those of a password included.
        super().__init__(url=[with_options(url)], confirm_delivery=True, middleware=middleware)
        self._ring_age_ms = ring_age_ms
        heartbeat_seconds = self.parameters[0].heartbeat or _LONG_SECONDS
        self._publisher = Publisher(self._keep_alive, idle_seconds=heartbeat_seconds / 4)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish in one thread of the process, on one connection.

        Raises:
            ConnectionClosed: RabbitMQ is away, or has not confirmed in time.
        """
        try:
            published: Message[Any] = self._publisher.run(partial(super().enqueue, message, delay=delay))
        except (AMQPError, OSError, RuntimeError) as error:
            raise ConnectionClosed(error) from error
        return published

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5_000) -> Consumer:
        """Consume on a connection of its own; the one that declared the queue is not needed further."""
        try:
            return super().consume(queue_name, prefetch, timeout)
        finally:
            del self.connection

    def close(self) -> None:
        """Part from RabbitMQ; the next message connects again."""
        self._publisher.close()
        super().close()

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        # Not Dramatiq's: with those, RabbitMQ would keep rings that nobody takes for ever, and those too old for a week.
        del queue_name
        return {"x-message-ttl": self._ring_age_ms}

    def _keep_alive(self) -> None:
        connection = getattr(self.state, "connection", None)
        if connection is None:
            return
        try:
            connection.process_data_events(time_limit=0)
        except Exception as error:  # noqa: BLE001 - isolation boundary: the next message connects again
            log.info("broker_connection_lost", error=type(error).__name__)
            del self.connection


def reach(url: str) -> None:
    """Connect once.

    Raises:
        OSError: RabbitMQ is away, or refuses us.
    """
    try:
        pika.BlockingConnection(pika.URLParameters(with_options(url))).close()
    except AMQPError as error:
        raise ConnectionError(f"RabbitMQ: {error!r}") from error


def with_options(url: str) -> str:
    """The URL with what keeps a connection dependable, where it does not say otherwise.

    >>> with_options("amqp://rabbit/?heartbeat=60")
    'amqp://rabbit/?heartbeat=60&connection_attempts=1&socket_timeout=1&stack_timeout=2&blocked_connection_timeout=1'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(_OPTIONS | dict(parse_qsl(parts.query)))))
