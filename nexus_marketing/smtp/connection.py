"""One pipelined connection: a state machine over a non-blocking socket.

While message n waits for the answer to its final dot, the envelope of message n + 1 is on the way already: it rode in
the same write as the end of n. Its body waits for the 354. So there is one round trip per message, and never more
than one message whose end was written and whose answer is missing (BEHAVIOUR 5.2, hand-over journal).
"""

import contextlib
import math
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.smtp.addresses import ascii_address
from nexus_marketing.smtp.handshake import Capabilities, Session
from nexus_marketing.smtp.replies import Envelope, Phase, ReplyKind, classify, enhanced_code

OnWire = Callable[[int], None]
OnReply = Callable[[int, int], None]
Job = tuple[Envelope, OnWire | None, OnReply | None]


class Desk(Protocol):
    """Where a connection gets its messages and leaves the answers: the pool."""

    now: float

    def take(self) -> Job | None:
        """The next queued message, or None."""

    def answer(self, job: Job, kind: ReplyKind, code: int, text: str) -> None:
        """The one and only answer for a message."""

    def give_back(self, job: Job, text: str) -> None:
        """A message whose envelope drew no reply: it may try once more on another connection."""


_RECEIVE_BYTES = 65536
_REPLY_LINE_LIMIT = 16384
# a record may have left although its write was not confirmed
_TLS_RECORD_BYTES = 16384
_CODE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?\Z", re.DOTALL)
_ENVELOPE_PATH = re.compile(r"[!-;=?-~]{1,254}").fullmatch
_FOLLOWED = (Phase.END, Phase.MAIL, Phase.RCPT, Phase.DATA)
_ENVELOPE = (Phase.MAIL, Phase.RCPT, Phase.DATA)


class Connection:
    """Drives one session. ``alive`` turns False when it is closed; ``productive`` counts accepted answers."""

    __slots__ = (
        "_answered",
        "_before_end",
        "_buffer",
        "_capabilities",
        "_current",
        "_desk",
        "_expected",
        "_limit",
        "_lines",
        "_out",
        "_refusal",
        "_sock",
        "_started",
        "_timeout",
        "_tls",
        "_upcoming",
        "alive",
        "deadline",
        "fileno",
        "productive",
        "slow_down",
    )  # fmt: skip

    def __init__(self, session: Session, desk: Desk, *, reply_timeout_seconds: float, max_messages: int) -> None:
        self._sock = session.sock
        self._tls = isinstance(session.sock, ssl.SSLSocket)
        self._capabilities: Capabilities = session.capabilities
        self._desk = desk
        self._timeout = reply_timeout_seconds
        self._limit = max_messages or math.inf
        self._started = 0
        self._current: Job | None = None
        self._upcoming: Job | None = None
        self._answered = False
        self._refusal: tuple[ReplyKind, int, str] | None = None
        self._expected: deque[Phase] = deque()
        self._lines: list[bytes] = []
        self._buffer = b""
        self._out: memoryview | None = None
        self._before_end = 0
        self.alive = True
        self.productive = 0
        self.slow_down = False
        self.deadline = math.inf
        self.fileno = session.sock.fileno()
        if session.early:
            self._received(session.early)

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return self._current is None and self._upcoming is None and not self._expected and self._out is None

    @property
    def wants_write(self) -> bool:
        """Bytes wait for room in the socket."""
        return self._out is not None

    @property
    def may_take(self) -> bool:
        """There is room for one more envelope behind what is under way."""
        if self._upcoming is not None or not self.alive or self._started >= self._limit:
            return False
        return self._capabilities.pipelining or (self._current is None and not self._expected)

    def start(self) -> None:
        """Send the envelope of the next queued message, if there is one and room for it."""
        if self.may_take and (commands := self._next_envelope()):
            self._write(commands)

    def on_readable(self) -> None:
        """Take in what arrived and go on as far as it allows."""
        while self.alive:
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
                break
            except OSError as error:
                self._lost(f"the connection broke: {error}")
                break
            if not data:
                self._lost("the server closed the connection")
                break
            self._received(data)
            if not self._tls:
                break
        if self.alive and self._out is not None:
            self._flush()

    def on_writable(self) -> None:
        """Go on writing."""
        self._flush()

    def check_deadline(self) -> None:
        """Give up on a server that has not answered in time."""
        if self.alive and self._desk.now >= self.deadline:
            self._lost(f"no answer within {self._timeout:g} s", stalled=True)

    def close(self) -> None:
        """Part politely if nothing is under way; what is under way gets its answer."""
        if self.alive and self.idle:
            with contextlib.suppress(OSError):
                self._sock.send(b"QUIT\r\n")
        self._lost("the pool was closed")

    # --- reading -------------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        """Split into replies; the usual four of a steady pipeline take a short way."""
        if not self._buffer and not self._lines and len(self._expected) == 4 and self._current is not None:
            lines = data.split(b"\r\n")
            if len(lines) == 5 and not lines[4] and self._steady(lines):
                return
        self._buffer += data
        while self.alive:
            line, found, rest = self._buffer.partition(b"\n")
            if not found:
                break
            self._buffer = rest
            self._line(line.rstrip(b"\r"))
        if len(self._buffer) > _REPLY_LINE_LIMIT:
            self._lost("the server sent a reply line without end")

    def _steady(self, lines: list[bytes]) -> bool:
        """250 to the dot, 250, 250, 354 to the next envelope, in one read."""
        if (
            lines[0][:4] != b"250 " or lines[1][:4] != b"250 " or lines[2][:4] != b"250 " or lines[3][:4] != b"354 "
            or self._before_end or self._refusal or self._expected[0] is not Phase.END
        ):  # fmt: skip
            return False
        current = self._current
        self._current = None
        self._expected.clear()
        self.productive += 1
        self._desk.answer(current, ReplyKind.ACCEPTED, 250, lines[0][4:].decode("utf-8", "replace"))  # type: ignore[arg-type]
        self._begin_body()
        return True

    def _line(self, line: bytes) -> None:
        match = _CODE.match(line)
        if match is None or (self._lines and self._lines[0][:3] != match[1]):
            self._lost(f"the server sent no SMTP reply: {line[:60]!r}")
            return
        if match[2] == b"-":
            self._lines.append(line)
            if len(self._lines) > 100:
                self._lost("the server sent a reply without end")
            return
        text = " ".join(part[4:].decode("utf-8", "replace").strip() for part in [*self._lines, line])
        self._lines = []
        self._reply(int(match[1]), text)

    def _reply(self, code: int, text: str) -> None:
        self.deadline = self._desk.now + self._timeout
        if not self._expected:
            self.slow_down = code == 421
            self._lost(f"{code} {text}")
            return
        phase = self._expected.popleft()
        if code == 421:
            self._closing(phase, text)
        elif phase is Phase.END:
            self._end_reply(code, text)
        elif phase is Phase.MAIL or phase is Phase.RCPT:
            self._envelope_reply(phase, code, text)
        elif phase is Phase.DATA:
            self._data_reply(code, text)
        elif phase is Phase.RSET and code >= 300:
            self._lost(f"RSET was answered {code} {text}")
        if self.alive and not self._expected:
            self.deadline = math.inf
            self._next()

    def _end_reply(self, code: int, text: str) -> None:
        job = self._current
        assert job is not None
        if code < 400 and (code >= 300 or self._before_end):
            self._lost(f"the server answered {code} where the end of a message was awaited", claimed=True)
            return
        self._current = None
        self._answer(job, code, text, Phase.END)
        if code < 300:
            self.productive += 1
        if self._before_end:
            self._lost("the server refused the message before its end")

    def _envelope_reply(self, phase: Phase, code: int, text: str) -> None:
        self._answered = True
        if 300 <= code < 400:
            self._lost(f"{phase.value} was answered {code} {text}")
            return
        if code >= 400 and self._refusal is None:
            self._refusal = (classify(code, enhanced_code(text), text, phase), code, text)
        elif code < 300 and self._refusal is not None:
            # a recipient taken without a sender: a lone dot might deliver an empty message
            self._lost("the server took the recipient after it refused the sender")
            return
        if self._expected or self._capabilities.pipelining:
            return
        if self._refusal is not None:
            self._refused(reset=phase is Phase.RCPT)
        elif phase is Phase.MAIL:
            self._expected.append(Phase.RCPT)
            self._write(_rcpt_command(self._upcoming))  # type: ignore[arg-type]
        else:
            self._expected.append(Phase.DATA)
            self._write(b"DATA\r\n")

    def _data_reply(self, code: int, text: str) -> None:
        if code < 300:
            self._lost(f"DATA was answered {code} {text}")
        elif code < 400 and self._refusal is None:
            self._begin_body()
        elif code < 400:
            # RFC 2920 3.1: 354 although every recipient was refused: end the empty message
            self._finish_refused(b".\r\n", Phase.EMPTY)
        else:
            if self._refusal is None:
                self._refusal = (classify(code, enhanced_code(text), text, Phase.DATA), code, text)
            self._refused(reset=True)

    def _refused(self, *, reset: bool) -> None:
        if reset:
            self._finish_refused(b"RSET\r\n", Phase.RSET)
        else:
            self._settle_refusal()

    def _finish_refused(self, closing: bytes, phase: Phase) -> None:
        self._settle_refusal()
        following = self._next_envelope() if self._capabilities.pipelining else b""
        expected = tuple(self._expected)
        self._expected.clear()
        self._expected.append(phase)
        self._expected.extend(expected)
        self._write(closing + following)

    def _settle_refusal(self) -> None:
        job, refusal = self._upcoming, self._refusal
        assert job is not None
        assert refusal is not None
        self._upcoming = self._refusal = None
        self._desk.answer(job, *refusal)

    def _closing(self, phase: Phase, text: str) -> None:
        """421: the server leaves. The message it answers is throttled, the other one may try elsewhere."""
        self.slow_down = True
        if phase is Phase.END and self._current is not None:
            job, self._current = self._current, None
            self._answer(job, 421, text, phase)
        elif phase in _ENVELOPE and self._upcoming is not None and self._refusal is None:
            self._answered = True
            self._refusal = (classify(421, enhanced_code(text), text, phase), 421, text)
        self._lost(f"421 {text}")

    # --- writing -------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Nothing is awaited: begin the next message, or leave if this connection has done its share."""
        if self._started >= self._limit and self.idle:
            self.close()
        elif self._upcoming is None:
            self.start()

    def _next_envelope(self) -> bytes:
        """The commands of the next queued message this server can take; the phases are expected from now on."""
        while self.may_take and (job := self._desk.take()) is not None:
            commands = self._commands(job)
            if not commands:
                continue
            self._upcoming = job
            self._answered = False
            self._started += 1
            if self._capabilities.pipelining:
                self._expected.extend(_ENVELOPE)
                return commands
            self._expected.append(Phase.MAIL)
            return commands[: commands.index(b"\n") + 1]
        return b""

    def _commands(self, job: Job) -> bytes:
        """MAIL, RCPT and DATA, or nothing after answering what cannot be sent as it is."""
        envelope = job[0]
        recipient, sender, offers = envelope.recipient, envelope.sender, self._capabilities
        parameters = ""
        if not (_ENVELOPE_PATH(recipient) and (not sender or _ENVELOPE_PATH(sender))):
            try:
                recipient = ascii_address(recipient, path="recipient", smtputf8=offers.smtputf8)
                sender = sender and ascii_address(sender, path="sender", smtputf8=offers.smtputf8)
            except ValidationError as error:
                self._refuse_unsendable(job, error)
                return b""
            parameters = "" if (recipient + sender).isascii() else " SMTPUTF8"
        if not envelope.finished and not envelope.data.isascii():
            if not offers.eight_bit:
                self._desk.answer(
                    job, ReplyKind.PERMANENT_SENDER, 0, "5.6.3 the message is 8bit, the server takes 7bit"
                )
                return b""
            parameters += " BODY=8BITMIME"
        if offers.size:
            size = len(envelope.data)
            if 0 < offers.size_limit < size:
                text = f"5.3.4 the message has {size} octets, the server takes {offers.size_limit}"
                self._desk.answer(job, ReplyKind.PERMANENT_SENDER, 0, text)
                return b""
            parameters += f" SIZE={size}"
        return f"MAIL FROM:<{sender}>{parameters}\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()

    def _refuse_unsendable(self, job: Job, error: ValidationError) -> None:
        problem = error.problems[0]
        status = "5.6.7" if problem.code == "unsupported_address" else "5.1.3"
        sender = problem.path == "sender"
        kind = ReplyKind.PERMANENT_SENDER if sender else ReplyKind.PERMANENT_RECIPIENT
        self._desk.answer(job, kind, 0, f"{status} {problem.code}: {problem.message}")

    def _begin_body(self) -> None:
        """354 was given: the body with its end, and in the same write the next envelope."""
        job = self._upcoming
        assert job is not None
        self._upcoming = None
        self._current = job
        envelope, on_wire, _ = job
        data = envelope.data
        if not envelope.finished and (data[:1] == b"." or data.find(b"\n.") >= 0):
            data = _stuffed(data)
        if not data.endswith(b"\r\n"):
            data += b"\r\n"
        if on_wire is not None:
            on_wire(envelope.ref)
        self._before_end = len(data) + 3
        self._expected.append(Phase.END)
        self._write(data, b".\r\n" + (self._next_envelope() if self._capabilities.pipelining else b""))

    def _write(self, *parts: bytes) -> None:
        """Write parts one behind the other; what the socket does not take waits."""
        self.deadline = self._desk.now + self._timeout
        if self._out is not None:
            self._out = memoryview(b"".join((self._out, *parts)))
            return
        try:
            # a message is long: it goes to the kernel from where it is, except through TLS, which takes one buffer
            sent = self._sock.send(b"".join(parts)) if self._tls else self._sock.sendmsg(parts)
        except OSError:
            # full, or broken: what the server said before it left is still to be read, and the read side tells
            sent = 0
        self._count(sent)
        if sent < sum(map(len, parts)):
            self._out = memoryview(b"".join(parts))[sent:]

    def _flush(self) -> None:
        if self._out is None:
            return
        try:
            sent = self._sock.send(self._out)
        except OSError:
            return
        self.deadline = self._desk.now + self._timeout
        self._count(sent)
        self._out = self._out[sent:] if sent < len(self._out) else None

    def _count(self, sent: int) -> None:
        if self._before_end:
            self._before_end = max(0, self._before_end - sent)

    # --- ending --------------------------------------------------------------------------------------------------

    def _answer(self, job: Job, code: int, text: str, phase: Phase) -> None:
        self._desk.answer(job, classify(code, enhanced_code(text), text, phase), code, text)

    def _lost(self, reason: str, *, stalled: bool = False, claimed: bool = False) -> None:
        """The connection is gone: answer what is under way by how far it got."""
        if not self.alive:
            return
        self.alive = False
        self.deadline = math.inf
        with contextlib.suppress(OSError):
            self._sock.close()
        current, upcoming, self._current, self._upcoming = self._current, self._upcoming, None, None
        if current is not None:
            in_doubt = self._before_end <= (_TLS_RECORD_BYTES if self._tls else 0) or claimed
            self._desk.answer(current, ReplyKind.UNKNOWN if in_doubt else ReplyKind.NOT_SENT, 0, reason)
        if upcoming is None:
            return
        if self._refusal is not None:
            self._desk.answer(upcoming, *self._refusal)
        elif self._answered or (stalled and current is None):
            self._desk.answer(upcoming, ReplyKind.NOT_SENT, 0, reason)
        else:
            self._desk.give_back(upcoming, reason)


def _rcpt_command(job: Job) -> bytes:
    recipient = job[0].recipient
    if not _ENVELOPE_PATH(recipient):
        recipient = ascii_address(recipient, smtputf8=True)
    return f"RCPT TO:<{recipient}>\r\n".encode()


def _stuffed(data: bytes) -> bytes:
    """Dot-stuffing for messages that did not come from a skeleton (RFC 5321 4.5.2)."""
    stuffed = data.replace(b"\n.", b"\n..")
    return b"." + stuffed if stuffed[:1] == b"." else stuffed
