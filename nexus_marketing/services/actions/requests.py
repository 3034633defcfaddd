"""Named actions are asked for in the transaction of what asks, once for an occurrence, and taken by any worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nexus_marketing.core.actions import OPEN_ACTIONS, ActionSource, ActionState
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.models import Campaign, JourneyRun, TakenAction
from nexus_marketing.db.queries.actions import add_action
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.timers import set_timer

#: The timer of an action that is to be taken.
TYPE: Final = "action.run"


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """What is asked for.

    ``key`` names the occurrence: whoever asks twice under one key gets one action, and a plugin sees the same key on
    every attempt. ``compensation`` is the action that takes it back where its campaign or run fails; ``undoes`` is the id
    of what this one takes back. ``run_id`` is the run of a journey that asks.
    """

    name: str
    key: str
    source: ActionSource
    campaign_id: int | None = None
    lead_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    compensation: str | None = None
    undoes: int | None = None
    run_id: int | None = None


def request_action(ctx: Context, wanted: ActionRequest, at: datetime | None = None) -> int:
    """Have an action taken once the transaction is durable; answers its id.

    Args:
        ctx: the unit of work.
        wanted: by a name that was known when the document was published; one that is gone by now waits for its plugin.
        at: not before; now where it is left out.
    """
    action_id, is_new = write_down(ctx, wanted)
    if is_new:
        arm(ctx, action_id, wanted.campaign_id, at or ctx.now)
        ctx.ring("timers")
    return action_id


def write_down(ctx: Context, wanted: ActionRequest) -> tuple[int, bool]:
    """Write an action down without having it taken yet: its id, and whether it was not asked for before."""
    values = {
        "key": wanted.key,
        "name": wanted.name,
        "source": str(wanted.source),
        "campaign_id": wanted.campaign_id,
        "lead_id": wanted.lead_id,
        "data": dict(wanted.data),
        "compensation": wanted.compensation,
        "undoes": wanted.undoes,
        "run_id": wanted.run_id,
        "now": ctx.now,
    }
    return add_action(ctx.session, values)


def arm(ctx: Context, action_id: int, campaign_id: int | None, at: datetime) -> None:
    """Set the timer of an action."""
    set_timer(ctx, TYPE, str(action_id), at, campaign_id=campaign_id)


def hurry(ctx: Context, action: TakenAction) -> None:
    """Have what waits for another attempt taken now; what a worker has in hand is left to it."""
    set_timer(ctx, TYPE, str(action.id), ctx.now, campaign_id=action.campaign_id, earliest=True)
    ctx.ring("timers")


def retry_action(ctx: Context, action_id: int) -> TakenAction:
    """Have an action that failed taken once more, under the same key; one that waits is taken now.

    Raises:
        NotFound: there is none.
        Conflict: it is done, or its campaign or run failed.
    """
    action = find(ctx.session, TakenAction, action_id, lock=True)
    campaign = None if action.campaign_id is None else find(ctx.session, Campaign, action.campaign_id)
    if campaign is not None and campaign.failed_at is not None and action.source != ActionSource.COMPENSATION:
        raise Conflict("Its campaign failed: only what takes things back is taken again.", status=campaign.status)
    run = None if action.run_id is None else find(ctx.session, JourneyRun, action.run_id)
    if run is not None and run.taken_back_at is not None and action.source != ActionSource.COMPENSATION:
        raise Conflict("What its run did is taken back: only what takes things back is taken again.", status=run.state)
    if action.state not in (*OPEN_ACTIONS, ActionState.FAILED):
        raise Conflict(f"The action is {action.state}: only what failed or waits is taken again.", state=action.state)
    changes = {"state": (action.state, str(ActionState.WAITING))}
    action.state, action.reason, action.settled_at = ActionState.WAITING, None, None
    action.attempts = 0
    arm(ctx, action.id, action.campaign_id, ctx.now)
    record(ctx, "action.retried", "action", action.id, changes)
    ctx.session.flush()
    ctx.ring("timers")
    return action
