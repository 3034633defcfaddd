"""A short message centre on a port of this machine: speaks SMPP 3.4, and misbehaves as a script says."""

import contextlib
import socket
import ssl
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, Queue
from typing import Any, Self

import smpp34

BIND_RECEIVER, BIND_TRANSMITTER, SUBMIT, DELIVER, UNBIND, BIND_TRANSCEIVER, ENQUIRE = 1, 2, 4, 5, 6, 9, 0x15
RESPONSE = 0x80000000
RECEIPT = 0x04
MESSAGE_PAYLOAD = 0x0424
INVALID_PASSWORD, ALREADY_BOUND, INVALID_TO, QUEUE_FULL, THROTTLED = 0x0E, 0x05, 0x0B, 0x14, 0x58


@dataclass(frozen=True)
class Reply:
    """What one ``submit_sm`` gets; ``held``: when the test lets it go."""

    status: int = 0
    held: bool = False
    silent: bool = False
    hang_up: bool = False
    #: Instead of a reply.
    raw: bytes | None = None


@dataclass(frozen=True)
class Submitted:
    """A ``submit_sm`` as it arrived, and the id that it got."""

    message: Any
    id: str

    @property
    def to(self) -> str:
        return str(self.message.destination_addr)

    @property
    def octets(self) -> bytes:
        """The text with its header, wherever it stands."""
        payload = [each.value for each in self.message.tlvs if each.tag == MESSAGE_PAYLOAD]
        return bytes(payload[0] if payload else self.message.short_message)


@dataclass(eq=False)
class Bound:
    """A connection, bound or not yet."""

    sock: socket.socket
    kind: int = 0
    strings: list[str] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)
    answered: "Queue[tuple[int, int, int]]" = field(default_factory=Queue)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, data: bytes) -> None:
        with self.lock:
            self.sock.sendall(data)


class Smsc:
    """Takes ``shop`` with ``s3cret``.

    Attributes:
        replies: by destination, in turn; ``usual`` for everybody else.
        bind_statuses: for the binds to come, in turn; then 0.
        most_binds: more at once are answered with ESME_RALYBND.
        submitted: every ``submit_sm``.
        tried: how many connections there have been.
    """

    password = "s3cret"

    def __init__(self, *, usual: Reply = Reply(), tls: ssl.SSLContext | None = None, most_binds: int = 100) -> None:
        self.usual = usual
        self.tls = tls
        self.most_binds = most_binds
        self.replies: defaultdict[str, list[Reply]] = defaultdict(list)
        self.bind_statuses: list[int] = []
        self.submitted: list[Submitted] = []
        self.tried = 0
        self.enquired = threading.Event()
        self.parted = threading.Event()
        self.bound: list[Bound] = []
        self._ids = count(1)
        self._sequences = count(1)
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    @property
    def settings(self) -> dict[str, Any]:
        """Of an account here."""
        own = {"host": "127.0.0.1", "port": self.port, "tls": False, "system_id": "shop", "password": self.password}
        return {"provider": "smpp", "from": "+4930999", **own}

    @property
    def allowed(self) -> str:
        """As the operator's setting names it."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()

    def wait_for(self, count_: int, *, seconds: float = 10.0) -> None:
        """Until so many messages came."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.submitted) >= count_, seconds), len(self.submitted)

    def wait_bound(self, count_: int = 1, *, seconds: float = 10.0) -> None:
        """Until so many are bound."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.bound) >= count_, seconds), self.bound

    def until_read(self) -> None:
        """Until everybody has read what was written so far, and has done what they do then."""
        for each in self.bound:
            number = next(self._sequences)
            each.write(pdu(ENQUIRE, number))
            while each.answered.get(timeout=10)[2] != number:
                pass

    def release(self) -> None:
        """Answer what is held by now, the newest first."""
        for each in list(self.bound):
            with self._changed:
                held, each.held = each.held, []
            for answer in reversed(held):
                each.write(answer)

    def say(self, data: bytes) -> None:
        """Write this to everybody who is bound."""
        for each in list(self.bound):
            each.write(data)

    def hang_up(self) -> None:
        """End every connection."""
        for each in list(self.bound):
            each.sock.shutdown(socket.SHUT_RDWR)

    def deliver(self, source: str, octets: bytes, *, seconds: float = 10.0, **fields: Any) -> int | None:
        """Deliver to the newest bind that hears; answers the status of the answer, or nothing where there is none."""
        number = next(self._sequences)
        to = next(each for each in reversed(self.bound) if each.kind != BIND_TRANSMITTER)
        fields = {"source_addr_ton": 1, "source_addr_npi": 1, **fields}
        to.write(smpp34.DeliverSm(source, "4930999", octets, sequence_number=number, **fields).encode())
        with contextlib.suppress(Empty):
            while True:
                command, status, sequence = to.answered.get(timeout=seconds)
                if (command, sequence) == (DELIVER | RESPONSE, number):
                    return status
        return None

    def receipt(self, submitted: Submitted, stat: str, *, id_: str | None = None, **fields: Any) -> int | None:
        """Say what became of a message, in the text alone."""
        about = f"id:{id_ or submitted.id} sub:001 dlvrd:001 submit date:2611290101 done date:2611290102 stat:{stat}"
        return self.deliver(submitted.to, f"{about} err:001 text:Hello".encode(), esm_class=RECEIPT, **fields)

    # --- the centre's side ---------------------------------------------------------------------------------------

    def _start(self, target: Any, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.tried += 1
            self._sockets.append(sock)
            if self._stopped.is_set():
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            if self.tls is not None:
                sock = stack.enter_context(self.tls.wrap_socket(sock, server_side=True))
                self._sockets.append(sock)
            stack.callback(sock.close)
            bound = Bound(sock)
            stack.callback(self._gone, bound)
            for command, status, sequence, data in _pdus(sock):
                if not self._one(bound, command, status, sequence, data):
                    return

    def _gone(self, bound: Bound) -> None:
        with self._changed:
            if bound in self.bound:
                self.bound.remove(bound)
            self._changed.notify_all()

    def _one(self, bound: Bound, command: int, status: int, sequence: int, data: bytes) -> bool:
        if command in (BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER):
            return self._bind(bound, command, sequence, data)
        if command == SUBMIT:
            return self._submit(bound, sequence, data)
        if command == ENQUIRE:
            self.enquired.set()
            bound.write(pdu(ENQUIRE | RESPONSE, sequence))
        elif command == UNBIND:
            bound.write(pdu(UNBIND | RESPONSE, sequence))
            self.parted.set()
            return False
        else:
            bound.answered.put((command, status, sequence))
        return True

    def _bind(self, bound: Bound, command: int, sequence: int, data: bytes) -> bool:
        bound.kind, bound.strings = command, [each.decode() for each in data[16:].split(b"\0")[:3]]
        status = self.bind_statuses.pop(0) if self.bind_statuses else 0
        if not status and bound.strings[:2] != ["shop", self.password]:
            status = INVALID_PASSWORD
        with self._changed:
            if not status and len(self.bound) >= self.most_binds:
                status = ALREADY_BOUND
            if not status:
                self.bound.append(bound)
                self._changed.notify_all()
        bound.write(pdu(command | RESPONSE, sequence, status, b"centre\0"))
        return not status

    def _submit(self, bound: Bound, sequence: int, data: bytes) -> bool:
        message = smpp34.decode(data)
        assert isinstance(message, smpp34.SubmitSm)
        with self._changed:
            script = self.replies[message.destination_addr]
            reply = script.pop(0) if script else self.usual
            submitted = Submitted(message, f"m{next(self._ids)}")
            body = submitted.id.encode() + b"\0" if not reply.status else b""
            answer = reply.raw if reply.raw is not None else pdu(SUBMIT | RESPONSE, sequence, reply.status, body)
            if reply.held:
                bound.held.append(answer)
            self.submitted.append(submitted)
            self._changed.notify_all()
        if reply.hang_up:
            return False
        if not (reply.held or reply.silent):
            bound.write(answer)
        return True


def pdu(command: int, sequence: int, status: int = 0, body: bytes = b"") -> bytes:
    """One PDU."""
    return struct.pack(">IIII", 16 + len(body), command, status, sequence) + body


def _pdus(sock: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    reader = sock.makefile("rb")
    with reader:
        while len(header := reader.read(16)) == 16:
            length, command, status, sequence = struct.unpack(">IIII", header)
            yield command, status, sequence, header + reader.read(length - 16)
