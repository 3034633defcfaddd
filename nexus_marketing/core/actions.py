"""Named actions: what a document may ask for by a name, and what becomes of one that was asked for.

>>> judged(ActionOutcome(ActionResult.DONE, "told them"), None).state
<ActionState.DONE: 'done'>
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from nexus_marketing.core.extensions import ActionOutcome, ActionResult

_LONGEST_DETAIL: Final = 500
_LONGEST_RETRY: Final = timedelta(hours=24)


class OwnAction(StrEnum):
    """What every campaign can be asked for without a plugin; nothing of it leaves the database."""

    NOTIFY = "notify"
    REASSIGN = "reassign"
    PAUSE = "pause"
    PAUSE_AND_ALERT = "pause_and_alert"
    CHANGE_PRIORITY = "change_priority"


class ActionSource(StrEnum):
    """Who asked for an action."""

    JOURNEY = "journey"
    STEP = "step"
    TRIGGER = "trigger"
    ESCALATION = "escalation"
    BREACH = "breach"
    COMPENSATION = "compensation"


class ActionState(StrEnum):
    """Where an action is; ``paused`` waits for its plugin to be there and on, ``cancelled`` was never begun."""

    WAITING = "waiting"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: What is still to be taken.
OPEN_ACTIONS: Final = (ActionState.WAITING, ActionState.PAUSED)


@dataclass(frozen=True, slots=True)
class ActionVerdict:
    """What follows from an attempt: its end, or another attempt ``again_in`` a while."""

    state: ActionState
    reason: str | None = None
    detail: str = ""
    again_in: timedelta | None = None


def judged(outcome: object, pause: timedelta | None) -> ActionVerdict:
    """What follows from the answer of an action.

    Args:
        outcome: what it answered, an ``ActionOutcome`` if it keeps to its contract.
        pause: how long to wait after a temporary failure, no shorter than the action asks; nothing after the last one.
    """
    if not isinstance(outcome, ActionOutcome):
        said = f"It answered {type(outcome).__name__}, not an ActionOutcome."
        return ActionVerdict(ActionState.FAILED, "no_outcome", said)
    # Others' words: what no database takes would have the action called again for ever.
    detail = str(outcome.detail)[:_LONGEST_DETAIL].replace("\x00", "").encode(errors="replace").decode()
    if outcome.result == ActionResult.DONE:
        return ActionVerdict(ActionState.DONE, None, detail)
    if outcome.result != ActionResult.TRANSIENT:
        return ActionVerdict(ActionState.FAILED, "refused", detail)
    if pause is None:
        return ActionVerdict(ActionState.FAILED, "exhausted", detail)
    asked = min(max(0.0, outcome.retry_after_seconds or 0.0), _LONGEST_RETRY.total_seconds())
    return ActionVerdict(ActionState.WAITING, "transient", detail, max(pause, timedelta(seconds=asked)))
