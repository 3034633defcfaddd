"""A wire between a client and a server that notes what is asked, and can be cut before an answer arrives."""

import contextlib
import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any


class Wire:
    """Listens on 127.0.0.1 and passes everything on to a server there.

    ``asked`` is what clients sent. ``cut_after`` is a word: the connection on which it is sent is closed when
    the server has answered, instead of passing the answer on; that happens ``cuts`` times.
    """

    def __init__(self, port: int) -> None:
        self.asked = b""
        self.cut_after = b""
        self.cuts = 0
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        waiting = {"cut": False}
        Thread(target=self._answer, args=(client, server, waiting), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self.asked += data
                if self.cuts > 0 and self.cut_after in data:
                    self.cuts -= 1
                    waiting["cut"] = True
                server.sendall(data)

    def _answer(self, client: socket.socket, server: socket.socket, waiting: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if waiting["cut"]:
                    break
                client.sendall(data)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    """A wire to a port of this machine."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
