"""What a failed campaign did is taken back, the last first, one after the other (BR-004).

Nothing here keeps a list: what comes next follows from the rows. What was done has its row, and so has what takes it back;
the one that comes next is written and given its timer in the transaction that settles the one before it. A worker that
dies leaves a timer, whoever fires it calls under the same key; so each is taken back once, wherever somebody dies.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, select

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
from nexus_marketing.services.actions import ActionRequest, hurry, request_action
from nexus_marketing.services.campaign_rows import note, state_of
from nexus_marketing.services.campaigns import apply_decision
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
    for row in _open_ones(ctx, campaign.id):
        if row.attempts:
            hurry(ctx, row)
        else:  # its timer finds it so and goes
            row.state, row.reason, row.settled_at = ActionState.CANCELLED, "campaign_failed", ctx.now
    ctx.session.flush()
    take_back(ctx, campaign)


def take_back(ctx: Context, campaign: Campaign) -> None:
    """Have the next thing that a failed, locked campaign did taken back, unless something of it is still under way.

    What was begun when the campaign failed is waited for: only its end says whether there is something to take back.
    """
    if _open_ones(ctx, campaign.id):
        return
    rows = ctx.session.scalars(select(TakenAction).where(TakenAction.campaign_id == campaign.id)).all()
    sends, are_at_rest = _sends(ctx, campaign, definition_of(ctx, campaign))
    undoing = [row for row in rows if row.source == ActionSource.COMPENSATION]
    done = {row.id: row for row in rows if row.state == ActionState.DONE and row.compensation is not None}
    effects = [Effect(EffectKind.ACTION, row.id, row.settled_at or row.created_at) for row in done.values()]
    effects += [Effect(EffectKind.SEND, send.id, send.created_at) for send in sends]
    found = next_to_undo(effects, _begun(undoing))
    if found is None:
        _finish(ctx, campaign, undoing)
    elif found.kind == EffectKind.ACTION:
        _undo_action(ctx, campaign, done[found.id])
    elif are_at_rest:
        data = {"send_id": found.id}
        request = ActionRequest(RETRACT, f"undo:send:{found.id}", ActionSource.COMPENSATION, campaign.id, data=data)
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


def _begun(undoing: Iterable[TakenAction]) -> set[tuple[str, int]]:
    return {
        (EffectKind.SEND, int(row.data["send_id"])) if row.name == RETRACT else (EffectKind.ACTION, row.undoes or 0)
        for row in undoing
    }


def _finish(ctx: Context, campaign: Campaign, undoing: Iterable[TakenAction]) -> None:
    states = [row.state for row in undoing]
    if states:
        counts = {state: states.count(state) for state in (ActionState.DONE, ActionState.FAILED)}
        note(ctx, campaign, "compensated", {str(state): count for state, count in counts.items()})


def _open_ones(ctx: Context, campaign_id: int) -> list[TakenAction]:
    open_ones = (TakenAction.campaign_id == campaign_id, TakenAction.state.in_(OPEN_ACTIONS))
    wanted = select(TakenAction).where(*open_ones).order_by(TakenAction.id).with_for_update()
    return list(ctx.session.scalars(wanted.execution_options(populate_existing=True)))


def _sends(ctx: Context, campaign: Campaign, definition: Definition) -> tuple[list[Send], bool]:
    """The sends whose channels take back what they handed over, and whether all of them have come to rest."""
    channels = [use.name for use in definition.channels if use.compensate]
    if not channels:
        return [], True
    wanted = select(Send).where(Send.campaign_id == campaign.id, Send.channel.in_(channels)).order_by(Send.id)
    sends = list(ctx.session.scalars(wanted))
    at_work = select(func.count()).select_from(Send).where(Send.campaign_id == campaign.id, Send.finished_at.is_(None))
    return sends, not ctx.session.scalar(at_work)
