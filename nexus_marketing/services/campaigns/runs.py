"""Runs of recurring campaigns: begun when they are due, moved or left out by a person before (BEHAVIOUR.md 5.2, Schedule)."""

from datetime import datetime
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.deliveries import OPEN_SENDS
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.timers import take_timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.launching import begin_sends
from nexus_marketing.services.campaigns.moving import apply_decision, finish_campaign, hold_campaign
from nexus_marketing.services.campaigns.recurring import RUN, SKIPPED, arm, wait_until
from nexus_marketing.services.campaigns.rows import state_of
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.timers import Locking
from nexus_marketing.services.versions import find_to_change


def _run_due(ctx: Context, timer: TimerFact) -> None:
    """Begin the run of a campaign whose time has come, and wait for the next one.

    Where the run before is still sending, this one is left out, and the history says so: nobody gets two at once. A run
    that no worker could begin in time is missed, which holds the campaign until a person resumes it.
    """
    campaign = find(ctx.session, Campaign, int(timer.key), lock=True)
    if not take_timer(ctx.session, timer):
        return
    planned = campaign.next_run_at
    if campaign.status != CampaignStatus.ACTIVE or campaign.recurrence is None or planned is None:
        return
    open_sends = select(Send.id).where(Send.campaign_id == campaign.id, Send.status.in_(OPEN_SENDS)).limit(1)
    is_sending = ctx.session.scalars(open_sends).first() is not None
    problems = [] if is_sending else begin_sends(ctx, campaign, planned)
    if problems:
        hold_campaign(ctx, campaign.id, "; ".join(each.message for each in problems))
        return
    move = Move(
        SKIPPED if is_sending else RUN, ctx.now, actor=ctx.actor.label, metadata={"due": canonical_datetime(planned)}
    )
    decision = lifecycle.record(state_of(campaign), move.action, move)
    apply_decision(ctx, campaign, decision, definition_of(ctx, campaign))
    if not arm(ctx, campaign, max(planned, ctx.now)):
        ctx.session.flush()
        finish_campaign(ctx, campaign.id)


#: What the timer of a campaign's next run does.
RUN_DUE: Final = Locking(_run_due)


def move_next_run(
    ctx: Context, campaign_id: int, at: datetime | None, *, expected_version: int | None = None
) -> Campaign:
    """Let the next run of a campaign be at another moment, or leave it out.

    Args:
        ctx: the unit of work.
        campaign_id: which one.
        at: a moment to come; nothing leaves the next run out, and the one after it is next.
        expected_version: what the caller has seen.

    Raises:
        Conflict: the campaign waits for no run.
        ValidationError: the moment has passed.
    """
    campaign = find_to_change(ctx, Campaign, campaign_id, expected_version)
    before = campaign.next_run_at
    if campaign.status != CampaignStatus.ACTIVE or before is None:
        raise Conflict(
            "The campaign waits for no run: only one that recurs and is active does.", status=campaign.status
        )
    if at is None:
        if not arm(ctx, campaign, before):
            ctx.session.flush()
            finish_campaign(ctx, campaign.id)
    elif at <= ctx.now:
        raise ValidationError.at("at", "out_of_bounds", f"{canonical_datetime(at)} has passed: name a moment to come.")
    else:
        wait_until(ctx, campaign, at)
    campaign.version += 1
    campaign.updated_at = ctx.now
    ctx.session.flush()
    changes = {
        "next_run_at": (canonical_datetime(before), campaign.next_run_at and canonical_datetime(campaign.next_run_at))
    }
    record(ctx, "campaign.run_moved", "campaign", campaign.id, changes)
    return campaign
