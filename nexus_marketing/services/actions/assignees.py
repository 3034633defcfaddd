"""Whom something is turned to when it is turned to a member."""

from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.permissions import FORMER
from nexus_marketing.db.models import Campaign, Member
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context


def stand_in(ctx: Context, member_id: int) -> int:
    """Who acts for a member at this moment: the member, as long as nobody can delegate.

    Raises:
        NotFound: there is no such member, or no more.
    """
    member = find(ctx.session, Member, member_id)
    if member.role == FORMER:
        raise NotFound(f"Member {member_id} has left: name another.", id=member_id)
    return member.id


def next_above(ctx: Context, campaign: Campaign) -> int | None:
    """Whom a campaign is turned to when its owner does not do: who stands in for the manager, or for the next one above who
    is there still; nothing where there is none.
    """
    seen: set[int] = set()
    above = None if campaign.owner_id is None else find(ctx.session, Member, campaign.owner_id).manager_id
    while above is not None and above not in seen:
        manager = find(ctx.session, Member, above)
        if manager.role != FORMER:
            return stand_in(ctx, above)
        seen.add(above)
        above = manager.manager_id
    return None
