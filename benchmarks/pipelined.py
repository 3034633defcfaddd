"""A client that does nothing but send: the reference of ``delivery.email.raw``.

One constant message on a few connections. The envelope of the next message rides behind the end of the
one before, so that each message is one write and one read; answers are counted, not understood.
"""

import selectors
import smtplib
import socket
import time


class _Line:
    """One connection: what it still has to send, and how many reply lines it waits for."""

    def __init__(self, port: int, numbers: range) -> None:
        self._session = smtplib.SMTP("127.0.0.1", port)
        self._session.ehlo()
        sock = self._session.sock
        assert sock is not None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock: socket.socket = sock
        self.accepted = 0
        self._numbers = iter(numbers)
        self._lines = 0
        self._sock_send = sock.sendall

    def begin(self) -> None:
        """Send the first envelope."""
        self._sock_send(self._envelope())
        self._lines = 3

    def read(self, body_and_end: bytes) -> bool:
        """Take in answers and send what they allow; whether more will come."""
        answer = self.sock.recv(65536)
        self._lines -= answer.count(b"\n")
        if self._lines > 0:
            return True
        if answer.rfind(b"354 ") < 0:
            self.accepted += 1
            return False
        self.accepted += answer.startswith(b"250 ") and answer.count(b"250 ") == 3
        envelope = self._envelope()
        self._sock_send(body_and_end + envelope)
        self._lines = 4 if envelope else 1
        return True

    def close(self) -> None:
        """Part from the server."""
        self._session.close()

    def _envelope(self) -> bytes:
        number = next(self._numbers, None)
        if number is None:
            return b""
        return b"MAIL FROM:<news@shop.example>\r\nRCPT TO:<lead%d@inbox.example>\r\nDATA\r\n" % number


def send_pipelined(port: int, body: bytes, count: int, connections: int) -> float:
    """Send a constant message to so many recipients; answers the seconds."""
    lines = [_Line(port, range(first, count, connections)) for first in range(connections)]
    body_and_end = body + b".\r\n"
    with selectors.DefaultSelector() as selector:
        for line in lines:
            selector.register(line.sock, selectors.EVENT_READ, line)
        started = time.perf_counter()
        for line in lines:
            line.begin()
        left = len(lines)
        while left:
            for key, _mask in selector.select():
                if not key.data.read(body_and_end):
                    left -= 1
        seconds = time.perf_counter() - started
    for line in lines:
        line.close()
    assert sum(line.accepted for line in lines) == count, [line.accepted for line in lines]
    return seconds
