"""Messages that could not be handed over, or of which nobody knows: looked through, replayed or accepted by a person."""

from typing import Final

from nexus_marketing.core.campaigns import CampaignStatus
from nexus_marketing.core.deliveries import DeliveryState, FailReason
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.models import Campaign, Send
from nexus_marketing.db.queries import dead_letters as queries
from nexus_marketing.db.queries.dead_letters import Chosen
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record

#: Rows of one call; a call that took as many is repeated.
AT_ONCE: Final = 10_000
#: What a replay takes up where no reason is named: an address that is refused for good stays out.
REPLAYED: Final = (FailReason.EXHAUSTED, FailReason.PERMANENT_SENDER)


def replay_dead_letters(
    ctx: Context, campaign_id: int, state: DeliveryState, *, reason: str | None = None, lead_id: int | None = None
) -> int:
    """Send messages once more: each passes the whole gate again and keeps its Message-ID.

    Args:
        ctx: the unit of work.
        campaign_id: whose.
        state: ``failed``, or ``unknown`` for those that may have arrived: a person decides to risk a second copy.
        reason: of failed ones; those of :data:`REPLAYED` without it.
        lead_id: one lead's only.

    Returns:
        How many are due again, at most :data:`AT_ONCE`.

    Raises:
        NotFound: there is no such campaign.
        Conflict: the campaign is cancelled.
    """
    campaign = find(ctx.session, Campaign, campaign_id)
    if campaign.status == CampaignStatus.CANCELLED:
        raise Conflict("The campaign is cancelled: nothing of it is sent any more.", status=campaign.status)
    reasons = ((reason,) if reason else REPLAYED) if state == DeliveryState.FAILED else ()
    chosen = Chosen(campaign_id, state, reasons, lead_id)
    moved = 0
    for send_id in queries.sends_of(ctx.session, chosen):
        if moved < AT_ONCE:
            find(ctx.session, Send, send_id, lock=True)
            moved += queries.replay(ctx.session, chosen, send_id, AT_ONCE - moved)
    if campaign.status == CampaignStatus.COMPLETED:
        queries.resume_sends(ctx.session, campaign_id)
    if moved:
        record(
            ctx, "deliveries.replayed", "campaign", campaign_id, {str(state): (None, moved), "reason": (None, reason)}
        )
        ctx.ring("sends")
    return moved


def accept_unknown(ctx: Context, campaign_id: int, *, lead_id: int | None = None) -> int:
    """Take it that messages of which nobody knows arrived; answers how many, at most :data:`AT_ONCE`.

    Raises:
        NotFound: there is no such campaign.
    """
    find(ctx.session, Campaign, campaign_id)
    chosen = Chosen(campaign_id, DeliveryState.UNKNOWN, (), lead_id)
    moved = 0
    for send_id in queries.sends_of(ctx.session, chosen):
        if moved < AT_ONCE:
            find(ctx.session, Send, send_id, lock=True)
            moved += queries.accept(ctx.session, chosen, send_id, AT_ONCE - moved)
    if moved:
        record(ctx, "deliveries.accepted", "campaign", campaign_id, {"unknown": (moved, 0)})
    return moved
