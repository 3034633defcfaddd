"""How the warming up of a tenant's senders goes."""

from typing import Any

from sqlalchemy import select

from nexus_marketing.core.pacing.warm_up import WarmUp, warm_ups_of
from nexus_marketing.db.models import Tenant
from nexus_marketing.db.queries.warm_ups import figures_of, standings_of
from nexus_marketing.runtime import Context


def warm_up_rows(ctx: Context) -> list[dict[str, Any]]:
    """A row for each sender with a plan.

    Returns:
        ``sender``, ``day`` of the plan (from 1; one more than there are when it is through), ``of`` how many, ``allowed`` in
        24 hours (nothing: as many as one likes), and of the messages since that day began: ``left``, ``bounced``,
        ``complained``.
    """
    settings = ctx.session.scalar(select(Tenant.settings).where(Tenant.id == ctx.tenant_id)) or {}
    standings = standings_of(ctx.session)

    def row(plan: WarmUp) -> dict[str, Any]:
        standing = standings.get(plan.sender)
        step = 0 if standing is None else standing.step
        figures = figures_of(ctx.session, plan.sender, ctx.now.date() if standing is None else standing.day)
        limit = plan.limit(step)
        allowed = None if limit is None else limit.count
        return {"sender": plan.sender, "day": step + 1, "of": len(plan.daily), "allowed": allowed, **figures._asdict()}

    return [row(plan) for plan in warm_ups_of(settings)]
