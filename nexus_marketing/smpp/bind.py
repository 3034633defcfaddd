"""A bind that is kept: one thread owns its socket, sends what callers queue, answers the centre and hears what it delivers."""

import contextlib
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from nexus_marketing.core.contracts import Hear, LineState, OutcomeKind
from nexus_marketing.smpp.hearing import Ear
from nexus_marketing.smpp.jobs import Answer, Job, Pace, UnderWay
from nexus_marketing.smpp.link import _LAST_SEQUENCE, Link
from nexus_marketing.smpp.opening import NOT_REACHED, BindSettings, NotBound, Wire, open_bind
from nexus_marketing.smpp.pdus import RESPONSE, Command, Garbage, Mode, Pdu, delivered, numbered, packed
from nexus_marketing.smpp.receipts import answered_id, event_of
from nexus_marketing.smpp.statuses import Status
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)
_RECEIVE_BYTES: Final = 65_536
_MOST_UNWRITTEN: Final = 1_000_000
_TICK_SECONDS: Final = 0.5
_PART_SECONDS: Final = 2.0
_FIRST_REST_SECONDS: Final = 1.0
#: A wait that is no longer is waited for; for a longer one messages go back to whoever sends them.
_SOON_SECONDS: Final = 2.0
#: Requests that say something and want no answer.
_SILENT: Final = (Command.ALERT_NOTIFICATION,)
_CLOSED: Final = Answer(OutcomeKind.NOT_SENT, "closed", "the bind was closed")
#: A connection that lasted so long was none that is refused again and again.
_LASTING_SECONDS: Final = 60.0


class Bind:
    """Any thread may call any method; callbacks come from the bind's own threads.

    The connection is made when a message or somebody who hears needs it, made again when it is lost, and parted from
    when nobody has needed it for a while.
    """

    def __init__(self, settings: BindSettings, wire: Wire) -> None:
        self._settings = settings
        self._wire = wire
        self._ear = Ear(self._answer_delivery)
        self._pace = Pace(settings.per_second)
        self._lock = threading.Lock()
        self._queue: deque[Job] = deque()
        self._acks: deque[tuple[Link, int, Status]] = deque()
        self._link: Link | None = None
        self._problem: NotBound | None = None
        self._failures = 0
        self._not_before = 0.0
        self._used_at = time.monotonic()
        self._is_closing = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._bell_far = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_far.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="smpp-bind", daemon=True)
        self._thread.start()

    def state(self) -> LineState:
        """Whether it is bound now, and what stood in the way last."""
        problem = self._problem
        if self._link is not None or problem is None:
            return LineState(is_open=self._link is not None)
        return LineState(False, problem.kind is OutcomeKind.PERMANENT_SENDER, problem.code, str(problem))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue messages; each is answered, however this ends."""
        with self._lock:
            room = 0 if self._is_closing else max(0, self._room())
            self._queue.extend(jobs[:room])
            self._used_at = time.monotonic()
            is_closing, rate = self._is_closing, self._settings.per_second
        for number, job in enumerate(jobs[room:], start=room + 1):
            job.answer(_CLOSED if is_closing else Answer(OutcomeKind.THROTTLED, "paced", "", number / rate))
        self._ring()

    def _room(self) -> int:
        """How many more can leave soon: who pauses a send does not want to see messages of it minutes later."""
        rate = self._settings.per_second
        return max(1, int(rate * _SOON_SECONDS)) - len(self._queue) if rate else _LAST_SEQUENCE

    def withdraw(self, owner: object) -> None:
        """Take back what of an owner's has not begun."""
        with self._lock:
            mine = [job for job in self._queue if job.owner is owner]
            self._queue = deque(job for job in self._queue if job.owner is not owner)
        _answer_all(mine, Answer(OutcomeKind.NOT_SENT, "withdrawn"))

    def listen(self, hear: Hear) -> None:
        """Tell this one what the centre delivers; the bind is kept open for it."""
        self._ear.add(hear)
        self._ring()

    def cease(self, hear: Hear) -> None:
        """Tell it no more."""
        self._ear.remove(hear)
        self._ring()

    def close(self) -> None:
        """Finish what is on the wire, part from the centre, end."""
        with self._lock:
            self._is_closing = True
        self._ring()
        self._thread.join(self._wire.reply_seconds + 2 * _PART_SECONDS)
        self._ear.close()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                if not self._turn():
                    break
            except Exception as error:  # isolation boundary: a fault of ours must not leave anybody waiting
                log.exception("smpp_bind_failed")
                self._lost(f"{type(error).__name__} here")
                time.sleep(_TICK_SECONDS)
        for each in (self._selector, self._bell, self._bell_far):
            each.close()

    def _turn(self) -> bool:
        """One look at everything; ``False``: it is over."""
        now = time.monotonic()
        if self._link is None:
            if self._is_closing:
                self._refuse_all(_CLOSED)
                return False
            if not self._is_wanted():
                self._wait(None)
                return True
            if now < self._not_before:
                self._refuse_rest(now)
                self._wait(self._not_before - now)
                return True
            self._open()
        else:
            self._tend(self._link, now)
        return True

    def _is_wanted(self) -> bool:
        return bool(self._queue) or self._ear.is_open

    def _wait(self, seconds: float | None) -> None:
        link = self._link
        for key, mask in self._selector.select(seconds):
            if key.fileobj is self._bell:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
            elif link is not None:
                if mask & selectors.EVENT_READ:
                    self._read(link)
                if mask & selectors.EVENT_WRITE and self._link is link:
                    self._flush(link)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell_far.send(b"!")

    def _open(self) -> None:
        try:
            opened = open_bind(self._settings, self._wire)
        except NotBound as error:
            self._not_opened(error)
            return
        except Exception as error:  # isolation boundary: whatever it is, messages wait for an answer
            log.exception("smpp_bind_failed")
            self._not_opened(NotBound(OutcomeKind.NOT_SENT, NOT_REACHED, type(error).__name__))
            return
        self._problem = None
        under_way = UnderWay(self._settings.window, self._pace)
        link = self._link = Link(opened, under_way, began_at=(now := time.monotonic()), heard_at=now)
        self._selector.register(opened.sock, selectors.EVENT_READ)
        self._note("smpp_bound", system_id=self._settings.system_id)
        self._heard(link, opened.early)

    def _note(self, event: str, **about: object) -> None:
        """For the log of whoever keeps the bind; of one that is made for some messages their outcomes say it."""
        if self._ear.is_open:
            log.info(event, place=self._settings.place, **about)

    def _not_opened(self, error: NotBound) -> None:
        if self._problem is None or self._problem.code != error.code:
            self._note("smpp_not_bound", reason=str(error)[:200])
        self._problem = error
        self._failures += 1
        self._rest(refused=error.kind is OutcomeKind.PERMANENT_SENDER)
        self._refuse_rest(time.monotonic())

    def _rest(self, *, refused: bool) -> None:
        """Longer each time, with jitter; after a refusal as long as that is."""
        most = self._wire.rest_seconds
        seconds = most if refused else min(most, _FIRST_REST_SECONDS * 2.0 ** min(self._failures - 1, 16))
        self._not_before = time.monotonic() + seconds * random.uniform(0.75, 1.0)  # noqa: S311 - spreads attempts

    def _refuse_rest(self, now: float) -> None:
        """Nobody waits for a bind that is not tried now."""
        problem = self._problem
        if problem is None:
            answer = Answer(OutcomeKind.NOT_SENT, NOT_REACHED, "the connection was lost", self._not_before - now)
        else:
            answer = Answer(problem.kind, problem.code, str(problem)[:200], max(0.0, self._not_before - now))
        self._refuse_all(answer)

    def _refuse_all(self, answer: Answer) -> None:
        with self._lock:
            jobs, self._queue = list(self._queue), deque()
        _answer_all(jobs, answer)

    # --- an open connection --------------------------------------------------------------------------------------

    def _tend(self, link: Link, now: float) -> None:
        self._answer_deliveries(link)
        self._feed(link, now)
        if self._link is not link or self._end_if_over(link, now):
            return
        if link.under_way.overdue(now):
            self._ask(link, now)
        quiet = now - link.heard_at
        if link.asked_at is not None and now - link.asked_at > self._wire.reply_seconds:
            self._lost("the centre does not answer")
        elif link.asked_at is None and quiet >= self._settings.enquire_link_seconds:
            self._ask(link, now)
        else:
            self._wait(self._pause(link, now))

    def _pause(self, link: Link, now: float) -> float:
        """Until something may have to be done that nobody rings for."""
        asks_at = link.heard_at + self._settings.enquire_link_seconds
        wait = min(_TICK_SECONDS, max(0.0, link.under_way.next_deadline - now), max(0.01, asks_at - now))
        if (self._queue or not link.under_way.is_idle) and link.under_way.has_room:
            wait = min(wait, self._pace.wait(now) or _TICK_SECONDS)
        return wait

    def _feed(self, link: Link, now: float) -> None:
        if link.parts_at is not None or self._settings.mode is Mode.RECEIVER:
            return
        while not link.out and link.under_way.has_room:
            if (wait := self._pace.wait(now)) > 0:
                if self._pace.paused_until - now > _SOON_SECONDS:
                    self._refuse_all(Answer(OutcomeKind.THROTTLED, "throttled", "", wait))
                return
            found = link.under_way.next_part(self._take)
            if found is None:
                return
            job, part = found
            sequence = link.next_sequence()
            link.under_way.sent(job, part, sequence, now + self._wire.reply_seconds)
            self._pace.left(now)
            self._write(link, numbered(job.parts[part], sequence))
            if self._link is not link:
                return

    def _take(self) -> Job | None:
        with self._lock:
            if not self._queue or self._is_closing:
                return None
            self._used_at = time.monotonic()
            return self._queue.popleft()

    def _end_if_over(self, link: Link, now: float) -> bool:
        """Part where it is time to; whether the connection is gone."""
        if link.parts_at is None:
            if self._is_closing:
                self._refuse_all(_CLOSED)
            is_idle = not self._is_wanted() and now - self._used_at > self._wire.idle_seconds
            if link.may_end and (self._is_closing or is_idle):
                link.parts_at = now + _PART_SECONDS
                self._write(link, packed(Command.UNBIND, link.next_sequence()))
        elif link.unbind is not None and (link.may_end or now >= link.parts_at):
            self._write(link, packed(Command.UNBIND | RESPONSE, link.unbind))
            self._lost("the centre ended the bind")
        elif now >= link.parts_at:
            self._lost("parted")
        return self._link is not link

    def _ask(self, link: Link, now: float) -> None:
        if link.asked_at is None:
            link.asked_at = now
            self._write(link, packed(Command.ENQUIRE_LINK, link.next_sequence()))

    def _read(self, link: Link) -> None:
        while self._link is link:
            try:
                data = link.opened.sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
                return
            except OSError as error:
                self._lost(f"the connection broke: {error}")
                return
            if not data:
                self._lost("the centre closed the connection")
                return
            try:
                self._heard(link, list(link.opened.stream.feed(data)))
            except Garbage as error:
                self._lost(f"the centre sent garbage: {error}")

    def _heard(self, link: Link, pdus: Sequence[Pdu]) -> None:
        link.heard_at = time.monotonic()
        link.asked_at = None
        for pdu in pdus:
            if self._link is link:
                self._hear(link, pdu)

    def _hear(self, link: Link, pdu: Pdu) -> None:
        command, sequence = pdu.command, pdu.sequence
        if command == Command.SUBMIT_SM | RESPONSE:
            link.was_useful |= link.under_way.answered(
                sequence, pdu.status, answered_id(pdu.string[:64], self._settings.ids), link.heard_at
            )
        elif command == Command.DELIVER_SM:
            self._deliver(link, pdu)
        elif command == Command.ENQUIRE_LINK:
            self._write(link, packed(command | RESPONSE, sequence))
        elif command == Command.UNBIND:
            link.unbind, link.parts_at = sequence, link.heard_at + _PART_SECONDS
        elif command == Command.UNBIND | RESPONSE:
            self._lost("parted")
        elif command == Command.GENERIC_NACK:
            # What it refuses it did not do; where that is nothing of ours, nothing on this connection is sure.
            link.under_way.answered(sequence, pdu.status or Status.INVALID_COMMAND, "", link.heard_at)
            if not 0 < sequence <= link.sequence:
                self._lost("the centre understands nothing (generic_nack)")
        elif not command & RESPONSE and command not in _SILENT:
            self._write(link, packed(Command.GENERIC_NACK, sequence, Status.INVALID_COMMAND))

    def _deliver(self, link: Link, pdu: Pdu) -> None:
        link.was_useful = True
        link.deliveries += 1
        try:
            event = event_of(pdu.data, self._settings.ids, f"{link.id}:{link.deliveries}")
        except Exception as error:  # noqa: BLE001 - isolation boundary: what they send is theirs, and goes on behind it
            log.warning("smpp_delivery_not_understood", place=self._settings.place, error=str(error)[:100])
            self._write(link, delivered(pdu.sequence, Status.PERMANENT))
            return
        if event is None:
            self._write(link, delivered(pdu.sequence))
            return
        link.unanswered += 1
        self._ear.take((link, pdu.sequence), event)

    def _answer_delivery(self, mark: tuple[Link, int], status: Status) -> None:
        """From any thread."""
        link, sequence = mark
        self._acks.append((link, sequence, status))
        self._ring()

    def _answer_deliveries(self, link: Link) -> None:
        while self._acks and self._link is link:
            of, sequence, status = self._acks.popleft()
            if of is link:  # what came by a connection that is gone comes again by another
                link.unanswered -= 1
                self._write(link, delivered(sequence, status))

    def _write(self, link: Link, data: bytes) -> None:
        if self._link is not link:
            return
        link.out += data
        if len(link.out) > _MOST_UNWRITTEN:
            self._lost("the centre asks and does not read")
        else:
            self._flush(link)

    def _flush(self, link: Link) -> None:
        try:
            while link.out:
                link.out = link.out[link.opened.sock.send(link.out) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            pass
        except OSError as error:
            self._lost(f"the connection broke: {error}")
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.out else 0)
        if self._selector.get_key(link.opened.sock).events != mask:
            self._selector.modify(link.opened.sock, mask)

    def _lost(self, why: str) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link.opened.sock)
        link.opened.sock.close()
        self._note("smpp_unbound", reason=why[:200], begun=len(link.under_way.active))
        link.under_way.lost(why[:200])
        is_good = link.was_useful or time.monotonic() - link.began_at > _LASTING_SECONDS
        self._failures = 0 if is_good else self._failures + 1
        if self._failures:
            self._rest(refused=False)
        elif link.unbind is not None:
            self._not_before = time.monotonic() + _FIRST_REST_SECONDS


def _answer_all(jobs: Sequence[Job], answer: Answer) -> None:
    for job in jobs:
        job.answer(answer)
