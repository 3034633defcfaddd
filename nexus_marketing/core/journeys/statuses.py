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
