"""Servers the client is judged by: one that misbehaves by script, the sink in a thread, an ordinary third-party one."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from nexus_marketing.smtp.sink import Rule, Sink

BODY = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: hi\r\n\r\n" + (b"x" * 74 + b"\r\n") * 40

GARBAGE = {
    "garbage": b"hello there\r\n",
    "short": b"25 ok\r\n",
    "binary": b"\xff\xfe\x00\r\n",
    "endless": b"x" * 20000,
    "mixed": b"250-one\r\n251 two\r\n",
}
REPLIES = {
    "ok": b"250 2.0.0 ok\r\n",
    "bare": b"250\r\n",
    "multi": b"250-2.0.0 first\r\n250-2.0.0 second\r\n250 2.0.0 last\r\n",
    "temporary": b"451 4.3.0 later\r\n",
    "slow_down": b"450 4.7.1 slower\r\n",
    "permanent": b"550 5.1.1 no such user\r\n",
    "closing": b"421 4.3.2 going away\r\n",
    "unsolicited": b"250 2.0.0 ok\r\n250 2.0.0 once more\r\n",
}
ACTIONS = [*GARBAGE, *REPLIES, "drop", "stall", "split", "go"]


class ScriptedServer:
    """Takes one action from the script per command and per message end; when it is used up, all goes well.

    ``complete`` counts messages read to their final dot by recipient, ``accepted`` those answered 250.
    """

    def __init__(self, script: Sequence[str] = (), *, pipelining: bool = True) -> None:
        self._script = list(script)
        self._offer = (
            b"250-test\r\n250-PIPELINING\r\n250 8BITMIME\r\n" if pipelining else b"250-test\r\n250 8BITMIME\r\n"
        )
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.complete: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.empty_messages = 0
        self.sessions = 0
        self.commands: list[bytes] = []

    def __enter__(self):
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(self, *_):
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def _listen(self):
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _next(self) -> str:
        with self._lock:
            return self._script.pop(0) if self._script else "ok"

    def _serve(self, sock):
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as reader:
            sock.sendall(b"220 test\r\n")
            recipient, refused = "", True
            while line := reader.readline():
                self.commands.append(line)
                verb = line[:4].upper()
                if verb in {b"EHLO", b"HELO"}:
                    sock.sendall(self._offer)
                elif verb == b"RSET":
                    recipient, refused = "", True
                    sock.sendall(b"250 2.0.0 reset\r\n")
                elif verb == b"QUIT":
                    sock.sendall(b"221 2.0.0 bye\r\n")
                    return
                elif verb == b"DATA":
                    if not self._data(sock, reader, recipient, refused=refused):
                        return
                    recipient, refused = "", True
                else:
                    action = self._next()
                    taken = self._apply(sock, action)
                    if taken is None:
                        return
                    if verb == b"RCPT":
                        recipient, refused = line[9:-3].decode(), refused or not taken
                    else:
                        refused = not taken

    def _data(self, sock, reader, recipient, *, refused) -> bool:
        action = self._next()
        if refused and action != "go":
            sock.sendall(b"503 5.5.1 no recipient\r\n")
            return True
        if action in {"ok", "go", "split", "multi", "bare"}:
            sock.sendall(b"354 go\r\n")
            return self._message(sock, reader, recipient, refused=refused)
        return self._apply(sock, action) is not None

    def _message(self, sock, reader, recipient, *, refused) -> bool:
        action = self._next()
        first = reader.readline()
        if action == "drop":
            return False
        if first != b".\r\n":
            while (line := reader.readline()) != b".\r\n":
                if not line:
                    return False
        elif refused:
            self.empty_messages += 1
            sock.sendall(b"554 5.5.1 no valid recipients\r\n")
            return True
        self.complete[recipient] += 1
        if action in {"ok", "multi", "bare", "split", "unsolicited", "go"}:
            self.accepted[recipient] += 1
        if action == "go":
            return False
        return self._apply(sock, action) is not None

    def _apply(self, sock, action) -> bool | None:
        """Answer: True taken, False refused, None the connection ends."""
        if action == "drop":
            return None
        if action == "stall":
            self._stopped.wait(5)
            return None
        if action in GARBAGE:
            sock.sendall(GARBAGE[action])
            return True
        if action in {"split", "go"}:
            sock.sendall(b"25")
            sock.sendall(b"0 2.0.0 ok\r\n")
            return True
        sock.sendall(REPLIES[action])
        return None if action == "closing" else action not in {"temporary", "permanent", "slow_down"}


@contextlib.contextmanager
def running_sink(*, rules: Sequence[Rule] = (), log: Path | None = None, record: bool = True) -> Iterator[Sink]:
    """The sink, in a thread."""
    sink = Sink(rules=rules, log=log, record=record)
    thread = threading.Thread(target=sink.run, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.stop()
        thread.join(10)
