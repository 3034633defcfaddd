"""The pool: many pipelined connections driven by the calling thread, so that sending never fights rendering for the GIL.

Only connection set-up (connect, TLS handshake, login: waiting, no work) happens in short-lived threads, because the
standard library's set-up blocks and must not hold up the connections that work.
"""

import contextlib
import queue
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from nexus_marketing.smtp.connection import Connection, Job, OnReply, OnWire
from nexus_marketing.smtp.handshake import PoolSettings, Session, SetupError, TlsPolicy, try_session
from nexus_marketing.smtp.replies import Envelope, Phase, Reply, ReplyKind, classify, enhanced_code

__all__ = ["Envelope", "Phase", "Pool", "PoolSettings", "Reply", "ReplyKind", "TlsPolicy", "classify"]

_TICK_SECONDS = 0.02
_BACKOFF_FIRST_SECONDS = 0.02
_BACKOFF_LAST_SECONDS = 30.0
# a message gets this many connections; beyond that it may be what kills them
_GIVE_BACK_LIMIT = 3


class _Seat:
    """A place for one connection, with its reconnect history."""

    __slots__ = ("connection", "failures", "mask", "not_before", "opening")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.mask = 0
        self.opening = False
        self.failures = 0
        self.not_before = 0.0


class Pool:
    """Sends envelopes over several connections and gives exactly one reply for each.

    Belongs to one thread. ``submit`` and ``poll`` never wait for a single server answer while others can go on.
    """

    def __init__(
        self,
        settings: PoolSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.now = clock()
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._queue: deque[Job] = deque()
        self._replies: list[Reply] = []
        self._outstanding = 0
        self._given_back: dict[int, int] = {}
        self._seats = [_Seat() for _ in range(max(1, settings.connections))]
        self._opened: queue.SimpleQueue[tuple[_Seat, Session | SetupError]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._bell, self._bell_far = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._last_alive = self.now
        self._last_tick = self.now
        self._setup_error: SetupError | None = None
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Envelopes submitted whose reply ``poll`` has not returned yet."""
        return self._outstanding

    @property
    def queued(self) -> int:
        """Envelopes no connection has taken yet."""
        return len(self._queue)

    @property
    def is_connected(self) -> bool:
        """Whether any connection is open."""
        return any(seat.connection is not None for seat in self._seats)

    def submit(
        self, envelopes: Sequence[Envelope], *, on_wire: OnWire | None = None, on_reply: OnReply | None = None
    ) -> None:
        """Queue envelopes and write what the sockets take at once.

        Args:
            on_wire: called with the ref before the write that may carry the message's final dot.
            on_reply: called with the ref and ``ReplyKind.number`` as soon as its answer is known, before any later
                message of the same connection goes on the wire, and before ``poll`` returns the reply.
        """
        self.now = self._clock()
        if not self._queue and self._outstanding == 0:
            self._last_alive = self.now
        self._outstanding += len(envelopes)
        self._queue.extend([(envelope, on_wire, on_reply) for envelope in envelopes])
        if self._closed:
            self._answer_queue(ReplyKind.NOT_SENT, 0, "the pool is closed")
            return
        self._open_missing()
        self._feed()

    def poll(self, timeout_seconds: float) -> list[Reply]:
        """Drive the connections until a reply is there or the time is over; returns the replies, in order of arrival."""
        self.now = self._clock()
        until = self.now + timeout_seconds
        while True:
            waiting = not self._replies and self._outstanding and not self._closed
            self._turn(max(0.0, min(until - self.now, _TICK_SECONDS)) if waiting else 0.0)
            if self._replies or self.now >= until or not self._outstanding:
                replies, self._replies = self._replies, []
                self._outstanding -= len(replies)
                return replies

    def drain(self, timeout_seconds: float) -> list[Reply]:
        """Poll until nothing is outstanding or the time is over."""
        until = self._clock() + timeout_seconds
        replies: list[Reply] = []
        while self._outstanding:
            replies += self.poll(max(0.0, until - self._clock()))
            if self.now >= until:
                break
        return replies

    def withdraw(self) -> None:
        """Answer ``not_sent`` for everything no connection has begun: pause, lost lease, SIGTERM."""
        self._answer_queue(ReplyKind.NOT_SENT, 0, "withdrawn before it was begun")

    def close(self) -> None:
        """Part from the servers. What is under way or queued gets its answer; ``poll(0)`` still returns it."""
        if self._closed:
            return
        self._closed = True
        for seat in self._seats:
            if seat.connection is not None:
                seat.connection.close()
                self._reap(seat)
        self.withdraw()
        self._selector.close()
        self._bell.close()
        self._bell_far.close()
        self._discard_opened()

    # --- what connections ask of their desk ----------------------------------------------------------------------

    def take(self) -> Job | None:
        """The next queued message."""
        return self._queue.popleft() if self._queue else None

    def answer(self, job: Job, kind: ReplyKind, code: int, text: str) -> None:
        """Store the one reply of a message and tell the journal."""
        ref = job[0].ref
        self._replies.append(Reply(ref, kind, code, enhanced_code(text), text))
        if job[2] is not None:
            job[2](ref, kind.number)

    def give_back(self, job: Job, text: str) -> None:
        """Queue a message again whose envelope drew no reply; after three times it is answered ``not_sent``."""
        ref = job[0].ref
        times = self._given_back.pop(ref, 0) + 1
        if self._closed or times >= _GIVE_BACK_LIMIT:
            self.answer(job, ReplyKind.NOT_SENT, 0, text)
            return
        self._given_back[ref] = times
        self._queue.appendleft(job)

    # --- driving -------------------------------------------------------------------------------------------------

    def _turn(self, wait_seconds: float) -> None:
        if self._closed:
            return
        for key, mask in self._selector.select(wait_seconds):
            seat = key.data
            if seat is None:
                self._seat_opened()
                continue
            connection = seat.connection
            if mask & selectors.EVENT_WRITE:
                connection.on_writable()
            if mask & selectors.EVENT_READ:
                connection.on_readable()
            if not connection.alive or connection.wants_write is not bool(seat.mask & selectors.EVENT_WRITE):
                self._after(seat)
        self.now = self._clock()
        if self.now - self._last_tick >= _TICK_SECONDS:
            self._tick()

    def _tick(self) -> None:
        self._last_tick = self.now
        for seat in self._seats:
            if seat.connection is not None:
                seat.connection.check_deadline()
                self._after(seat)
        if not self._outstanding:
            self._given_back.clear()
        if self._queue:
            self._open_missing()
            self._feed()
            self._give_up()

    def _feed(self) -> None:
        """Hand queued envelopes to connections with room, those without work first."""
        for only_idle in (True, False):
            for seat in self._seats:
                connection = seat.connection
                if not self._queue:
                    return
                if connection is not None and connection.may_take and (connection.idle or not only_idle):
                    connection.start()
                    self._after(seat)

    def _after(self, seat: _Seat) -> None:
        """Bring the selector in line with the connection."""
        connection = seat.connection
        if connection is None:
            return
        if not connection.alive:
            self._reap(seat)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
        if mask != seat.mask:
            self._selector.modify(connection.fileno, mask, seat)
            seat.mask = mask

    def _reap(self, seat: _Seat) -> None:
        connection, seat.connection = seat.connection, None
        assert connection is not None
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.fileno)
        seat.mask = 0
        seat.failures = 0 if connection.productive else seat.failures + 1
        seat.not_before = self.now + self._backoff_seconds(seat.failures + connection.slow_down)
        if self._queue and not self._closed:
            self._open_missing()

    def _backoff_seconds(self, failures: int) -> float:
        """Exponential with full jitter; at once after a connection that did its work."""
        if not failures:
            return 0.0
        ceiling = min(_BACKOFF_LAST_SECONDS, _BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 16))
        return self._rng.uniform(0.0, ceiling)

    # --- opening -------------------------------------------------------------------------------------------------

    def _open_missing(self) -> None:
        """Open as many connections as there is work for, each in its own thread."""
        opening = sum(seat.opening for seat in self._seats)
        wanted = len(self._queue) - opening
        for seat in self._seats:
            if wanted <= 0 or self._closed:
                return
            if seat.connection is None and not seat.opening and seat.not_before <= self.now:
                seat.opening = True
                wanted -= 1
                threading.Thread(target=self._open, args=(seat,), name="smtp-setup", daemon=True).start()

    def _open(self, seat: _Seat) -> None:
        """In a thread: set up a session, leave it in the letter box and ring."""
        self._opened.put((seat, try_session(self._settings)))
        with contextlib.suppress(OSError):
            self._bell_far.send(b"!")
        if self._closed:
            self._discard_opened()

    def _discard_opened(self) -> None:
        """Close what was set up too late; both the closing pool and a late thread look, so that one of them finds it."""
        with contextlib.suppress(queue.Empty):
            while True:
                _, outcome = self._opened.get_nowait()
                if isinstance(outcome, Session):
                    outcome.sock.close()

    def _seat_opened(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        while True:
            try:
                seat, outcome = self._opened.get_nowait()
            except queue.Empty:
                return
            seat.opening = False
            if isinstance(outcome, SetupError):
                self._setup_failed(seat, outcome)
            else:
                self._seat_taken(seat, outcome)

    def _seat_taken(self, seat: _Seat, session: Session) -> None:
        settings = self._settings
        seat.connection = connection = Connection(
            session,
            self,
            reply_timeout_seconds=settings.reply_timeout_seconds,
            max_messages=settings.max_messages_per_connection,
        )
        self._setup_error = None
        self._last_alive = self.now
        if not connection.alive:
            self._reap(seat)
            return
        seat.mask = selectors.EVENT_READ
        self._selector.register(connection.fileno, seat.mask, seat)
        connection.start()
        self._after(seat)

    def _setup_failed(self, seat: _Seat, error: SetupError) -> None:
        seat.failures += 1
        seat.not_before = self.now + self._backoff_seconds(seat.failures)
        self._setup_error = error
        if error.kind is ReplyKind.PERMANENT_SENDER and not self.is_connected:
            self._answer_queue(error.kind, error.code, error.text)

    def _give_up(self) -> None:
        """Answer what is queued if no connection could be opened for too long: the caller decides when to try again."""
        if self.is_connected:
            self._last_alive = self.now
        elif self.now - self._last_alive >= self._settings.give_up_seconds:
            error = self._setup_error
            self._answer_queue(ReplyKind.NOT_SENT, error.code if error else 0, error.text if error else "no connection")

    def _answer_queue(self, kind: ReplyKind, code: int, text: str) -> None:
        while self._queue:
            self.answer(self._queue.popleft(), kind, code, text)
