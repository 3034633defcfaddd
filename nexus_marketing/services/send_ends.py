"""What the end of sends means for their campaign: it goes on, ends, or is held with the reason (BR-008)."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import or_, select

from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.engine.lifecycle import Move
from nexus_marketing.core.events import ChannelsJoined
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries.completion import join_launch, mark_reported
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns.moving import apply_decision, finish_campaign, hold_campaign
from nexus_marketing.services.campaigns.rows import key_of, state_of
from nexus_marketing.services.definitions import definition_of

#: Recorded once for each launch over several channels, and counted: conditions of a definition may wait for it.
JOINED: Final = "channels_joined"


def join_channels(ctx: Context, campaign_id: int, launch_id: int) -> bool:
    """Say that as many channels of a launch are through as it waits for; ``False`` where that was said before.

    A definition's own moves may depend on it (``channels_joined > 0``). Channels that are not through go on.
    """
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if not join_launch(ctx.session, launch_id):
        return False
    through = tuple(send.channel for send in _launch(ctx, launch_id) if send.status == SendStatus.COMPLETED)
    decision = lifecycle.record(state_of(campaign), JOINED, Move(JOINED, ctx.now, actor=ctx.actor.label))
    apply_decision(ctx, campaign, decision, definition_of(ctx, campaign))
    event = ChannelsJoined(
        ctx.tenant_id, ctx.now, decision.state.id, key_of(campaign), ctx.actor.label, str(launch_id), through
    )
    ctx.emit(event)
    return True


def tell_ends(ctx: Context, campaign_id: int) -> None:
    """Complete an active campaign whose sends are over, or hold it where too few of its channels came through.

    Where enough did, what the others have not handed over never will be: it is settled as ``skipped(cancelled)``.
    """
    campaign = find(ctx.session, Campaign, campaign_id, lock=True)
    if campaign.status == CampaignStatus.ACTIVE:
        last = select(Send).where(Send.campaign_id == campaign_id).order_by(Send.id.desc()).limit(1)
        send = ctx.session.scalars(last).one()
        sends = _launch(ctx, send.launch_id or send.id)
        failed = [each for each in sends if each.status != SendStatus.COMPLETED]
        if len(sends) - len(failed) >= send.wait_for:
            _give_up(failed)
            ctx.session.flush()
            finish_campaign(ctx, campaign_id)
        else:
            hold_campaign(ctx, campaign_id, "; ".join(_said(each) for each in failed))
    mark_reported(ctx.session, campaign_id)


def _launch(ctx: Context, launch_id: int) -> Sequence[Send]:
    wanted = select(Send).where(or_(Send.id == launch_id, Send.launch_id == launch_id)).order_by(Send.id)
    return ctx.session.scalars(wanted.with_for_update()).all()


def _give_up(sends: Sequence[Send]) -> None:
    for send in sends:
        if send.status == SendStatus.PAUSED:
            send.status, send.status_reason = SendStatus.CANCELLED, f"enough channels are through; {send.status_reason}"


def _said(send: Send) -> str:
    which = f"{send.channel}: " if send.legs > 1 else ""
    return f"{which}send {send.status}: {send.status_reason or 'no reason given'}"
