"""A fast receiving end for benchmarks and chaos runs, as its own process; it discards or records, and fails on order.

``python -m nexus_marketing.smtp.sink --port 0 --log FILE [--script FILE] [--record]`` prints its port. Each accepted
message appends ``recipient<TAB>message-id<TAB>bytes<TAB>unix seconds`` to the log *before* its 250 leaves, written to
the operating system without fsync, so that a judge reads the truth even if a client or this process is killed.
"""

import argparse
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_RECEIVE_BYTES = 262144
_END = b"\r\n.\r\n"
_GREETING = b"220 sink ESMTP\r\n"
_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 104857600\r\n"
_OK = b"250 2.0.0 ok\r\n"
_GO = b"354 go\r\n"
# the three commands of a pipelining client in one piece, and the answer to them
_ENVELOPE = re.compile(rb"MAIL FROM:<[^>\r\n]*>[^\r\n]*\r\nRCPT TO:<([^>\r\n]+)>\r\nDATA\r\n")
_ENVELOPE_TAKEN = _OK + _OK + _GO
_BYE = b"221 2.0.0 bye\r\n"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a fault script: what happens to recipients whose address holds ``match``.

    ``action``: ``reply`` (``code`` and ``text`` in ``phase`` rcpt or end), ``close`` (421 and close), ``drop_data``
    (close once body bytes arrive), ``drop_after_dot`` (take and log the message, close before 250), ``stall`` (never
    answer the dot for ``seconds``). ``times`` limits it per recipient; 0 is always.
    """

    match: bytes
    action: str
    code: int = 450
    text: str = "4.3.0 scripted"
    phase: str = "rcpt"
    seconds: float = 60.0
    times: int = 0


def parse_script(text: str) -> list[Rule]:
    """Rules from a JSON list of objects with the fields of ``Rule``; the first that matches a recipient counts."""
    return [Rule(**{**entry, "match": entry["match"].encode("utf-8")}) for entry in json.loads(text)]


class _Client:
    __slots__ = ("buffer", "head", "in_data", "out", "recipient", "resume_at", "rule", "size", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.in_data = False
        self.size = 0
        self.head = b""
        self.recipient = b""
        self.rule: Rule | None = None
        self.out = b""
        self.resume_at = 0.0


class Sink:
    """The server loop. ``port`` is known after construction; ``accepted`` and ``octets`` count what was taken."""

    def __init__(
        self, *, port: int = 0, log: Path | None = None, rules: Sequence[Rule] = (), record: bool = False
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if log else -1
        self._rules = list(rules)
        self._record = record
        self._uses: dict[tuple[Rule, bytes], int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._stalled: list[_Client] = []
        self._lines: list[bytes] = []
        self._answers: list[tuple[_Client, bytes, bool]] = []
        self._bell, self._bell_far = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._view = memoryview(bytearray(_RECEIVE_BYTES))
        self._stopping = False
        self.accepted = 0
        self.octets = 0
        self.sessions = 0

    def stop(self) -> None:
        """Make ``run`` return; callable from a signal handler or another thread."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._bell_far.send(b"!")

    def run(self) -> None:
        """Serve until ``stop``."""
        while not self._stopping:
            for key, mask in self._selector.select(self._patience()):
                if key.data is not None:
                    self._serve(key.data, mask)
                elif key.fileobj is self._listener:
                    self._welcome()
            self._commit()
            if self._stalled:
                self._release_stalled()
        self._shut()

    def _shut(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for client in self._stalled:
            client.sock.close()
        self._selector.close()
        self._bell_far.close()
        if self._log >= 0:
            os.close(self._log)

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                try:
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.send(_GREETING)
                except OSError:
                    sock.close()  # gone before it was greeted
                    continue
                self.sessions += 1
                self._selector.register(sock, selectors.EVENT_READ, _Client(sock))

    def _serve(self, client: _Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._send(client, b"")
        if not mask & selectors.EVENT_READ:
            return
        try:
            count = client.sock.recv_into(self._view)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._drop(client)
            return
        data = bytes(self._view[:count])
        if client.buffer:
            data = client.buffer + data
            client.buffer = b""
        self._consume(client, data)

    def _consume(self, client: _Client, data: bytes) -> None:
        """Work through what came; answers are collected and leave after the log line is written."""
        answer: list[bytes] = []
        gone = False
        position = 0
        while position < len(data) and not gone:
            if client.in_data:
                if client.rule is not None and client.rule.action == "drop_data":
                    gone = True
                    break
                found = self._body(client, data, position)
                if found < 0:
                    break
                position = found
                gone = self._message_ended(client, answer)
                if client.resume_at:
                    client.buffer = data[position:]
                    break
                continue
            envelope = None if self._rules else _ENVELOPE.match(data, position)
            if envelope is not None:
                self._open_message(client, envelope[1])
                answer.append(_ENVELOPE_TAKEN)
                position = envelope.end()
                continue
            end = data.find(b"\n", position)
            if end < 0:
                client.buffer = data[position:]
                break
            gone = self._command(client, data[position : end + 1], answer)
            position = end + 1
        if answer or gone:
            self._answers.append((client, b"".join(answer), gone))

    def _body(self, client: _Client, data: bytes, position: int) -> int:
        """Position after the final dot, or -1 with the tail kept for an end that straddles two reads."""
        # From the right: what follows an end is short, and nobody may send a second body before it is asked for.
        end = data.rfind(_END, position)
        if self._record and len(client.head) < 4096:
            client.head += data[position : position + 4096]
        if end >= 0:
            client.size += end + 2 - position
            return end + 5
        if not client.size and data.startswith(b".\r\n", position):
            return position + 3
        keep = min(4, len(data) - position)
        client.size += len(data) - position - keep
        client.buffer = data[len(data) - keep :]
        if self._record and keep:
            client.head = client.head[: len(client.head) - keep] if len(client.head) < 4096 else client.head
        return -1

    def _command(self, client: _Client, line: bytes, answer: list[bytes]) -> bool:
        """Answer one command line; True if the connection ends."""
        verb = line[:4].upper()
        if verb == b"MAIL":
            answer.append(_OK)
        elif verb == b"RCPT":
            client.recipient = line[line.find(b"<") + 1 : line.rfind(b">")]
            client.rule = self._rule(client.recipient) if self._rules else None
            return self._answer_rcpt(client, answer)
        elif verb == b"DATA":
            return self._answer_data(client, answer)
        elif verb in {b"EHLO", b"HELO"}:
            answer.append(_EHLO if verb == b"EHLO" else _OK)
        elif verb == b"QUIT":
            answer.append(_BYE)
            return True
        elif verb in {b"RSET", b"NOOP"}:
            client.recipient = b""
            answer.append(_OK)
        else:
            answer.append(b"502 5.5.1 unknown command\r\n")
        return False

    def _rule(self, recipient: bytes) -> Rule | None:
        for rule in self._rules:
            if rule.match in recipient:
                used = self._uses.get((rule, recipient), 0)
                if rule.times and used >= rule.times:
                    continue
                self._uses[(rule, recipient)] = used + 1
                return rule
        return None

    def _answer_rcpt(self, client: _Client, answer: list[bytes]) -> bool:
        rule = client.rule
        if rule is not None and rule.action == "close":
            answer.append(b"421 4.3.2 scripted close\r\n")
            return True
        if rule is not None and rule.action == "reply" and rule.phase == "rcpt":
            client.recipient = b""
            answer.append(f"{rule.code} {rule.text}\r\n".encode())
        else:
            answer.append(_OK)
        return False

    def _answer_data(self, client: _Client, answer: list[bytes]) -> bool:
        if not client.recipient:
            answer.append(b"503 5.5.1 no valid recipient\r\n")
            return False
        self._open_message(client, client.recipient)
        answer.append(_GO)
        return False

    def _open_message(self, client: _Client, recipient: bytes) -> None:
        client.recipient = recipient
        client.in_data = True
        client.size = 0
        client.head = b""

    def _message_ended(self, client: _Client, answer: list[bytes]) -> bool:
        rule = client.rule
        client.in_data = False
        if rule is not None and rule.action == "reply":
            answer.append(f"{rule.code} {rule.text}\r\n".encode())
            return False
        self._accept(client)
        if rule is not None and rule.action == "drop_after_dot":
            return True
        if rule is not None and rule.action == "stall":
            client.resume_at = time.monotonic() + rule.seconds
            self._stalled.append(client)
            self._selector.unregister(client.sock)
            return False
        answer.append(_OK)
        return False

    def _accept(self, client: _Client) -> None:
        self.accepted += 1
        self.octets += client.size
        if self._log >= 0:
            identity = _message_id(client.head) if self._record else b"-"
            recipient = client.recipient if self._record else b"-"
            self._lines.append(b"%b\t%b\t%d\t%.6f\n" % (recipient, identity, client.size, time.time()))

    def _commit(self) -> None:
        """Log lines first, answers after: what was answered 250 is in the log, whoever dies."""
        if self._lines:
            os.write(self._log, b"".join(self._lines))
            self._lines.clear()
        for client, answer, gone in self._answers:
            if answer:
                self._send(client, answer)
            if gone:
                self._drop(client)
        self._answers.clear()

    def _send(self, client: _Client, answer: bytes) -> None:
        client.out += answer
        try:
            sent = client.sock.send(client.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        had, client.out = bool(len(client.out) - len(answer)), client.out[sent:]
        if client.out or had:
            with contextlib.suppress(KeyError, ValueError):
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.out else 0)
                self._selector.modify(client.sock, events, client)

    def _patience(self) -> float | None:
        """Seconds until the next stalled client is due; None while nobody is."""
        if not self._stalled:
            return None
        return max(0.0, min(client.resume_at for client in self._stalled) - time.monotonic())

    def _release_stalled(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._stalled if client.resume_at <= now]:
            self._stalled.remove(client)
            client.resume_at = 0.0
            self._selector.register(client.sock, selectors.EVENT_READ, client)
            self._send(client, _OK)
            rest, client.buffer = client.buffer, b""
            self._consume(client, rest)
        self._commit()

    def _drop(self, client: _Client) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        client.sock.close()


def _message_id(head: bytes) -> bytes:
    start = head.lower().find(b"\nmessage-id:")
    if start < 0:
        return b"-"
    return head[start + 12 : head.find(b"\r\n", start + 12)].strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sink until SIGTERM or SIGINT; prints the port first and the counts as JSON last."""
    parser = argparse.ArgumentParser(prog="nexus_marketing.smtp.sink", description="Discarding SMTP server")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--log", type=Path, help="one line per accepted message")
    parser.add_argument("--script", type=Path, help="JSON list of fault rules")
    parser.add_argument("--record", action="store_true", help="log recipient and Message-ID too")
    options = parser.parse_args(arguments)
    rules = parse_script(options.script.read_text(encoding="utf-8")) if options.script else []
    sink = Sink(port=options.port, log=options.log, rules=rules, record=options.record)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sink.stop())
    print(sink.port, flush=True)  # noqa: T201 - the answer to --port 0
    sink.run()
    print(json.dumps({"accepted": sink.accepted, "octets": sink.octets, "sessions": sink.sessions}), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
