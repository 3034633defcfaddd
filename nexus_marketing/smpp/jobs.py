"""Messages on their way over a bind: which part is next, what was answered, and how fast they may leave."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.smpp.statuses import Status, code_of, meaning

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
#: So often one part of a message is offered again whose first part was taken.
_MOST_TRIES: Final = 6
_AGAIN: Final = (OutcomeKind.THROTTLED, OutcomeKind.TRANSIENT)
PARTIAL: Final = "partial"


class Answer(NamedTuple):
    """What became of a message: of one that was taken ``code`` is the provider's id of its last part."""

    kind: OutcomeKind
    code: str = ""
    detail: str = ""
    retry_after_seconds: float | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A message: ``parts`` are its PDUs, without their numbers; ``owner`` may take back what has not begun.

    ``on_wire`` is called before the first byte may leave, ``on_answer`` exactly once.
    """

    parts: Sequence[bytes]
    owner: object
    on_wire: Callable[[], None]
    on_answer: Callable[[Answer], None]
    taken: int = 0
    tries: int = 0
    code: str = ""
    has_begun: bool = False
    is_answered: bool = False

    def begin(self) -> None:
        """It may leave from here on."""
        self.on_wire()
        self.has_begun = True

    def answer(self, answer: Answer) -> None:
        """Say what became of it; once."""
        if not self.is_answered:
            self.is_answered = True
            self.on_answer(answer)


@dataclass(slots=True)
class Pace:
    """When the next ``submit_sm`` may leave: evenly, and not while the centre asks for patience; monotonic seconds."""

    per_second: float
    _next_at: float = 0.0
    _pause: float = 0.0
    #: Nothing leaves before.
    paused_until: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next may leave."""
        return max(0.0, self._next_at - now, self.paused_until - now)

    def left(self, now: float) -> None:
        """One leaves."""
        if self.per_second:
            self._next_at = max(self._next_at, now) + 1.0 / self.per_second

    def throttled(self, now: float) -> float:
        """The centre asks for patience, twice as much each time in a row; answers for how long nothing leaves."""
        if now >= self.paused_until:
            self._pause = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._pause))
            self.paused_until = now + self._pause
        return self.paused_until - now

    def taken(self) -> None:
        """It takes messages again."""
        self._pause = 0.0


@dataclass(slots=True)
class UnderWay:
    """The messages of one connection. Of a long one the first part goes alone, so that a refusal concerns all of it."""

    window: int
    pace: Pace
    active: dict[Job, None] = field(default_factory=dict)
    #: By sequence number: the message, the number of its part, and until when an answer is waited for.
    _pending: dict[int, tuple[Job, int, float]] = field(default_factory=dict)
    _ready: deque[tuple[Job, int]] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is begun."""
        return not self.active

    @property
    def has_room(self) -> bool:
        """Whether one more ``submit_sm`` may be without an answer."""
        return len(self._pending) < self.window

    @property
    def next_deadline(self) -> float:
        """When the oldest answer is due."""
        return next((until for _, _, until in self._pending.values()), float("inf"))

    def next_part(self, take: Callable[[], Job | None]) -> tuple[Job, int] | None:
        """What leaves next: parts of messages that are begun, then a message that ``take`` has."""
        while self._ready:
            job, part = self._ready.popleft()
            if not job.is_answered:
                return job, part
        if len(self.active) >= self.window:
            return None
        fresh = take()
        if fresh is None:
            return None
        self.active[fresh] = None
        fresh.begin()
        return fresh, 0

    def sent(self, job: Job, part: int, sequence: int, until: float) -> None:
        """It is on its way."""
        self._pending[sequence] = (job, part, until)

    def answered(self, sequence: int, status: int, code: str, now: float) -> bool:
        """An answer came; ``False`` where it is to nothing that waits for one: late, or never asked."""
        found = self._pending.pop(sequence, None)
        if found is None:
            return False
        job, part, _ = found
        if status == Status.OK:
            self._taken(job, part, code)
        else:
            self._refused(job, part, status, now)
        return True

    def overdue(self, now: float) -> bool:
        """Give up answers that did not come in time; whether there were any."""
        late = [sequence for sequence, (_, _, until) in self._pending.items() if until <= now]
        for sequence in late:
            self._end(self._pending.pop(sequence)[0], Answer(OutcomeKind.UNKNOWN, "no_answer", "no answer in time"))
        return bool(late)

    def lost(self, why: str) -> None:
        """The connection is gone: nobody knows what became of what was begun."""
        for job in list(self.active):
            self._end(job, Answer(OutcomeKind.UNKNOWN, "no_answer", why))
        self._pending.clear()
        self._ready.clear()

    def _taken(self, job: Job, part: int, code: str) -> None:
        self.pace.taken()
        job.taken += 1
        if part == len(job.parts) - 1:
            job.code = code
        if job.taken == len(job.parts):
            self._end(job, Answer(OutcomeKind.ACCEPTED, job.code))
        elif part == 0:
            self._ready.extend((job, number) for number in range(1, len(job.parts)))

    def _refused(self, job: Job, part: int, status: int, now: float) -> None:
        kind, code = meaning(status), code_of(status)
        is_again = kind in _AGAIN and job.taken > 0
        patience = self.pace.throttled(now) if kind is OutcomeKind.THROTTLED or is_again else None
        if not job.taken:
            self._end(job, Answer(kind, code, "", patience))
        elif is_again and job.tries < _MOST_TRIES:
            job.tries += 1
            self._ready.append((job, part))
        else:
            said = f"{code} for part {part + 1} of {len(job.parts)}, after others were taken"
            self._end(job, Answer(OutcomeKind.UNKNOWN, PARTIAL, said))

    def _end(self, job: Job, answer: Answer) -> None:
        self.active.pop(job, None)
        job.answer(answer)
