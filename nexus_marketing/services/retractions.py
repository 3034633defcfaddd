"""The action that takes back what a send has handed over: a piece at a time, each written down before the next.

A turn of it ends after half a lease, so that a million messages keep no worker from ending and no timer from its turn. Its
attempts count from the last message that was through.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.compensation import RETRACT
from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.extensions import ActionCall, ActionOutcome, ActionResult
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import TakenAction
from nexus_marketing.db.queries.timers import hold_timer
from nexus_marketing.delivery.retraction import FROM_THE_END, retract_piece
from nexus_marketing.runtime import Runtime

#: A message of which nobody can say whether it was taken back is asked for again so often; then the others have their turn.
_UNKNOWN_AGAIN: Final = 3
_TURN_OF_A_LEASE: Final = 0.5
_LOST: Final = ActionOutcome(ActionResult.TRANSIENT, "Another worker goes on with it.")


@dataclass(slots=True)
class Retracting:
    """An action like those of plugins; how far it came stands in its own row, so that whoever goes on begins there."""

    runtime: Runtime
    timer: TimerFact
    #: How often it was tried since the last message that was through, this time included.
    attempts: int
    name: str = RETRACT

    def run(self, call: ActionCall) -> ActionOutcome:
        """Take back every message, the last first; a message is asked for again only under its own id."""
        send_id, why = int(call.data["send_id"]), str(call.data.get("why", ""))
        before, done, refused = (int(call.data.get(key, at)) for key, at in _BEGINNING.items())
        until = time.monotonic() + self.runtime.settings.lease.total_seconds() * _TURN_OF_A_LEASE
        while True:
            try:
                piece = retract_piece(self.runtime, self.timer.tenant_id, send_id, before)
            except NexusError as error:
                return ActionOutcome(ActionResult.PERMANENT, error.message)
            self.runtime.telemetry.point("retraction.piece")
            if piece.before < before:
                self.attempts = 0
            before, done, refused = piece.before, done + piece.done, refused + piece.refused
            why, again = piece.why[:_LONGEST_WHY] or why, piece.again
            if again is not None and again.kind is OutcomeKind.UNKNOWN and self.attempts >= _UNKNOWN_AGAIN:
                before, refused, why, again, self.attempts = before - 1, refused + 1, "nobody knows of it", None, 0
            is_vain = piece.is_last and refused > 0 and not done
            # Nothing could be taken back: whoever has it tried again begins where this one began.
            far = {} if is_vain else {**dict(zip(_BEGINNING, (before, done, refused), strict=True)), "why": why}
            if not self._keep({"send_id": send_id, **far}):
                return _LOST
            if is_vain:
                return ActionOutcome(ActionResult.PERMANENT, f"none of {refused} messages could be taken back: {why}")
            if again is not None:
                said = f"{again.kind}: {again.detail or again.code}"
                return ActionOutcome(ActionResult.TRANSIENT, said, again.retry_after_seconds)
            if piece.is_last:
                return _ended(done, refused, why)
            if time.monotonic() > until:
                return ActionOutcome(ActionResult.TRANSIENT, f"took back {done} messages so far")

    def _keep(self, data: dict[str, Any]) -> bool:
        """Write down how far it came, as long as it is still ours."""
        with self.runtime.work(self.timer.tenant_id, SYSTEM) as ctx:
            wanted = select(TakenAction).where(TakenAction.id == int(self.timer.key)).with_for_update()
            row = ctx.session.scalars(wanted).one()  # before its timer, as everybody locks them
            if not hold_timer(ctx.session, self.timer, self.runtime.settings.lease.total_seconds()):
                return False
            row.data, row.attempts = data, self.attempts
            return True


_BEGINNING: Final = {"before": FROM_THE_END, "done": 0, "refused": 0}
_LONGEST_WHY: Final = 200


def _ended(done: int, refused: int, why: str) -> ActionOutcome:
    left = f": {why}" if refused else ""
    return ActionOutcome(ActionResult.DONE, f"took back {done} messages; {refused} could not be{left}")
