"""When a send stops itself: too many of its last messages were refused (BEHAVIOUR.md 5.2, Circuit breakers).

Ratios with a minimum sample: a plain count says too much of a large list and too little of a small one. 5 % of hard bounces is
where mail services suspend a sender (Amazon SES: review at 5 %, pause at 10 %).
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """How a hand-over counts."""

    GOOD = "good"
    #: The address is refused for good.
    BOUNCED = "bounced"
    #: The server said no to this message for now, or nobody knows.
    FAILED = "failed"


WINDOW: Final = 500
MIN_SAMPLE: Final = 200
MAX_BOUNCED: Final = 0.05
MIN_FAILED: Final = 100
MAX_FAILED: Final = 0.5


@dataclass(slots=True)
class Breaker:
    """The last hand-overs of one send by one worker.

    Args:
        max_bounced: the share of hard bounces from which on it trips, once there is a sample.
    """

    max_bounced: float = MAX_BOUNCED
    _last: deque[Verdict] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _counts: Counter[Verdict] = field(default_factory=Counter)

    def saw(self, verdict: Verdict) -> None:
        """Remember one more; of more than :data:`WINDOW` the oldest is forgotten."""
        if len(self._last) == WINDOW:
            self._counts[self._last[0]] -= 1
        self._last.append(verdict)
        self._counts[verdict] += 1

    @property
    def tripped(self) -> str | None:
        """Why nothing more should be sent, for people; nothing while all is well."""
        seen = len(self._last)
        bounced, failed = self._counts[Verdict.BOUNCED], self._counts[Verdict.FAILED]
        if seen >= MIN_SAMPLE and bounced > self.max_bounced * seen:
            return f"too_many_bounces: {bounced} of the last {seen} addresses were refused for good"
        if failed >= MIN_FAILED and failed > MAX_FAILED * seen:
            return f"too_many_errors: {failed} of the last {seen} messages were not taken"
        return None
