"""Having it read back what people do about posts: the timer of a campaign that posts."""

from typing import Final

from nexus_marketing.core.contracts import WatchedChannel
from nexus_marketing.core.watching import next_look
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import set_timer

TYPE: Final = "campaign.reactions"


def watch(ctx: Context, campaign_id: int, channel: str) -> None:
    """Have what people do about a post read back, where the network of its channel tells."""
    if isinstance(ctx.runtime.channels.get(channel), WatchedChannel):
        at = next_look(ctx.now, None)
        set_timer(ctx, TYPE, str(campaign_id), at or ctx.now, campaign_id=campaign_id, earliest=True)
