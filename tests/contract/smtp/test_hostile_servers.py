"""Servers that tenants name while a connection is set up: whatever they say, it ends, and takes no more than it should."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from nexus_marketing.core.errors import NexusError
from nexus_marketing.smtp.accounts import probe
from nexus_marketing.smtp.client import PoolSettings
from nexus_marketing.smtp.handshake import SetupError, TlsPolicy, open_session

pytestmark = pytest.mark.req("SR-004", "S10")

Talk = Callable[[socket.socket], None]


@contextmanager
def server(talk: Talk) -> Iterator[PoolSettings]:
    """A server that speaks so to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                talk(sock)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield PoolSettings(host="127.0.0.1", port=port, tls=TlsPolicy.NONE, connect_timeout_seconds=0.4)
    finally:
        listener.close()
        thread.join(5)
        assert not thread.is_alive()


def test_a_reply_without_end_is_not_kept() -> None:
    """The standard library keeps every line of one, for as long as they come: memory that all tenants share."""
    said = 0

    def talk(sock: socket.socket) -> None:
        nonlocal said
        line = b"220-" + b"x" * 1_000 + b"\r\n"
        while said < 50_000_000:
            sock.sendall(line * 20)
            said += 20 * len(line)

    with server(talk) as settings, pytest.raises(SetupError, match="does not end"):
        open_session(settings)
    assert said < 10_000_000


def test_a_reply_that_drips_ends_with_its_step() -> None:
    stopped = threading.Event()

    def talk(sock: socket.socket) -> None:
        for _ in range(60):
            sock.sendall(b"2")
            if stopped.wait(0.05):
                break

    began = time.monotonic()
    with server(talk) as settings:
        with pytest.raises(SetupError):
            open_session(settings)
        stopped.set()
    assert time.monotonic() - began < 1.5


def test_whoever_looks_at_a_server_that_says_nonsense_has_an_answer_at_once() -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(b"220 hi\r\n")
        sock.recv(1_000)
        sock.sendall(b"250-test\r\n250 SIZE " + b"9" * 5_000 + b"\r\n")
        sock.recv(1_000)

    began = time.monotonic()
    with server(talk) as settings, suppress(NexusError):
        probe(settings)
    assert time.monotonic() - began < 2
