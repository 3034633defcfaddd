"""What a failed campaign did is taken back, the last first, one after the other (BR-004).

Nothing here keeps a list: what comes next follows from the rows. What was done has its row, and so has what takes it back;
the one that comes next is written and given its timer in the transaction that settles the one before it. A worker that
dies leaves a timer, whoever fires it calls under the same key; so each is taken back once, wherever somebody dies.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, select, update

from nexus_marketing.core.actions import OPEN_ACTIONS, ActionSource, ActionState
from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.compensation import RETRACT, Effect, EffectKind, next_to_undo
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.events import FAIL
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Campaign, Send, TakenAction
from nexus_marketing.db.queries.timers import take_timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.requests import ActionRequest, hurry, request_action
from nexus_marketing.services.campaigns.moving import apply_decision
from nexus_marketing.services.campaigns.rows import note, state_of
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.timers import Locking, set_timer
from nexus_marketing.services.versions import find_to_change

#: The timer of a failed campaign whose sends have not come to rest yet.
TYPE: Final = "campaign.compensation"
_LOOK_AGAIN: Final = timedelta(seconds=2)
_REASON: Final = 1_000


def fail_campaign(ctx: Context, campaign_id: int, reason: str, *, expected_version: int | None = None) -> Campaign:
    """Say that a campaign failed: nothing more of it is done or sent, and what it did is taken back.

    Raises:
        StaleVersion: it is not at ``expected_version``.
        Conflict: it was not launched, or has ended.
    """
    campaign = find_to_change(ctx, Campaign, campaign_id, expected_version)
    if campaign.status not in (CampaignStatus.QUEUED, CampaignStatus.ACTIVE, CampaignStatus.PAUSED):
        said = "only one that was launched and has not ended can fail"
        raise Conflict(f"The campaign is {campaign.status}: {said}.", status=campaign.status)
    fail_locked(ctx, campaign, reason)
    return campaign


def fail_locked(ctx: Context, campaign: Campaign, reason: str) -> None:
    """The same for a campaign that is locked already and runs."""
    definition = definition_of(ctx, campaign)
    move = Move(FAIL, ctx.now, actor=ctx.actor.label, reason=reason[:_REASON])
    apply_decision(ctx, campaign, lifecycle.fail(definition, state_of(campaign), move), definition)
    campaign.failed_at = ctx.now
    ctx.session.flush()
    open_ones = _open(campaign.id)
    for row in ctx.session.scalars(select(TakenAction).where(*open_ones, TakenAction.attempts > 0)):
        hurry(ctx, row)
    # Their timers find them so and go.
    cancelled = {"state": ActionState.CANCELLED, "reason": "campaign_failed", "settled_at": ctx.now}
    ctx.session.execute(update(TakenAction).where(*open_ones, TakenAction.attempts == 0).values(**cancelled))
    take_back(ctx, campaign)


def take_back(ctx: Context, campaign: Campaign) -> None:
    """Have the next thing that a failed, locked campaign did taken back, unless something of it is still under way.

    What was begun when the campaign failed is waited for: only its end says whether there is something to take back.
    """
    if _is_under_way(ctx, campaign.id):
        return
    sends, are_at_rest = _sends(ctx, campaign, definition_of(ctx, campaign))
    effects = [Effect(EffectKind.SEND, send.id, send.created_at) for send in sends]
    action = _last_action(ctx, campaign.id)
    if action is not None:
        effects.append(Effect(EffectKind.ACTION, action.id, action.settled_at or action.created_at))
    found = next_to_undo(effects, _begun(ctx, sends))
    if found is None:
        _finish(ctx, campaign)
    elif found.kind == EffectKind.ACTION:
        assert action is not None, "it is the only one"
        _undo_action(ctx, campaign, action)
    elif are_at_rest:
        data = {"send_id": found.id}
        request = ActionRequest(RETRACT, _undo_send(found.id), ActionSource.COMPENSATION, campaign.id, data=data)
        request_action(ctx, request)
    else:
        set_timer(ctx, TYPE, str(campaign.id), ctx.now + _LOOK_AGAIN, campaign_id=campaign.id)


def _take_back_due(ctx: Context, timer: TimerFact) -> None:
    """Look whether the sends of a failed campaign have come to rest."""
    campaign = find(ctx.session, Campaign, int(timer.key), lock=True)
    if take_timer(ctx.session, timer) and campaign.failed_at is not None:
        take_back(ctx, campaign)


#: What the timer of a failed campaign does.
COMPENSATION_DUE: Final = Locking(_take_back_due)


def _undo_action(ctx: Context, campaign: Campaign, row: TakenAction) -> None:
    data: Mapping[str, Any] = {"of": {"action": row.name, "key": row.key, "data": row.data}}
    name, key = str(row.compensation), f"undo:{row.id}"
    request = ActionRequest(name, key, ActionSource.COMPENSATION, campaign.id, row.lead_id, data, undoes=row.id)
    request_action(ctx, request)
    row.undone_at = ctx.now
    ctx.session.flush()


def _last_action(ctx: Context, campaign_id: int) -> TakenAction | None:
    """The last of what is done, can be taken back and nobody has begun to: of a million actions only this one is read."""
    wanted = select(TakenAction).where(
        TakenAction.campaign_id == campaign_id,
        TakenAction.state == ActionState.DONE,
        TakenAction.compensation.is_not(None),
        TakenAction.undone_at.is_(None),
    )
    last = wanted.order_by(TakenAction.settled_at.desc(), TakenAction.id.desc()).limit(1)
    return ctx.session.scalars(last).first()


def _undo_send(send_id: int) -> str:
    return f"undo:send:{send_id}"


def _begun(ctx: Context, sends: Iterable[Send]) -> set[tuple[str, int]]:
    """The sends whose messages somebody has begun to take back."""
    keys = {_undo_send(send.id): send.id for send in sends}
    found = ctx.session.scalars(select(TakenAction.key).where(TakenAction.key.in_(keys))) if keys else ()
    return {(EffectKind.SEND, keys[key]) for key in found}


def _finish(ctx: Context, campaign: Campaign) -> None:
    undoing = (TakenAction.campaign_id == campaign.id, TakenAction.source == ActionSource.COMPENSATION)
    counted = select(TakenAction.state, func.count()).where(*undoing).group_by(TakenAction.state)
    counts = dict(sorted(ctx.session.execute(counted)))
    if counts:
        ends = (ActionState.DONE, ActionState.FAILED)
        note(ctx, campaign, "compensated", {str(state): counts.get(state, 0) for state in ends})


def _is_under_way(ctx: Context, campaign_id: int) -> bool:
    return ctx.session.scalars(select(TakenAction.id).where(*_open(campaign_id)).limit(1)).first() is not None


def _open(campaign_id: int) -> tuple[Any, ...]:
    return TakenAction.campaign_id == campaign_id, TakenAction.state.in_(OPEN_ACTIONS)


def _sends(ctx: Context, campaign: Campaign, definition: Definition) -> tuple[list[Send], bool]:
    """The sends whose channels take back what they handed over, and whether all of them have come to rest."""
    channels = [use.name for use in definition.channels if use.compensate]
    if not channels:
        return [], True
    wanted = select(Send).where(Send.campaign_id == campaign.id, Send.channel.in_(channels)).order_by(Send.id)
    sends = list(ctx.session.scalars(wanted))
    at_work = select(func.count()).select_from(Send).where(Send.campaign_id == campaign.id, Send.finished_at.is_(None))
    return sends, not ctx.session.scalar(at_work)
