"""What every campaign can be asked for without a plugin: done in the transaction that says so."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import update

from nexus_marketing.core.actions import OwnAction
from nexus_marketing.core.deliveries import OPEN_SENDS
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.events import CampaignAlerted
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.assignees import next_above, stand_in
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.moving import hold_campaign
from nexus_marketing.services.campaigns.rows import key_of

_MOST_PRIORITY: Final = 100


def take_own(ctx: Context, name: str, campaign: Campaign, data: Mapping[str, Any]) -> str:
    """Do it to a locked campaign; answers what was done, for people.

    Raises:
        NexusError: it cannot be done; says why.
    """
    return _TAKES[OwnAction(name)](ctx, campaign, data)


def _notify(ctx: Context, campaign: Campaign, data: Mapping[str, Any]) -> str:
    wanted = data.get("to")
    member_id = stand_in(ctx, int(wanted)) if wanted is not None else campaign.owner_id
    ctx.emit(
        CampaignAlerted(
            campaign.tenant_id,
            ctx.now,
            str(campaign.id),
            key_of(campaign),
            ctx.actor.label,
            member_id=member_id,
            reason=str(data.get("reason", "")),
        )
    )
    return "told whoever subscribes" if member_id is None else f"told member {member_id}"


def _reassign(ctx: Context, campaign: Campaign, data: Mapping[str, Any]) -> str:
    wanted = data.get("to")
    member_id = stand_in(ctx, int(wanted)) if wanted is not None else next_above(ctx, campaign)
    if member_id is None:
        raise Conflict("Nobody is above the campaign's owner: name a member in data.to, or give the owner a manager.")
    before = campaign.owner_id
    if member_id != before:
        _change(ctx, campaign, "owner_id", member_id)
    return f"from member {before} to member {member_id}"


def _pause(ctx: Context, campaign: Campaign, data: Mapping[str, Any]) -> str:
    before = campaign.status
    hold_campaign(ctx, campaign.id, str(data.get("reason") or "An action paused it."))
    return f"from {before} to {campaign.status}"


def _pause_and_alert(ctx: Context, campaign: Campaign, data: Mapping[str, Any]) -> str:
    told = _notify(ctx, campaign, data)  # first: it may refuse, and nothing may have been told of the pause then
    return f"{_pause(ctx, campaign, data)}; {told}"


def _change_priority(ctx: Context, campaign: Campaign, data: Mapping[str, Any]) -> str:
    priority = data.get("priority")
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= _MOST_PRIORITY:
        said = f"{priority!a:.40} is no priority: write a whole number from 0 to {_MOST_PRIORITY}."
        raise ValidationError.at("data.priority", "out_of_bounds", said)
    before = campaign.priority
    if priority != before:
        _change(ctx, campaign, "priority", priority)
        open_ones = (Send.campaign_id == campaign.id, Send.status.in_(OPEN_SENDS))
        ctx.session.execute(update(Send).where(*open_ones).values(priority=priority))
    return f"from {before} to {priority}"


def _change(ctx: Context, campaign: Campaign, name: str, value: int) -> None:
    before = getattr(campaign, name)
    setattr(campaign, name, value)
    campaign.version += 1
    campaign.updated_at = ctx.now
    ctx.session.flush()
    record(ctx, "campaign.updated", "campaign", campaign.id, {name: (before, value)})


_TAKES: Final[Mapping[OwnAction, Callable[[Context, Campaign, Mapping[str, Any]], str]]] = {
    OwnAction.NOTIFY: _notify,
    OwnAction.REASSIGN: _reassign,
    OwnAction.PAUSE: _pause,
    OwnAction.PAUSE_AND_ALERT: _pause_and_alert,
    OwnAction.CHANGE_PRIORITY: _change_priority,
}
