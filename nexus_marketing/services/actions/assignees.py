"""Whom something is turned to when it is turned to a member."""

from nexus_marketing.db.models import Campaign, Member
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context


def stand_in(ctx: Context, member_id: int) -> int:
    """Who acts for a member at this moment: the member, as long as nobody can delegate.

    Raises:
        NotFound: there is no such member.
    """
    return find(ctx.session, Member, member_id).id


def next_above(ctx: Context, campaign: Campaign) -> int | None:
    """Whom a campaign is turned to when its owner does not do: who stands in for the manager; nothing where there is none."""
    if campaign.owner_id is None:
        return None
    manager = find(ctx.session, Member, campaign.owner_id).manager_id
    return None if manager is None else stand_in(ctx, manager)
