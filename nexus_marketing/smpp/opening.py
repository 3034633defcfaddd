"""Setting a bind up: connection, TLS, ``bind_*`` and its answer. All of it waits; nothing of it sends."""

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nexus_marketing.core.contracts import IN_USE, OutcomeKind
from nexus_marketing.core.errors import HostRefused
from nexus_marketing.smpp.pdus import (
    BINDS,
    RESPONSE,
    Command,
    Garbage,
    Mode,
    Pdu,
    Stream,
    bind_request,
    numbered,
    packed,
)
from nexus_marketing.smpp.receipts import ReceiptIds
from nexus_marketing.smpp.statuses import Status, code_of, refuses_bind

_RECEIVE_BYTES = 65_536

#: A connected socket to a server, within so many seconds; ``HostRefused`` or ``OSError``.
Dial = Callable[[str, int, float], socket.socket]


@dataclass(frozen=True, slots=True)
class BindSettings:
    """What makes a bind this one: binds that are set up alike are the same.

    ``window`` is how many ``submit_sm`` may be without an answer; ``per_second`` how many leave in a second, 0 for as many
    as the window lets.
    """

    host: str
    port: int
    system_id: str
    password: str = field(repr=False)
    tls: bool = True
    system_type: str = ""
    address_range: str = ""
    mode: Mode = Mode.TRANSCEIVER
    window: int = 10
    per_second: float = 0.0
    enquire_link_seconds: float = 30.0
    #: How its receipts write the ids of messages.
    ids: ReceiptIds = ReceiptIds.SAME

    @property
    def place(self) -> str:
        """Where it goes."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wire:
    """How connections are made, and how long is waited: for a bind, for an answer, and for somebody who needs it."""

    dial: Dial
    ssl_context: ssl.SSLContext | None = None
    setup_seconds: float = 15.0
    reply_seconds: float = 30.0
    idle_seconds: float = 120.0
    #: After a refusal, and at most between attempts to connect.
    rest_seconds: float = 30.0


class NotBound(Exception):
    """There is no bind; ``kind`` is what that makes of a message, ``code`` and the text say why."""

    def __init__(self, kind: OutcomeKind, code: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.code = code


@dataclass(slots=True)
class Opened:
    """A bind that the centre has taken; ``early`` came right behind its answer."""

    sock: socket.socket
    stream: Stream
    early: list[Pdu]


NOT_REACHED = "not_reached"


def open_bind(settings: BindSettings, wire: Wire) -> Opened:
    """Connect and bind.

    Raises:
        NotBound: it cannot be done now, or not like this.
    """
    until = time.monotonic() + wire.setup_seconds
    try:
        sock = wire.dial(settings.host, settings.port, wire.setup_seconds)
    except HostRefused as error:
        raise NotBound(OutcomeKind.PERMANENT_SENDER, error.code, error.message) from error
    except OSError as error:
        raise _away(settings, error) from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.tls:
            sock.settimeout(wire.setup_seconds)
            context = wire.ssl_context or ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=settings.host)
        opened = _bound(settings, sock, until)
        sock.setblocking(False)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        said = f"{settings.place}: its certificate is not good: {error.verify_message}"
        raise NotBound(OutcomeKind.PERMANENT_SENDER, "tls", said) from error
    except OSError as error:
        sock.close()
        raise _away(settings, error) from error
    except Garbage as error:
        sock.close()
        raise NotBound(OutcomeKind.NOT_SENT, NOT_REACHED, f"{settings.place} does not speak SMPP: {error}") from error
    except BaseException:
        sock.close()
        raise
    return opened


def _bound(settings: BindSettings, sock: socket.socket, until: float) -> Opened:
    strings = (settings.system_id, settings.password, settings.system_type)
    sock.settimeout(max(0.01, until - time.monotonic()))
    sock.sendall(numbered(bind_request(settings.mode, strings, settings.address_range), 1))
    stream, expected = Stream(), BINDS[settings.mode] | RESPONSE
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        data = sock.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("it hung up before it answered the bind")
        pdus = list(stream.feed(data))
        for at, pdu in enumerate(pdus):
            if pdu.command == Command.ENQUIRE_LINK:
                sock.sendall(packed(Command.ENQUIRE_LINK | RESPONSE, pdu.sequence))
            elif pdu.command in (expected, Command.GENERIC_NACK):
                _check(settings, pdu)
                return Opened(sock, stream, pdus[at + 1 :])
    raise TimeoutError("it did not answer the bind in time")


def _check(settings: BindSettings, answer: Pdu) -> None:
    if answer.command != Command.GENERIC_NACK and answer.status == Status.OK:
        return
    code = code_of(answer.status)
    said = f"{settings.place} refused the bind of {settings.system_id}: {code}"
    if answer.status == Status.ALREADY_BOUND:
        raise NotBound(OutcomeKind.NOT_SENT, IN_USE, f"{said} (as many binds as it allows are there)")
    refused = answer.command == Command.GENERIC_NACK or refuses_bind(answer.status)
    raise NotBound(OutcomeKind.PERMANENT_SENDER if refused else OutcomeKind.NOT_SENT, code, said)


def _away(settings: BindSettings, error: OSError) -> NotBound:
    said = f"{settings.place}: {error or type(error).__name__}"
    return NotBound(OutcomeKind.NOT_SENT, NOT_REACHED, said)
