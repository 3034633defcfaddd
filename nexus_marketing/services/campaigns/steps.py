"""The steps of a campaign: each an action that is taken once, in the order of its definition, after the one before it."""

from sqlalchemy import select

from nexus_marketing.core.actions import OPEN_ACTIONS, ActionSource
from nexus_marketing.core.definitions import Definition
from nexus_marketing.db.models import Campaign, TakenAction
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.requests import ActionRequest, arm, request_action


def begin_steps(ctx: Context, campaign: Campaign, definition: Definition) -> None:
    """Have the first step of a campaign that became active taken, or the one that a pause held."""
    if not definition.automation.steps:
        return
    waiting = open_step(ctx, campaign.id)
    if waiting is not None:
        arm(ctx, waiting.id, campaign.id, ctx.now)
        ctx.ring("timers")
        return
    request_step(ctx, campaign, definition, 0)


def request_step(ctx: Context, campaign: Campaign, definition: Definition, index: int) -> bool:
    """Have a step taken once its delay is over; ``False`` where there is none of this number, from 0."""
    steps = definition.automation.steps
    if index >= len(steps):
        return False
    step = steps[index]
    wanted = ActionRequest(
        step.action,
        f"step:{campaign.id}:{index}",
        ActionSource.STEP,
        campaign_id=campaign.id,
        data=step.data,
        compensation=step.compensate,
    )
    request_action(ctx, wanted, ctx.now + step.delay)
    return True


def open_step(ctx: Context, campaign_id: int) -> TakenAction | None:
    """The step that is still to be taken; there is at most one."""
    of_campaign = (TakenAction.campaign_id == campaign_id, TakenAction.source == ActionSource.STEP)
    wanted = select(TakenAction).where(*of_campaign, TakenAction.state.in_(OPEN_ACTIONS))
    return ctx.session.scalars(wanted.order_by(TakenAction.id)).first()


def number_of(action: TakenAction) -> int:
    """Which step an action is, from 0."""
    return int(action.key.rpartition(":")[2])
