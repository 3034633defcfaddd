"""Handing messages over by HTTP: what every channel that is an HTTP API has in common.

A channel says how a message becomes a request and what an answer means; the session does the rest: several requests in
flight, the hand-over journal, holding back when the other side asks for patience, and one outcome for each message.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from nexus_marketing.core.contracts import Journal, Outcome, OutcomeKind, Submission
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.errors import HostRefused, ValidationError
from nexus_marketing.plugin.exchanges import Answer, Http, NoAnswer, NotReached, OverRate, Request

_IDLE_SECONDS: Final = 0.5
#: How long nothing more is tried where no connection could be made, and where patience is asked for without saying how much.
_AWAY_SECONDS: Final = 30.0
_PATIENCE_SECONDS: Final = 10.0


class Dialect(Protocol):
    """How one content is spoken to one API."""

    def request(self, submission: Submission) -> Request | Outcome:
        """The request for a message, or why there can be none (``refused``); made right before it leaves.

        Raises:
            ValidationError: a value cannot be part of it.
        """
        ...

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """What an answer means."""
        ...


class Lanes:
    """So many threads for each thread that sends: what one worker may have on the wire."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._own = threading.local()

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Those of the calling thread."""
        found: ThreadPoolExecutor | None = getattr(self._own, "executor", None)
        if found is None:
            found = self._own.executor = ThreadPoolExecutor(self.width, thread_name_prefix="http-channel")
        return found

    def close(self) -> None:
        """End those of the calling thread, once they have done what they were given."""
        if hasattr(self._own, "executor"):
            self.executor.shutdown()
            del self._own.executor


class HttpSession:
    """One send's content over one client. Connections belong to the client and outlive the session."""

    def __init__(self, client: Http, lanes: Lanes, dialect: Dialect) -> None:
        self._client = client
        self._lanes = lanes
        self._dialect = dialect
        self._withdrawn = threading.Event()
        #: What everybody is told until that moment of the monotonic clock, without a request.
        self._held: tuple[float, OutcomeKind, str] = (0.0, OutcomeKind.NOT_SENT, "")

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Start handing over, several at a time."""
        answers: SimpleQueue[Outcome] = SimpleQueue()
        withdrawn = self._withdrawn
        for submission in batch:
            attempt = _Attempt(submission.ref, journal)
            self._lanes.executor.submit(lambda *each: answers.put(self._safely(*each)), submission, attempt, withdrawn)
        return outcomes_of(answers, len(batch))

    def withdraw(self) -> None:
        """Take back what no thread has begun; each gets its ``not_sent``."""
        self._withdrawn.set()
        self._withdrawn = threading.Event()

    def close(self) -> None:
        """What has not begun is withdrawn; connections are the client's."""
        self.withdraw()

    def _safely(self, submission: Submission, attempt: "_Attempt", withdrawn: threading.Event) -> Outcome:
        """A fault of ours must not leave somebody waiting for an outcome that never comes."""
        try:
            return attempt.end(self._hand_over(submission, attempt, withdrawn))
        except Exception as error:  # noqa: BLE001 - isolation boundary, see above
            from nexus_marketing.telemetry import get_logger  # noqa: PLC0415 - plugins that log nothing load no logging

            get_logger(__name__).exception("hand_over_failed")
            kind = OutcomeKind.UNKNOWN if attempt.is_on_wire else OutcomeKind.TRANSIENT
            return attempt.end(Outcome(submission.ref, kind, type(error).__name__))

    def _hand_over(self, submission: Submission, attempt: "_Attempt", withdrawn: threading.Event) -> Outcome:
        ref = submission.ref
        if withdrawn.is_set():
            return Outcome(ref, OutcomeKind.NOT_SENT, "withdrawn")
        until, kind, code = self._held
        if (left := until - time.monotonic()) > 0:
            return Outcome(ref, kind, code, retry_after_seconds=left)
        request: Request | Outcome | None = None
        try:
            request = self._dialect.request(submission)
            if isinstance(request, Outcome):
                return request
            answer = self._send(request, attempt)
        except ValidationError as error:
            if request is None:
                return Outcome(ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, error.message[:200])
            # It cannot be sent as it is. Whether by the recipient's values or the account's nobody can say, so that
            # nobody is given up at once, and nobody else waits for it.
            return Outcome(ref, OutcomeKind.TRANSIENT, error.code, error.message[:200])
        except HostRefused as error:
            return self._hold(Outcome(ref, OutcomeKind.PERMANENT_SENDER, "", error.message[:200]))
        except OverRate as error:
            return Outcome(ref, OutcomeKind.NOT_SENT, error.code, error.message, error.retry_after_seconds)
        except NotReached as error:
            return self._hold(Outcome(ref, OutcomeKind.NOT_SENT, NotReached.code, error.message, _AWAY_SECONDS))
        except NoAnswer as error:
            return Outcome(ref, OutcomeKind.UNKNOWN, NoAnswer.code, error.message)
        return self._hold(self._dialect.outcome(ref, answer))

    def _send(self, request: Request, attempt: "_Attempt") -> Answer:
        """Once more where nothing left: a pooled connection may have been closed at the moment of its use."""
        try:
            return self._client.send(request, on_wire=attempt.on_wire)
        except OverRate:
            raise
        except NotReached:
            return self._client.send(request, on_wire=attempt.on_wire)

    def _hold(self, outcome: Outcome) -> Outcome:
        """Where the next would fare the same, it is not tried: a burst against a closed door helps nobody."""
        now = time.monotonic()
        if outcome.kind in (OutcomeKind.THROTTLED, OutcomeKind.NOT_SENT):
            seconds = outcome.retry_after_seconds or _PATIENCE_SECONDS
            self._held = (now + seconds, outcome.kind, outcome.code)
        elif outcome.kind is OutcomeKind.PERMANENT_SENDER:
            self._held = (now + _AWAY_SECONDS, OutcomeKind.NOT_SENT, "sender_refused")
        return outcome


class _Attempt:
    """One message's marks in the journal: on the wire at most once, and an outcome only after it."""

    def __init__(self, ref: int, journal: Journal) -> None:
        self._ref = ref
        self._journal = journal
        self.is_on_wire = False

    def on_wire(self) -> None:
        self.is_on_wire = True
        self._journal.on_wire(self._ref)

    def end(self, outcome: Outcome) -> Outcome:
        if self.is_on_wire:
            self._journal.on_outcome(self._ref, outcome.kind)
        return outcome


def outcomes_of(answers: SimpleQueue[Outcome], expected: int) -> Iterator[Outcome | None]:
    """Each of so many outcomes as another thread puts it there; ``None`` while there is none."""
    while expected:
        try:
            outcome = answers.get(timeout=_IDLE_SECONDS)
        except Empty:
            yield None
            continue
        expected -= 1
        yield outcome
