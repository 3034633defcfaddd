"""A local mail server that keeps every message as a file: the demo, the embedded mode, and a strict judge in tests.

A message is stored byte for byte as it was sent (dot-stuffing undone) as ``00000001-<recipient hash>.eml``; its
envelope is a line of ``index.jsonl`` beside it. Both are written before the 250 leaves.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nexus_marketing.core.errors import Unavailable
from nexus_marketing.smtp.breaches import breaches
from nexus_marketing.smtp.mail_folder import MailFolder

_COMMAND_LIMIT = 4096
# a TLS transport takes a few turns of the loop to close
_CLOSING_ROUNDS = 10
_END = b"\r\n.\r\n"
_PATH = re.compile(rb"(?:FROM|TO):\s*<([^<>\r\n]*)>(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of RFC 5321 or 5322 that a strict catcher saw. ``rule`` is stable, ``detail`` an excerpt."""

    rule: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatcherSettings:
    """``credentials`` maps user names to passwords and makes AUTH compulsory; ``ssl_context`` offers STARTTLS.

    ``pipelining`` False leaves that extension out of EHLO. ``strict`` records violations.
    """

    host: str = "127.0.0.1"
    port: int = 0
    ssl_context: ssl.SSLContext | None = None
    credentials: Mapping[str, str] | None = None
    size_limit: int = 50_000_000
    pipelining: bool = True
    strict: bool = False


class Catcher:
    """The server, in a thread of its own between ``start`` and ``stop``; also a context manager."""

    def __init__(self, directory: Path, settings: CatcherSettings | None = None) -> None:
        self.settings = settings or CatcherSettings()
        self.folder = MailFolder(directory)
        self.violations: list[Violation] = []
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        self.sessions: set[_Session] = set()

    @property
    def accepted(self) -> int:
        """Messages stored since the start."""
        return self.folder.count

    def start(self) -> Self:
        """Listen; ``port`` is known when this returns. Raises Unavailable if the address cannot be had."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="mail-catcher", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            settings = self.settings
            message = f"the mail catcher cannot listen on {settings.host}:{settings.port}: {self._failure}"
            raise Unavailable(message)
        return self

    def stop(self) -> None:
        """Stop listening and part from all clients."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None
            self.folder.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def note(self, rule: str, detail: bytes) -> None:
        """Record a violation, if strict."""
        if self.settings.strict:
            self.violations.append(Violation(rule, detail[:120].decode("utf-8", "replace")))

    def _run(self, ready: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        settings = self.settings
        try:
            listening = loop.create_server(lambda: _Session(self), settings.host, settings.port, backlog=256)
            server = loop.run_until_complete(listening)
        except OSError as error:
            self._failure = error
            ready.set()
            loop.close()
            return
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        loop.run_until_complete(self._part(server))
        loop.close()

    async def _part(self, server: asyncio.Server) -> None:
        """Drop the clients, handshakes under way included, and let their transports close."""
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening)
        await _turns()  # who was accepted just now becomes a session: a closed server would leave that socket open
        server.close()
        for session in list(self.sessions):
            session.abort()
        upgrades = asyncio.all_tasks() - {asyncio.current_task()}
        for upgrade in upgrades:
            upgrade.cancel()
        await asyncio.gather(*upgrades, return_exceptions=True)
        await _turns()


async def _turns() -> None:
    for _ in range(_CLOSING_ROUNDS):
        await asyncio.sleep(0)


class _Session(asyncio.Protocol):
    """One client's dialogue."""

    def __init__(self, catcher: Catcher) -> None:
        self._catcher = catcher
        self._settings = catcher.settings
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answers: list[bytes] = []
        self._in_data = False
        self._searched = 0
        self._secure = False
        self._user = ""
        self._prompt: list[str] | None = None
        self._closing = False
        self._greeted = False
        self._upgrade: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._eight_bit = False

    def abort(self) -> None:
        """Drop the client."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._catcher.sessions.add(self)
        self._transport = transport  # type: ignore[assignment]
        self._say(b"220 nexus-marketing mail catcher ESMTP")
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the client."""
        self._catcher.sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        """Work through what is complete and answer it in one write."""
        self._buffer += data
        while self._buffer and not self._closing and (self._body() if self._in_data else self._line()):
            continue
        self._send()

    def _say(self, line: bytes) -> None:
        self._answers.append(line + b"\r\n")

    def _send(self) -> None:
        transport = self._transport
        if transport is not None and self._answers:
            transport.write(b"".join(self._answers))
            self._answers.clear()
        if transport is not None and self._closing:
            transport.close()

    # --- commands ------------------------------------------------------------------------------------------------

    def _line(self) -> bool:
        """Answer one command line; False if it is not complete yet."""
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > _COMMAND_LIMIT:
                self._say(b"500 5.5.6 line too long")
                self._closing = True
            return False
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n"):
            self._catcher.note("bare_lf", line)
        if self._prompt is not None:
            self._auth_step(line.strip())
            return True
        verb, _, rest = line.strip().partition(b" ")
        commands = {
            b"EHLO": self._ehlo, b"HELO": self._helo, b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data,
            b"RSET": self._rset, b"NOOP": self._noop, b"QUIT": self._quit, b"STARTTLS": self._starttls,
            b"AUTH": self._auth,
        }  # fmt: skip
        command = commands.get(verb.upper())
        if command is None:
            self._catcher.note("unknown_command", line)
            self._say(b"502 5.5.1 command not known")
        else:
            command(rest)
        return True

    def _ehlo(self, _: bytes) -> None:
        self._reset()
        self._greeted = True
        settings = self._settings
        offers = [b"nexus-marketing", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES"]
        if settings.pipelining:
            offers.append(b"PIPELINING")
        if settings.ssl_context is not None and not self._secure:
            offers.append(b"STARTTLS")
        elif settings.credentials is not None:
            offers.append(b"AUTH PLAIN LOGIN")
        offers.append(b"SIZE %d" % settings.size_limit)
        for offer in offers[:-1]:
            self._say(b"250-" + offer)
        self._say(b"250 " + offers[-1])

    def _helo(self, _: bytes) -> None:
        self._reset()
        self._greeted = True
        self._say(b"250 nexus-marketing")

    def _mail(self, rest: bytes) -> None:
        match = _PATH.match(rest)
        if not self._greeted or self._sender is not None:
            self._catcher.note("bad_sequence", b"MAIL " + rest)
            self._say(b"503 5.5.1 bad sequence of commands")
        elif self._settings.credentials is not None and not self._user:
            self._say(b"530 5.7.0 authentication required")
        elif match is None:
            self._catcher.note("bad_path", rest)
            self._say(b"501 5.5.4 MAIL FROM:<address>")
        elif self._declared_size(match[2]) > self._settings.size_limit:
            self._say(b"552 5.3.4 message too big")
        else:
            self._sender = match[1].decode("utf-8", "surrogateescape")
            self._eight_bit = b"8BITMIME" in match[2].upper()
            if not match[1].isascii() and b"SMTPUTF8" not in match[2].upper():
                self._catcher.note("smtputf8_undeclared", rest)
            self._say(b"250 2.1.0 sender ok")

    @staticmethod
    def _declared_size(parameters: bytes) -> int:
        match = re.search(rb"\bSIZE=(\d{1,15})\b", parameters, re.IGNORECASE)
        return int(match[1]) if match else 0

    def _rcpt(self, rest: bytes) -> None:
        match = _PATH.match(rest)
        if self._sender is None:
            self._catcher.note("bad_sequence", b"RCPT " + rest)
            self._say(b"503 5.5.1 MAIL first")
        elif match is None or not match[1]:
            self._catcher.note("bad_path", rest)
            self._say(b"501 5.5.4 RCPT TO:<address>")
        else:
            self._recipients.append(match[1].decode("utf-8", "surrogateescape"))
            self._say(b"250 2.1.5 recipient ok")

    def _data(self, _: bytes) -> None:
        if not self._recipients:
            self._say(b"503 5.5.1 RCPT first")
            return
        if self._buffer:
            self._catcher.note("early_data", bytes(self._buffer[:60]))
        self._in_data = True
        self._searched = 0
        self._say(b"354 end with a dot on a line of its own")

    def _rset(self, _: bytes) -> None:
        self._reset()
        self._say(b"250 2.0.0 reset")

    def _noop(self, _: bytes) -> None:
        self._say(b"250 2.0.0 ok")

    def _quit(self, _: bytes) -> None:
        self._say(b"221 2.0.0 bye")
        self._closing = True

    # --- encryption and login ------------------------------------------------------------------------------------

    def _starttls(self, _: bytes) -> None:
        context, transport = self._settings.ssl_context, self._transport
        if context is None or self._secure or transport is None:
            self._say(b"502 5.5.1 not available")
            return
        if self._buffer:
            # what came in clear behind STARTTLS must never count as said under TLS (CVE-2011-0411)
            self._catcher.note("injected_before_tls", bytes(self._buffer[:60]))
            self._buffer.clear()
        self._say(b"220 2.0.0 go ahead")
        self._send()
        self._upgrade = asyncio.get_running_loop().create_task(self._encrypt(transport, context))

    async def _encrypt(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(transport, self, context, server_side=True)
        except OSError:
            transport.abort()
            return
        self._transport = secured
        self._secure = True
        self._greeted = False
        self._reset()

    def _auth(self, rest: bytes) -> None:
        settings = self._settings
        if settings.credentials is None or (settings.ssl_context is not None and not self._secure):
            self._say(b"538 5.7.11 encryption required" if settings.ssl_context else b"502 5.5.1 not available")
            return
        method, _, initial = rest.partition(b" ")
        if method.upper() not in (b"PLAIN", b"LOGIN"):
            self._say(b"504 5.5.4 PLAIN or LOGIN")
            return
        self._prompt = [method.upper().decode("ascii")]
        if initial:
            self._auth_step(initial)
        else:
            self._say(b"334 " if method.upper() == b"PLAIN" else b"334 VXNlcm5hbWU6")

    def _auth_step(self, line: bytes) -> None:
        prompt = self._prompt
        if prompt is None:
            return
        try:
            answer = base64.b64decode(line, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            self._prompt = None
            self._say(b"501 5.5.2 not base64")
            return
        prompt.append(answer)
        if prompt[0] == "PLAIN":
            _, _, pair = answer.partition("\0")
            user, _, password = pair.partition("\0")
            self._log_in(user, password)
        elif len(prompt) == 2:
            self._say(b"334 UGFzc3dvcmQ6")
        else:
            self._log_in(prompt[1], prompt[2])

    def _log_in(self, user: str, password: str) -> None:
        self._prompt = None
        known = (self._settings.credentials or {}).get(user)
        if known is not None and hmac.compare_digest(known.encode(), password.encode()):
            self._user = user
            self._say(b"235 2.7.0 welcome")
        else:
            self._say(b"535 5.7.8 user name or password wrong")

    # --- messages ------------------------------------------------------------------------------------------------

    def _body(self) -> bool:
        """Take a message if its end has come."""
        buffer = self._buffer
        if buffer.startswith(b".\r\n"):
            message, after = b"", 3
        else:
            end = buffer.find(_END, max(0, self._searched - 4))
            if end < 0:
                self._searched = len(buffer)
                if len(buffer) > self._settings.size_limit * 2:
                    self._say(b"552 5.3.4 message too big")
                    self._closing = True
                return False
            message, after = bytes(buffer[: end + 2]), end + 5
        del buffer[:after]
        self._in_data = False
        self._say(self._take(message))
        self._reset()
        return True

    def _take(self, message: bytes) -> bytes:
        if self._settings.strict:
            for rule, place in breaches(message, eight_bit=self._eight_bit):
                self._catcher.note(rule, place)
        if len(message) > self._settings.size_limit:
            return b"552 5.3.4 message too big"
        if message.startswith(b".") or b"\n." in message:
            message = re.sub(rb"(^|\r\n)\.", rb"\1", message)
        try:
            self._catcher.folder.store(self._sender or "", self._recipients, message)
        except OSError as error:
            return f"452 4.3.1 the message could not be stored: {error.strerror}".encode("ascii", "replace")
        return b"250 2.0.0 stored as %d" % self._catcher.folder.count
