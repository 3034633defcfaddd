"""A wire to a mail server that can be cut at a chosen moment of a message."""

import contextlib
import socket
import struct
import threading
import time
from enum import StrEnum
from typing import Self

_DOT = b"\r\n.\r\n"
_HELD_SECONDS = 3.0


class Cut(StrEnum):
    """Where a connection breaks."""

    #: After the envelope was asked for, before any byte of the message.
    BEFORE_DATA = "before_data"
    #: The server has got half of the message.
    MID_DATA = "mid_data"
    #: The server has got all of it, and its answer is lost.
    AFTER_DOT = "after_dot"
    #: The same, and the client is told with a reset.
    RESET_AFTER_DOT = "reset_after_dot"
    #: A reset at whatever moment comes.
    RESET = "reset"
    #: Nothing passes any more, and nobody is told.
    STALL = "stall"


class Proxy:
    """Listens on 127.0.0.1 and passes on; the next connection that comes to the named moment is cut.

    ``cuts`` counts them, ``in_doubt`` those that left a message whose end the client had written and whose answer it
    never got: of those nobody can know.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._wanted: Cut | None = None
        self.cuts = 0
        self.in_doubt = 0
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for each in self._open:
            each.close()

    def cut(self, where: Cut) -> None:
        """Break the next connection that comes there."""
        with self._lock:
            self._wanted = where

    @property
    def is_done(self) -> bool:
        """Whether the connection asked for is broken."""
        return self._wanted is None

    def take(self, *moments: Cut) -> Cut | None:
        """What is to happen now, if it is one of these; it happens once."""
        with self._lock:
            wanted = self._wanted
            if wanted not in moments:
                return None
            self._wanted = None
            return wanted

    def broke(self, *, in_doubt: bool) -> None:
        """Count a connection that was broken."""
        with self._lock:
            self.cuts += 1
            self.in_doubt += in_doubt

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                wire = _Wire(self, client, server)
                threading.Thread(target=wire.there, daemon=True).start()
                threading.Thread(target=wire.back, daemon=True).start()


class _Wire:
    """One connection. What the client sends is whole messages with the next envelope behind them, in one write each."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        #: Whether an end of a message was passed on whose answer has not been passed back.
        self._awaits_answer = False
        self._is_broken = False

    def there(self) -> None:
        """From the client to the server."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 20):
                if self._is_broken:
                    continue
                end = data.find(_DOT)
                if end < 0:
                    self._commands(data)
                else:
                    self._message(data, end)
        self._part()

    def back(self) -> None:
        """From the server to the client."""
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 20):
                if self._is_broken:
                    continue
                if self._awaits_answer and self._proxy.take(Cut.AFTER_DOT):
                    self._break(in_doubt=True)
                elif self._awaits_answer and self._proxy.take(Cut.RESET_AFTER_DOT):
                    self._break(in_doubt=True, reset=True)
                else:
                    # A pipelining server answers the dot first; the client asks for no second message before that.
                    self._awaits_answer = False
                    self._client.sendall(data)
        self._part()

    def _commands(self, data: bytes) -> None:
        if b"MAIL FROM" in data and self._proxy.take(Cut.BEFORE_DATA):
            self._break(in_doubt=self._awaits_answer)
            return
        self._server.sendall(data)

    def _message(self, data: bytes, end: int) -> None:
        moment = self._proxy.take(Cut.MID_DATA, Cut.RESET, Cut.STALL, Cut.BEFORE_DATA)
        if moment is None:
            self._awaits_answer = True
            self._server.sendall(data)
            return
        # All of it was written by the client before it breaks, so the client cannot know how much arrived.
        if moment is not Cut.BEFORE_DATA:
            self._server.sendall(data[: end // 2])
        self._break(in_doubt=True, reset=moment is Cut.RESET, is_told=moment is not Cut.STALL)

    def _break(self, *, in_doubt: bool, reset: bool = False, is_told: bool = True) -> None:
        self._is_broken = True
        self._proxy.broke(in_doubt=in_doubt)
        if not is_told:
            time.sleep(_HELD_SECONDS)
        if reset:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RD)  # wakes who reads there, and sends nothing
            self._client.close()
        self._part()

    def _part(self) -> None:
        for each in (self._client, self._server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
