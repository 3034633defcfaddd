"""Where a journey stands, and what became of those who came to it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JourneyStatus(StrEnum):
    """``draft`` was never published; ``draining`` lets nobody in; ``stopped`` is the end."""

    DRAFT = "draft"
    PUBLISHED = "published"
    DRAINING = "draining"
    PAUSED = "paused"
    STOPPED = "stopped"


class JourneyMove(StrEnum):
    """What an operator does with a journey beside publishing it."""

    DRAIN = "drain"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class ResumePolicy(StrEnum):
    """What becomes of what was due during a pause: it happens late, its messages are left out, or everything waits on for
    as long as the pause was.
    """

    CATCH_UP = "catch_up"
    SKIP_MESSAGE = "skip_message"
    SHIFT = "shift_all_by_pause_length"


class Unmapped(StrEnum):
    """What becomes of runs at nodes that a migration gives no other: they finish where they are, leave, or wait for an
    operator.
    """

    STAY = "stay"
    EXIT = "exit"
    HOLD = "hold"


#: From where each move is possible; :attr:`JourneyMove.RESUME` leads back to where the pause began.
MOVES: Final[Mapping[JourneyMove, tuple[JourneyStatus, ...]]] = {
    JourneyMove.DRAIN: (JourneyStatus.PUBLISHED,),
    JourneyMove.PAUSE: (JourneyStatus.PUBLISHED, JourneyStatus.DRAINING),
    JourneyMove.RESUME: (JourneyStatus.PAUSED,),
    JourneyMove.STOP: (JourneyStatus.PUBLISHED, JourneyStatus.DRAINING, JourneyStatus.PAUSED),
}


class Listens(StrEnum):
    """What a journey wants to hear of: names of events, ids of segments that are entered or left, changes of leads inside."""

    EVENT = "event"
    ENTERED = "entered"
    LEFT = "left"
    CHANGE = "change"
