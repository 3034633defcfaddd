"""When what providers report stops a send: complaints, and addresses that do not exist (BEHAVIOUR.md 5.2, Circuit breakers).

Gmail and Yahoo ask senders to stay below 0.1 % of complaints and turn mail away from 0.3 % on.
"""

from typing import Final, NamedTuple

from nexus_marketing.core.pacing.breaker import MAX_BOUNCED

WARN_COMPLAINED: Final = 0.001
MAX_COMPLAINED: Final = 0.003
MIN_COMPLAINT_SAMPLE: Final = 500
MIN_BOUNCE_SAMPLE: Final = 200


class Feedback(NamedTuple):
    """Messages of one send: how many were taken, and what was told of them."""

    taken: int
    bounced: int
    complained: int

    def since(self, earlier: "Feedback") -> "Feedback":
        """What came on top: whoever resumes a send gives it a new chance."""
        return Feedback(*(max(0, now - before) for now, before in zip(self, earlier, strict=True)))


class Alarm(NamedTuple):
    """``reason`` is for people."""

    reason: str
    must_pause: bool


def alarm_of(feedback: Feedback, max_bounced: float = MAX_BOUNCED) -> Alarm | None:
    """What is wrong with a send, the worst first; nothing while all is well.

    >>> alarm_of(Feedback(taken=1000, bounced=0, complained=3))
    Alarm(reason='too_many_complaints: 3 of 1000 recipients complained', must_pause=True)
    >>> alarm_of(Feedback(taken=499, bounced=0, complained=9)) is None
    True
    """
    taken, bounced, complained = feedback
    said = f"too_many_complaints: {complained} of {taken} recipients complained"
    if taken >= MIN_COMPLAINT_SAMPLE and complained >= MAX_COMPLAINED * taken:
        return Alarm(said, must_pause=True)
    if taken >= MIN_BOUNCE_SAMPLE and bounced >= max_bounced * taken:
        return Alarm(f"too_many_bounces: {bounced} of {taken} messages bounced for good", must_pause=True)
    if taken >= MIN_COMPLAINT_SAMPLE and complained >= WARN_COMPLAINED * taken:
        return Alarm(said, must_pause=False)
    return None


def sample_needed(bounced: int, complained: int, max_bounced: float = MAX_BOUNCED) -> int:
    """How many messages need to be counted: with one more than that taken, neither ratio is reached."""
    return int(max(MIN_COMPLAINT_SAMPLE, complained / WARN_COMPLAINED, bounced / max_bounced)) + 1
