"""What active campaigns hear of: names of events, and leads whose score went up."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import delete, select

from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.definitions import Definition
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Campaign, CampaignListener
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import set_timer

#: The event of a lead whose own score went up; conditions know it by ``event.before`` and ``event.after``.
SCORE_INCREASED: Final = "lead_score_increased"
#: The timer of such a lead.
SCORED: Final = "campaign.scored"


def listen(ctx: Context, campaign: Campaign, definition: Definition) -> None:
    """Hear of what the triggers of a campaign that became active are about."""
    if not definition.automation.triggers:
        return
    known = set(_heard(ctx, campaign.id))
    for name in sorted({each.event for each in definition.automation.triggers} - known):
        ctx.session.add(CampaignListener(name=name, campaign_id=campaign.id))


def hush(ctx: Context, campaign: Campaign, definition: Definition) -> None:
    """Hear of nothing any more."""
    if definition.automation.triggers:
        ctx.session.execute(delete(CampaignListener).where(CampaignListener.campaign_id == campaign.id))


def _heard(ctx: Context, campaign_id: int) -> Sequence[str]:
    return ctx.session.scalars(select(CampaignListener.name).where(CampaignListener.campaign_id == campaign_id)).all()


def hear_scores(ctx: Context, rises: Mapping[int, tuple[float, float]]) -> None:
    """Have campaigns hear of leads whose own score went up: lead → (before, after)."""
    if not rises or not campaigns_listening(ctx, SCORE_INCREASED):
        return
    at = canonical_datetime(ctx.now)
    for lead_id in sorted(rises):  # locked in one order, whoever else writes the same
        before, after = rises[lead_id]
        set_timer(
            ctx, SCORED, f"{lead_id}:{at}", ctx.now, {"lead": lead_id, "before": before, "after": after, "at": at}
        )


def campaigns_listening(ctx: Context, name: str) -> Sequence[Campaign]:
    """The active campaigns with a trigger on an event."""
    listening = select(CampaignListener.campaign_id).where(CampaignListener.name == name)
    active = (Campaign.id.in_(listening), Campaign.status == CampaignStatus.ACTIVE)
    return ctx.session.scalars(select(Campaign).where(*active).order_by(Campaign.id)).all()
