"""Campaigns from status to status: what people and time do to them, and what becomes of their sends."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select

from nexus_marketing.core.campaigns import (
    CampaignAction,
    CampaignState,
    CampaignStatus,
    Decision,
)
from nexus_marketing.core.definitions import STANDARD, Definition
from nexus_marketing.core.deliveries import OPEN_SENDS, TAKEN, SendStatus
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import Conflict, Problem, TransitionRefused, ValidationError
from nexus_marketing.core.events import campaign_event
from nexus_marketing.core.fan_out import legs_of
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.engagements import ledger_counts
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.escalations import watch
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.launching import begin_sends, missing_for_send
from nexus_marketing.services.campaigns.listening import hush, listen
from nexus_marketing.services.campaigns.recurring import arm, disarm
from nexus_marketing.services.campaigns.rows import key_of, remember, state_of, write_state
from nexus_marketing.services.campaigns.steps import begin_steps, open_step
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.versions import find_to_change

#: When a move that a guard refused is tried again.
_LOOK_AGAIN = timedelta(minutes=1)
_REASON = 1_000
#: What becomes of a campaign's sends when its status becomes this.
_SEND_MOVES: Mapping[CampaignStatus, Mapping[SendStatus, SendStatus]] = {
    CampaignStatus.PAUSED: {SendStatus.RUNNING: SendStatus.PAUSED, SendStatus.PLANNING: SendStatus.PAUSED},
    # A missed send waited for a person: resuming is that person's word.
    CampaignStatus.ACTIVE: {SendStatus.PAUSED: SendStatus.PLANNING, SendStatus.MISSED: SendStatus.PLANNING},
    CampaignStatus.CANCELLED: dict.fromkeys(OPEN_SENDS, SendStatus.CANCELLED),
}


def move_campaign(
    ctx: Context, campaign_id: int, action: str, *, expected_version: int | None = None, reason: str | None = None
) -> Campaign:
    """Take any move of a campaign's definition.

    A launch makes it active, and a send waits for its audience to be planned; or queues it. Nothing else
    happens in the request: planning and sending are the workers' work (PR-001). A pause holds everything that
    has not been handed over, at the workers' next window; resuming goes on where it stopped, with planning that
    was interrupted too. What a cancelled campaign has not handed over is settled as ``skipped(cancelled)``.

    Raises:
        StaleVersion: ``expected_version`` is not the current one.
        TransitionRefused: the move is not possible now, or a guard says no; names those that are possible.
        ValidationError: no audience, no template, no sender, no postal address or no unsubscribe link, each
            named with its remedy.
    """
    campaign = find_to_change(ctx, Campaign, campaign_id, expected_version)
    if action in campaign.attended:
        raise TransitionRefused(
            f"The program that declares this campaign has code of its own for {action}: ask for it there.",
            status=campaign.status,
            action=action,
        )
    definition = definition_of(ctx, campaign)
    move = Move(action, ctx.now, actor=ctx.actor.label, reason=reason)
    seen = lifecycle.prospect(definition, state_of(campaign), move)
    decision = lifecycle.decide(definition, seen, move)
    problems = apply_decision(ctx, campaign, decision, definition)
    if decision.state.status is CampaignStatus.QUEUED and action == CampaignAction.LAUNCH:
        problems = missing_for_send(ctx, campaign)  # now, while somebody is there to mend it
    if problems and (campaign.definition_id is None or is_to_be_sent(campaign)):
        raise ValidationError(problems=problems)
    return campaign


def tick_campaign(ctx: Context, campaign_id: int) -> str | None:
    """Take the move whose time has come, if any; workers call it for what is due."""
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    definition, state = definition_of(ctx, campaign), state_of(campaign)
    action = lifecycle.due(definition, state, ctx.now)
    if action is None:
        campaign.tick_at = lifecycle.next_look(definition, state, ctx.now)
        ctx.session.flush()
        return None
    move = Move(action, ctx.now, actor=ctx.actor.label)
    refusals = lifecycle.refusals(definition, state, move)
    if refusals:
        postpone_tick(ctx, campaign_id, f"{action} waits: {'; '.join(each.message for each in refusals)}")
        return None
    problems = apply_decision(ctx, campaign, lifecycle.decide(definition, state, move), definition)
    if campaign.tick_at is not None:  # conditions that lead round in a circle must not keep a worker busy
        campaign.tick_at = max(campaign.tick_at, ctx.now + _LOOK_AGAIN)
    if problems and is_to_be_sent(campaign):
        _hold(ctx, campaign, definition, "; ".join(each.message for each in problems)[:_REASON])
    return action


def postpone_tick(ctx: Context, campaign_id: int, reason: str) -> None:
    """Look at a campaign again later, with the reason shown to people: it must not stand in the others' way."""
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    campaign.status_reason = reason[:_REASON]
    campaign.tick_at = ctx.now + _LOOK_AGAIN
    ctx.session.flush()


def is_to_be_sent(campaign: Campaign) -> bool:
    """Whether it names an audience or a message; one that names neither is only tracked."""
    legs = legs_of(campaign.channel, campaign.template_id, campaign.channels)
    return campaign.segment_id is not None or any(leg.template_id is not None for leg in legs)


def finish_campaign(ctx: Context, campaign_id: int) -> None:
    """Complete an active campaign whose sends are all finished; workers call it, nothing else may.

    Where its definition or its program has a say in the end, the campaign stays active and shows what it waits for.
    """
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    definition = definition_of(ctx, campaign)
    if campaign.status != CampaignStatus.ACTIVE or _sends(ctx, campaign, OPEN_SENDS):
        return
    if campaign.next_run_at is not None:
        return  # it is sent again
    if definition.automation.steps and open_step(ctx, campaign_id) is not None:
        campaign.status_reason = "Everything is sent: its steps go on."
        return
    if CampaignAction.COMPLETE in campaign.attended:
        campaign.status_reason = "Everything is sent: the program that declares this campaign completes it."
        return
    move = Move(CampaignAction.COMPLETE, ctx.now, actor=ctx.actor.label)
    state = state_of(campaign) if definition is STANDARD else _measured(ctx, campaign)
    refusals = lifecycle.refusals(definition, state, move)
    if refusals:
        campaign.status_reason = f"Everything is sent: {'; '.join(each.message for each in refusals)}"[:_REASON]
        return
    apply_decision(ctx, campaign, lifecycle.decide(definition, state, move), definition)


def finish_if_sent(ctx: Context, campaign: Campaign) -> None:
    """Complete an active campaign whose last step is done, where it has sent something and its sends are over."""
    if ctx.session.scalars(select(Send.id).where(Send.campaign_id == campaign.id).limit(1)).first() is not None:
        finish_campaign(ctx, campaign.id)


def hold_campaign(ctx: Context, campaign_id: int, reason: str) -> None:
    """Pause a campaign because its send cannot go on, with the reason shown to people."""
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if campaign.status == CampaignStatus.ACTIVE:
        _hold(ctx, campaign, definition_of(ctx, campaign), reason)


def _hold(ctx: Context, campaign: Campaign, definition: Definition, reason: str) -> None:
    """Pause whatever the definition says about pausing: what cannot be sent must not look as if it were."""
    state = state_of(campaign)
    move = Move(CampaignAction.PAUSE, ctx.now, actor=ctx.actor.label, reason=reason)
    decision = lifecycle.hold(definition, state, move)
    apply_decision(ctx, campaign, decision, definition)


def _measured(ctx: Context, campaign: Campaign) -> CampaignState:
    """The state with what the ledger counted beside what programs recorded."""
    state = state_of(campaign)
    counters = Counter(state.counters)
    sends = ctx.session.execute(select(Send.id, Send.channel).where(Send.campaign_id == campaign.id)).all()
    for send in sends:
        found = ledger_counts(ctx.session, send.id)
        counters[f"{send.channel}_sent"] += sum(row.n for row in found if row.state in TAKEN)
    return replace(state, counters=counters)


def apply_decision(
    ctx: Context, campaign: Campaign, decision: Decision, definition: Definition, *, tell: bool = True
) -> list[Problem]:
    """Write a decision: the row, its history, audit and event, and what it means for the sends.

    Args:
        ctx: the unit of work.
        campaign: locked.
        decision: made from the campaign's present state.
        definition: by which it was decided.
        tell: whether subscribers hear of it here; a manager tells them itself.

    Returns:
        Why a campaign that became active cannot send; nothing where it sends, or was not to send.
    """
    before, after = CampaignStatus(campaign.status), decision.state
    if after.status is CampaignStatus.COMPLETED and _sends(ctx, campaign, OPEN_SENDS):
        raise Conflict("The campaign is still sending: wait for its end, or cancel it.", status=campaign.status)
    write_state(campaign, after)
    unattended = not {each.action for each in definition.automatic}.intersection(campaign.attended)
    campaign.tick_at = lifecycle.next_look(definition, after, ctx.now) if unattended else None
    remember(ctx, campaign, decision.entry)
    if not decision.moves:
        record(ctx, "campaign.recorded", "campaign", campaign.id, {"event": (None, decision.entry.event)})
        return []
    if after.status is CampaignStatus.ACTIVE and before is not after.status:
        watch(ctx, campaign, definition)
        begin_steps(ctx, campaign, definition)
        listen(ctx, campaign, definition)
    elif before is CampaignStatus.ACTIVE and before is not after.status:
        hush(ctx, campaign, definition)
    changes = {"status": (str(before), str(after.status))}
    record(ctx, f"campaign.{decision.entry.event}", "campaign", campaign.id, changes)
    if tell:
        ctx.emit(
            campaign_event(
                decision.action,
                tenant_id=campaign.tenant_id,
                at=ctx.now,
                campaign_id=after.id,
                key=key_of(campaign),
                actor=decision.entry.actor,
            )
        )
    return _follow_sends(ctx, campaign, before, after.status)


def _follow_sends(ctx: Context, campaign: Campaign, before: CampaignStatus, after: CampaignStatus) -> list[Problem]:
    if after is before:
        return []
    moves = _SEND_MOVES.get(after, {})
    moved = _sends(ctx, campaign, tuple(moves)) if before is not CampaignStatus.DRAFT else []
    for send in moved:
        send.status = moves[SendStatus(send.status)]
        send.status_reason = None
        send.reported_at = None
        if send.status == SendStatus.PLANNING:
            send.send_not_after = ctx.now + ctx.runtime.settings.grace
            if send.planned_at is not None:
                send.status = SendStatus.RUNNING  # the audience is frozen: nobody joins it now
    ctx.ring("sends")
    if campaign.recurrence is not None:
        return _follow_rule(ctx, campaign, after, is_sending=bool(moved))
    if after is CampaignStatus.ACTIVE and not moved and not _was_sent(ctx, campaign, before):
        return begin_sends(ctx, campaign)
    return []


def _follow_rule(ctx: Context, campaign: Campaign, after: CampaignStatus, *, is_sending: bool) -> list[Problem]:
    """A recurring campaign waits for its next run as long as it is active."""
    if after is not CampaignStatus.ACTIVE:
        disarm(ctx, campaign)
        return []
    problems = missing_for_send(ctx, campaign)
    if not problems and not arm(ctx, campaign, ctx.now) and not is_sending:
        problems = [Problem("recurrence", "over", "There is no run left: change the rule, its end or its count.")]
    return problems


def _was_sent(ctx: Context, campaign: Campaign, before: CampaignStatus) -> bool:
    """Whether it began before this move: what was launched elsewhere and promoted is not sent by resuming it."""
    if before is CampaignStatus.DRAFT:
        return False
    if campaign.started_at is not None and campaign.started_at < ctx.now:
        return True
    return ctx.session.scalars(select(Send.id).where(Send.campaign_id == campaign.id).limit(1)).first() is not None


def _sends(ctx: Context, campaign: Campaign, statuses: tuple[SendStatus, ...]) -> list[Send]:
    statement = (
        select(Send)
        .where(Send.campaign_id == campaign.id, Send.status.in_(statuses))
        .order_by(Send.id)
        .with_for_update()
    )
    return list(ctx.session.scalars(statement))
