"""What a failed campaign or run takes back, and in which order: the reverse of that in which it was done (BR-004).

>>> from datetime import UTC, timedelta
>>> noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
>>> effects = [Effect("action", 1, noon), Effect("action", 2, noon), Effect("send", 9, noon - timedelta(hours=1))]
>>> next_to_undo(effects, undone=[]).id, next_to_undo(effects, undone=[("action", 2), ("action", 1)]).id
(2, 9)
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

#: The name of what takes back the messages of a send; no document can ask for it.
RETRACT: Final = "retract_send"


class EffectKind(StrEnum):
    """What can be taken back."""

    ACTION = "action"
    SEND = "send"
    #: A visit of a run to a node, by its number.
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that was done and can be taken back: an action or a step when it was done, a send when it began."""

    kind: str
    id: int
    at: datetime


def next_to_undo(effects: Iterable[Effect], undone: Collection[tuple[str, int]]) -> Effect | None:
    """The last of what was done and nobody has begun to take back; nothing where nothing is left.

    Args:
        effects: everything that can be taken back.
        undone: kind and id of what was begun to be taken back, whatever became of that.
    """
    left = [each for each in effects if (each.kind, each.id) not in undone]
    return max(left, key=lambda each: (each.at, each.kind, each.id), default=None)
