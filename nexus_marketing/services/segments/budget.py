"""What a tenant's segments may cost: rules are looked at again with every change, by workers that all tenants share."""

from sqlalchemy import func, select

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.segments import DEFAULT_BUDGET, PRICES, Budget
from nexus_marketing.db.models import Segment, Tenant
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.segments.rules import RULED


def budget_for(ctx: Context, cost_class: str, besides: int | None = None) -> Budget:
    """What the tenant's rules cost, and whether one more of a class fits.

    Args:
        ctx: the unit of work.
        cost_class: of the rule that is to come.
        besides: a segment whose rule is replaced by it.

    Raises:
        ValidationError: it does not; at ``conditions``, code ``over_budget``.
    """
    tenant = ctx.session.get(Tenant, tenant_of(ctx.session))
    allowed = int((tenant.settings if tenant is not None else {}).get("segment_budget", DEFAULT_BUDGET))
    counts = select(Segment.cost_class, func.count()).where(Segment.kind.in_(RULED), Segment.id != (besides or 0))
    found = ctx.session.execute(counts.group_by(Segment.cost_class))
    spent = sum(PRICES.get(str(name), 0) * count for name, count in found)
    budget = Budget(PRICES[cost_class], spent, allowed)
    if budget.is_exceeded:
        raise ValidationError.at(
            "conditions",
            "over_budget",
            f"A rule of class {cost_class} costs {budget.price}, and {spent} of {allowed} are spent: make it cheaper "
            "(indexed fields first), delete segments, or have segment_budget raised.",
        )
    return budget
