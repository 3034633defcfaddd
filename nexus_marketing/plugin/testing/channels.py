"""Channels that remember what they were given: in this process, or behind a socket as a provider would be.

They keep the contract as a channel of a stranger does, the hand-over journal included, so that delivery can be tried
with several channels, dead ones, slow ones and such as hang up.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final, Self

import orjson

from nexus_marketing.core.contracts import AddressKind, Capabilities, Content, Journal, Outcome, OutcomeKind, Submission

_LEFT: Final = (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN)


@dataclass(slots=True)
class RecordingChannel:
    """Accepts everything but what ``script`` (address → outcomes in turn) says otherwise.

    ``on_batch`` is called before each batch leaves: a test pauses, kills or unsubscribes there.
    """

    script: dict[str, list[OutcomeKind]] = field(default_factory=dict)
    on_batch: Callable[[Sequence[Submission]], None] | None = None
    sent: list[Submission] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    name: str = "email"
    max_in_flight: int = 4
    address_kind: AddressKind = AddressKind.EMAIL

    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = Capabilities(address_kind=self.address_kind, max_in_flight=self.max_in_flight)

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Every setting will do."""

    def open(self, settings: Mapping[str, Any], content: Content) -> "_RecordingSession":
        """Needs nothing of either."""
        del settings, content
        return _RecordingSession(self)


@dataclass(slots=True)
class _RecordingSession:
    """Hands over in order, marking the journal as a real channel does."""

    channel: RecordingChannel

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        if self.channel.on_batch is not None:
            self.channel.on_batch(batch)
        self.channel.batches.append(len(batch))
        return iter([self._hand_over(each, journal) for each in batch])

    def _hand_over(self, submission: Submission, journal: Journal) -> Outcome:
        answers = self.channel.script.get(submission.address)
        kind = answers.pop(0) if answers else OutcomeKind.ACCEPTED
        journal.on_wire(submission.ref)
        if kind in _LEFT:
            self.channel.sent.append(submission)
        journal.on_outcome(submission.ref, kind)
        return Outcome(submission.ref, kind, "scripted")

    def withdraw(self) -> None:
        """Everything was handed over at once."""

    def close(self) -> None:
        """Nothing is open."""


class RecordingServer:
    """A provider on a port of this machine: takes messages by HTTP and remembers each that it accepted.

    >>> with RecordingServer() as server:
    ...     server.answers["a"] = [503, 202]
    ...     server.default
    202

    Attributes:
        answers: HTTP statuses to give for an address, in turn; 0 hangs up without a word.
        default: the status of everything else.
        accepted: the bodies of accepted messages, by address.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {}
        self.default = 202
        self.accepted: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def take(self, message: dict[str, Any]) -> int:
        """Decide about a message; answers the status."""
        with self._lock:
            scripted = self.answers.get(message["address"])
            status = scripted.pop(0) if scripted else self.default
            if 200 <= status < 300:
                self.accepted[message["address"]].append(message)
            return status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(server: RecordingServer) -> type[BaseHTTPRequestHandler]:
    class OneMessage(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """One message."""
            status = server.take(orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads along."""

    return OneMessage


@dataclass(frozen=True, slots=True)
class SocketChannel:
    """Hands messages to a :class:`RecordingServer`, one after another over one connection.

    Settings: ``port``.
    """

    name: str
    address_kind: AddressKind = AddressKind.NONE
    timeout_seconds: float = 5.0

    _KINDS: ClassVar[Mapping[int, OutcomeKind]] = {
        401: OutcomeKind.PERMANENT_SENDER,
        429: OutcomeKind.THROTTLED,
    }

    @property
    def capabilities(self) -> Capabilities:
        """One message on the wire at a time."""
        return Capabilities(address_kind=self.address_kind, max_in_flight=1)

    def validate(self, settings: Mapping[str, Any]) -> None:
        """The port is read when the session opens."""

    def open(self, settings: Mapping[str, Any], content: Content) -> "_SocketSession":
        """A session with the server at the port of the settings."""
        del content
        return _SocketSession(self, int(settings["port"]))

    def kind_of(self, status: int) -> OutcomeKind:
        """What an HTTP status means for a message."""
        if 200 <= status < 300:
            return OutcomeKind.ACCEPTED
        return self._KINDS.get(status, OutcomeKind.TRANSIENT if status >= 500 else OutcomeKind.PERMANENT_RECIPIENT)


@dataclass(slots=True)
class _SocketSession:
    channel: SocketChannel
    port: int
    withdrawn: bool = False
    _connection: HTTPConnection | None = None

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        self.withdrawn = False
        return (self._hand_over(each, journal) for each in batch)

    def _hand_over(self, submission: Submission, journal: Journal) -> Outcome:
        if self.withdrawn:
            return Outcome(submission.ref, OutcomeKind.NOT_SENT)
        try:
            connection = self._open()
        except OSError as error:
            return Outcome(submission.ref, OutcomeKind.TRANSIENT, "connect", str(error))
        message = {"address": submission.address, "id": submission.message_id, "values": dict(submission.values)}
        journal.on_wire(submission.ref)
        try:
            connection.request("POST", "/messages", orjson.dumps(message), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
        except (OSError, HTTPException) as error:
            self.close()
            return self._answered(submission, journal, OutcomeKind.UNKNOWN, "no_answer", str(error))
        after = reply.headers.get("Retry-After")
        kind = self.channel.kind_of(reply.status)
        return self._answered(submission, journal, kind, str(reply.status), reply.reason, after and float(after))

    def _answered(self, submission: Submission, journal: Journal, kind: OutcomeKind, *said: Any) -> Outcome:
        journal.on_outcome(submission.ref, kind)
        return Outcome(submission.ref, kind, *said)

    def _open(self) -> HTTPConnection:
        if self._connection is None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=self.channel.timeout_seconds)
            connection.connect()
            self._connection = connection
        return self._connection

    def withdraw(self) -> None:
        self.withdrawn = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
