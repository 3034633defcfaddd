"""Set-up of one connection by the standard library: greeting, EHLO, STARTTLS policy, AUTH; then its socket is ours."""

import base64
import contextlib
import io
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from nexus_marketing.core.errors import NexusError
from nexus_marketing.smtp.replies import Phase, ReplyKind, classify, enhanced_code

#: What is said in answer to one command while a connection is set up is shorter.
_LONGEST_REPLY_BYTES: Final = 65_536
#: No server takes messages of more octets; a number of more digits is none.
_SIZE_DIGITS: Final = 18


class TlsPolicy(StrEnum):
    """How the connection is protected.

    ``opportunistic`` encrypts where offered, without checking the certificate (an attacker who can forge one could
    as well strip the offer); ``required`` and ``implicit`` check it and never fall back.
    """

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One mail relay and how to treat it. Times are seconds.

    ``reply_timeout_seconds`` bounds the wait for any one reply, ``give_up_seconds`` how long queued messages wait
    while no connection can be opened. ``max_messages_per_connection`` 0 means no limit. ``local_hostname`` empty means
    this machine's own name. Credentials never travel unencrypted unless the policy is ``none``.
    """

    host: str
    port: int
    connections: int = 8
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    username: str = ""
    password: str = ""
    connect_timeout_seconds: float = 10.0
    reply_timeout_seconds: float = 60.0
    give_up_seconds: float = 10.0
    local_hostname: str = ""
    max_messages_per_connection: int = 0
    ssl_context: ssl.SSLContext | None = None
    #: Opens sockets (host, port, seconds) in place of the standard library, for servers that others name.
    dial: Callable[[str, int, float], socket.socket] | None = None

    def __repr__(self) -> str:
        return f"PoolSettings(host={self.host!r}, port={self.port}, tls={self.tls.value!r}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server said after EHLO. ``size_limit`` in octets, 0 for none."""

    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    size: bool = False
    size_limit: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """An opened, authenticated, non-blocking connection and what arrived on it too early."""

    sock: socket.socket
    capabilities: Capabilities
    early: bytes


class SetupError(Exception):
    """The connection could not be set up; ``kind`` says whether trying again can help."""

    def __init__(self, kind: ReplyKind, code: int, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.code = code
        self.text = text


def try_session(settings: PoolSettings) -> Session | SetupError:
    """As :func:`open_session`, for threads: whatever goes wrong is an answer, so that whoever waits for one has it."""
    try:
        return open_session(settings)
    except SetupError as error:
        return error
    except Exception as error:  # noqa: BLE001 - isolation boundary: a thread's fault must reach who waits for it
        return SetupError(ReplyKind.TRANSIENT, 0, f"{type(error).__name__}: {error}")


def open_session(settings: PoolSettings) -> Session:
    """Connect, greet, encrypt and log in as the settings say. Blocks; each step up to the connect timeout.

    The server may be anybody's: a reply that does not end, or of more than 64 KiB, ends the connection.

    Raises:
        SetupError: with kind ``transient`` or ``throttled`` (try again) or ``permanent_sender`` (a person must act).
    """
    try:
        client = _greeted(settings, plain=False)
    except ssl.SSLError as error:
        if settings.tls is not TlsPolicy.OPPORTUNISTIC or settings.username:
            bad = isinstance(error, ssl.SSLCertVerificationError)
            kind = ReplyKind.PERMANENT_SENDER if bad else ReplyKind.TRANSIENT
            raise SetupError(kind, 0, f"TLS with {settings.host} failed: {error}") from error
        client = _again_without_tls(settings)
    except (OSError, smtplib.SMTPException) as error:
        raise _setup_error(error, Phase.CONNECT) from error
    except NexusError as error:  # what dials refuses the address
        raise SetupError(ReplyKind.PERMANENT_SENDER, 0, error.message) from error
    try:
        _log_in(client, settings)
        return _take_over(client)
    except (OSError, smtplib.SMTPException) as error:
        client.close()
        raise _setup_error(error, Phase.AUTH) from error
    except BaseException:
        client.close()
        raise


def _again_without_tls(settings: PoolSettings) -> smtplib.SMTP:
    try:
        return _greeted(settings, plain=True)
    except (OSError, smtplib.SMTPException) as error:
        raise _setup_error(error, Phase.CONNECT) from error


class _Said(io.RawIOBase):
    """What arrives on a socket, so much for a reply and so long as that may take; the library bounds neither."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._room = 0
        self._until: float | None = None

    def begin(self, seconds: float) -> None:
        """A reply is waited for."""
        self._room, self._until = _LONGEST_REPLY_BYTES, time.monotonic() + seconds

    def end(self, seconds: float) -> None:
        """It is read; the next step has its own time."""
        self._until = None
        self._sock.settimeout(seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0 or self._room <= 0:
                raise TimeoutError("the server's reply does not end")
            self._sock.settimeout(left)
        count = self._sock.recv_into(buffer)
        self._room -= count
        return count


class _Listening(smtplib.SMTP):
    """Replies that end, whoever gives them."""

    _said: _Said

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self._said = _Said(self.sock)
            self.file = io.BufferedReader(self._said)
        self._said.begin(self.timeout)
        found = super().getreply()
        self._said.end(self.timeout)
        return found


class _Client(_Listening):
    """The standard library's client over a socket that may be dialled by others."""

    def __init__(self, settings: PoolSettings, hostname: str | None) -> None:
        self._dial = settings.dial or _connected
        super().__init__(settings.host, settings.port, hostname, timeout=settings.connect_timeout_seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """The step of ``connect`` that the library has for its own TLS client."""
        return self._dial(host, port, timeout)


class _TlsClient(_Listening, smtplib.SMTP_SSL):
    """The same with TLS from the first byte; the certificate has to be the name's, wherever it leads."""

    def __init__(self, settings: PoolSettings, hostname: str | None, context: ssl.SSLContext) -> None:
        self._dial = settings.dial or _connected
        timeout = settings.connect_timeout_seconds
        super().__init__(settings.host, settings.port, hostname, timeout=timeout, context=context)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(self._dial(host, port, timeout), server_hostname=host)


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((host, port), timeout)


def _greeted(settings: PoolSettings, *, plain: bool) -> smtplib.SMTP:
    hostname = settings.local_hostname or None
    if settings.tls is TlsPolicy.IMPLICIT:
        context = settings.ssl_context or ssl.create_default_context()
        client: smtplib.SMTP = _TlsClient(settings, hostname, context)
    else:
        client = _Client(settings, hostname)
    try:
        client.ehlo_or_helo_if_needed()
        if not plain and settings.tls in (TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED):
            _encrypt(client, settings)
    except BaseException:
        client.close()
        raise
    return client


def _encrypt(client: smtplib.SMTP, settings: PoolSettings) -> None:
    required = settings.tls is TlsPolicy.REQUIRED
    if not client.has_extn("starttls"):
        if required:
            text = f"{settings.host} does not offer STARTTLS and the policy requires it"
            raise SetupError(ReplyKind.PERMANENT_SENDER, 0, text)
        return
    context = settings.ssl_context or (ssl.create_default_context() if required else _unverified_context())
    code, answer = client.starttls(context=context)
    if code != 220 and required:
        text = f"{settings.host} refused STARTTLS: {code} {answer.decode('ascii', 'replace')}"
        raise SetupError(classify(code if code < 500 else 421, "", text, Phase.CONNECT), code, text)
    client.ehlo_or_helo_if_needed()


def _unverified_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _log_in(client: smtplib.SMTP, settings: PoolSettings) -> None:
    if not settings.username:
        return
    if settings.tls is not TlsPolicy.NONE and not isinstance(client.sock, ssl.SSLSocket):
        text = f"{settings.host} offers no encryption: credentials are not sent in the clear"
        raise SetupError(ReplyKind.PERMANENT_SENDER, 0, text)
    if not client.has_extn("auth"):
        raise SetupError(ReplyKind.PERMANENT_SENDER, 0, f"{settings.host} does not offer AUTH but a user name is set")
    if (settings.username + settings.password).isascii():
        client.login(settings.username, settings.password)
        return
    # the standard library writes ASCII credentials only; PLAIN is UTF-8 (RFC 4616)
    pair = f"\0{settings.username}\0{settings.password}".encode()
    code, answer = client.docmd("AUTH", "PLAIN " + base64.b64encode(pair).decode("ascii"))
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, answer)


def _take_over(client: smtplib.SMTP) -> Session:
    """Detach the socket from smtplib, with whatever its reader had buffered already."""
    sock = client.sock
    if sock is None:
        raise smtplib.SMTPServerDisconnected("the server closed the connection during set-up")
    capabilities = _capabilities(client)
    sock.setblocking(False)
    early = b""
    if client.file is not None:
        with contextlib.suppress(ssl.SSLWantReadError, BlockingIOError):
            early = client.file.peek()
        client.file.close()
    client.file = client.sock = None
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Session(sock, capabilities, early)


def _capabilities(client: smtplib.SMTP) -> Capabilities:
    size = client.esmtp_features.get("size", "").strip()
    return Capabilities(
        pipelining=client.has_extn("pipelining"),
        eight_bit=client.has_extn("8bitmime"),
        smtputf8=client.has_extn("smtputf8"),
        size=client.has_extn("size"),
        size_limit=int(size) if size.isdecimal() and len(size) <= _SIZE_DIGITS else 0,
    )


def _setup_error(error: Exception, phase: Phase) -> SetupError:
    """Only what the server itself refused for good is permanent; networks recover."""
    if isinstance(error, smtplib.SMTPResponseException):
        raw = error.smtp_error
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
        code = int(error.smtp_code)
        kind = classify(code, enhanced_code(text), text, phase)
        if kind not in (ReplyKind.PERMANENT_SENDER, ReplyKind.THROTTLED):
            kind = ReplyKind.TRANSIENT
        return SetupError(kind, code, text)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return SetupError(ReplyKind.PERMANENT_SENDER, 0, str(error))
    return SetupError(ReplyKind.TRANSIENT, 0, f"{type(error).__name__}: {error}")
