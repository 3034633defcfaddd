"""Keeps tests on this machine: connecting anywhere but to loopback is refused."""

import ipaddress
import socket
from typing import Any

import pytest

LOCAL_NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost"}


class NetworkRefused(AssertionError):
    """A test tried to reach another machine: give it a server on 127.0.0.1 instead."""


def is_local(host: object) -> bool:
    """Whether this host is the machine itself, without asking a name server."""
    if host is None or (isinstance(host, str) and host in LOCAL_NAMES):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text == socket.gethostname()
    return address.is_loopback or address.is_unspecified


def refuse_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard ``connect``, ``connect_ex``, ``sendto`` and name look-ups for as long as the patch lasts.

    Libraries in C, libpq among them, connect by themselves and are not seen here.
    """

    class GuardedSocket(socket.socket):
        def connect(self, address: Any) -> None:
            check(self, address)
            super().connect(address)

        def connect_ex(self, address: Any) -> int:
            check(self, address)
            return super().connect_ex(address)

        def sendto(self, data: Any, *rest: Any) -> int:
            check(self, rest[-1])
            return super().sendto(data, *rest)

    def check(sock: socket.socket, address: Any) -> None:
        if sock.family in {socket.AF_INET, socket.AF_INET6} and not is_local(address[0]):
            raise NetworkRefused(f"connection to {address[0]}:{address[1]} refused: tests stay on 127.0.0.1")

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_local(host):
            raise NetworkRefused(f"name look-up of {host!r} refused: tests stay on 127.0.0.1")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", GuardedSocket)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
