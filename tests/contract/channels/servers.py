"""A provider on a port of this machine that speaks HTTP over plain sockets and misbehaves as a script says."""

import contextlib
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Self
from urllib.parse import parse_qs

from nexus_marketing.core.contracts import Content, OutcomeKind, Submission
from nexus_marketing.core.messages import TEXT, Variable, value_key
from nexus_marketing.core.templates import parse_message


@dataclass(frozen=True)
class Heard:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(frozen=True)
class Reply:
    """What one request gets."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: Instead of all that: these bytes, and the end of the connection.
    raw: bytes | None = None
    #: Nothing at all: the connection ends once the request is read (``after``) or before its body is (``before``).
    hang_up: str = ""
    delay_seconds: float = 0.0
    #: One byte at a time, with this in between.
    drip_seconds: float = 0.0

    def encoded(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Said so", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body


class HttpServer:
    """Answers with ``script`` in turn, then with ``usual``; a key that ``choose`` finds has a script of its own.

    ``reply`` stands in the place of ``usual`` for a server that answers by what it was asked.
    """

    def __init__(
        self,
        script: Sequence[Reply] = (),
        *,
        usual: Reply = Reply(),
        choose: Callable[[Heard], str] = lambda _: "",
        on_heard: Callable[[Heard], None] = lambda _: None,
        reply: Callable[[Heard], Reply] | None = None,
    ) -> None:
        self.usual = usual
        self.scripts: dict[str, list[Reply]] = defaultdict(list, {"": list(script)})
        self.heard: list[Heard] = []
        self.tls: ssl.SSLContext | None = None
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self._choose, self._on_heard, self._reply = choose, on_heard, reply
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def allowed(self) -> str:
        """As the operator's setting names it."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def part(self) -> None:
        """Wait until every connection that is to be closed from here is closed; the others must have ended."""
        for thread in self._threads[1:]:
            thread.join(10)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        with contextlib.suppress(OSError, ValueError, IndexError), connection, connection.makefile("rb") as reader:
            while (line := reader.readline()).strip():
                if not self._one(connection, reader, line.decode("latin-1").split()):
                    return

    def _one(self, connection: socket.socket, reader: BufferedReader, start: list[str]) -> bool:
        headers = {}
        while line := reader.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        heard = Heard(start[0], start[1], headers, b"")
        with self._lock:
            script = self.scripts[""]
            if script and script[0].hang_up == "before":
                script.pop(0)
                return False
        body = reader.read(int(headers.get("content-length", 0)))
        heard = Heard(start[0], start[1], headers, body)
        with self._lock:
            self.heard.append(heard)
            self._on_heard(heard)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            script = self.scripts[self._choose(heard)]
            reply = script.pop(0) if script else self._reply(heard) if self._reply else self.usual
        try:
            return self._answer(connection, reply)
        finally:
            with self._lock:
                self.at_once -= 1

    def _answer(self, connection: socket.socket, reply: Reply) -> bool:
        if reply.hang_up or self._stopped.wait(reply.delay_seconds):
            return False
        if reply.raw is not None:
            connection.sendall(reply.raw)
            return False
        if not reply.drip_seconds:
            connection.sendall(reply.encoded())
            return True
        for byte in reply.encoded():
            connection.sendall(bytes([byte]))
            if self._stopped.wait(reply.drip_seconds):
                return False
        return True


class Marks:
    """A journal that remembers: refs on the wire, and outcomes, in order."""

    def __init__(self) -> None:
        self.wired: list[int] = []
        self.ended: dict[int, OutcomeKind] = {}

    def on_wire(self, ref: int) -> None:
        assert ref not in self.wired
        assert ref not in self.ended
        self.wired.append(ref)

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        assert ref in self.wired
        assert ref not in self.ended
        self.ended[ref] = kind


def content(text: str) -> Content:
    """A published text."""
    return Content(parse_message({"text": text}, kind=TEXT), {}, "<c1.t1.localhost>", bulk=True)


def submission(ref: int, address: str = "+4930123456", **values: str) -> Submission:
    """A message; values by the names of the template's variables, which have no filters."""
    names = {value_key(Variable(name, place="text")): value for name, value in values.items()}  # type: ignore[arg-type]
    return Submission(ref, address, f"<r{ref}.s7.t1@localhost>", names)
