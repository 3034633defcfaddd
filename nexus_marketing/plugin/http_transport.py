"""Connections that go to checked addresses and end in time, below :mod:`nexus_marketing.plugin.http`."""

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import httpcore
from ssrfguard import Policy
from ssrfguard.httpx import SafeBackend, SafeTransport

#: As ``socket.getaddrinfo`` is called and answers.
Resolver = Callable[..., Any]


class Deadline(threading.local):
    """When the exchange of the calling thread is over, by the monotonic clock."""

    until: float = float("inf")

    def left(self, timeout: float | None) -> float:
        """What remains for one step of it.

        Raises:
            httpcore.ReadTimeout: nothing.
        """
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise httpcore.ReadTimeout("the exchange took too long")
        return remaining if timeout is None else min(timeout, remaining)


class _Stream(httpcore.NetworkStream):
    """A stream whose steps end with the exchange: a byte a second must not hold a thread for a day."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _Stream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(SafeBackend):
    """Connects to checked addresses, by streams that end in time."""

    def __init__(self, policy: Policy, resolver: Resolver, deadline: Deadline) -> None:
        super().__init__(policy=policy, resolver=resolver)
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, self._deadline.left(timeout), local_address, socket_options)
        return _Stream(stream, self._deadline)


class Transport(SafeTransport):
    """The guarded transport over streams that end in time."""

    def __init__(self, policy: Policy, resolver: Resolver, tls: ssl.SSLContext, deadline: Deadline) -> None:
        super().__init__(policy=policy, verify=tls, trust_env=False)
        # In place of the pool that the library made in the same way, with the same backend below ours.
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=None,
            keepalive_expiry=5.0,
            retries=0,
            network_backend=_Backend(policy, resolver, deadline),
        )


def bounded(look_up: Resolver, seconds: float) -> Resolver:
    """Look-ups that end in time: the platform's waits for a name server as long as that likes."""

    def bounded(*question: Any) -> Any:
        found: Future[Any] = Future()

        def ask() -> None:
            try:
                found.set_result(look_up(*question))
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                found.set_exception(error)

        threading.Thread(target=ask, name="name-lookup", daemon=True).start()
        return found.result(seconds)

    return bounded
