"""Taking over campaigns that objects have kept themselves; a second time changes nothing."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.engine import lifecycle
from nexus_marketing.core.promotion import KeptCampaign
from nexus_marketing.db.models import Campaign
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.rows import new_campaign_of, of_key, remember, write_state
from nexus_marketing.services.definitions import understand


def adopt_campaign(ctx: Context, kept: KeptCampaign) -> tuple[Campaign, bool]:
    """The row of a kept campaign, and whether it is new: one that is here already stays as it is here.

    Nothing is sent by it: what was launched before the database was there is tracked from here on.

    Raises:
        StaleVersion: another call is doing the same at this moment.
    """
    state = kept.state
    row = ctx.session.scalars(of_key(state.key).with_for_update()).one_or_none()
    if row is not None:
        return row, False
    definition = understand(kept.program or {}, code=state.key.name)
    row, _ = new_campaign_of(ctx, state, definition)
    row.program = None if kept.program is None else dict(kept.program)
    row.attended = sorted(kept.attended)
    write_state(row, state)
    unattended = not {each.action for each in definition.automatic}.intersection(kept.attended)
    row.tick_at = lifecycle.next_look(definition, state, ctx.now) if unattended else None
    ctx.session.flush()
    for entry in kept.history:
        remember(ctx, row, entry)
    record(ctx, "campaign.promoted", "campaign", row.id, {"version": (None, state.version)})
    return row, True


def promote_campaigns(ctx: Context, campaigns: Sequence[KeptCampaign]) -> dict[str, Any]:
    """Take over many in one transaction.

    Returns:
        ``promoted`` and ``already`` (how many), and ``campaigns`` with ``id`` and ``external_id`` of each, in
        the order given.
    """
    rows = [adopt_campaign(ctx, each) for each in campaigns]
    promoted = sum(new for _, new in rows)
    return {
        "promoted": promoted,
        "already": len(rows) - promoted,
        "campaigns": [{"id": str(row.id), "external_id": row.external_id, "status": row.status} for row, _ in rows],
    }


def known_campaigns(ctx: Context, campaigns: Sequence[KeptCampaign]) -> int:
    """How many of them are here already: what a dry run tells."""
    keys = [of_key(each.state.key).with_only_columns(Campaign.id) for each in campaigns]
    return sum(ctx.session.scalars(select(key.exists())).one() for key in keys)
