"""How many leads a rule would have, told before it is saved (BEHAVIOUR.md 5.3)."""

from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import parse, to_json
from nexus_marketing.core.segments import Budget, Estimate, estimated
from nexus_marketing.db.conditions import cost_class
from nexus_marketing.db.queries.leads import count_leads, lead_id_bounds
from nexus_marketing.db.queries.segments import count_matching, sample_leads
from nexus_marketing.runtime import Context
from nexus_marketing.services.remembering import key_of, remembered
from nexus_marketing.services.segments.budget import budget_for
from nexus_marketing.services.segments.candidates import count_satisfying, satisfying
from nexus_marketing.services.segments.rules import Rule, named, rule_schema

#: So many leads are all looked at.
EXACT_UP_TO: Final = 20_000
#: Points at which leads are drawn from more.
SAMPLE: Final = 4_000
#: A sample is not drawn again within it, so that an estimate does not flicker while a rule is being written.
ESTIMATE_LIFETIME: Final = timedelta(minutes=5)


def estimate_size(ctx: Context, spelling: Any) -> tuple[Estimate, Budget]:
    """Count, or of a large tenant draw, the leads that satisfy a condition.

    Leads are drawn at random ids, each the first that lives there or after; where ids have gaps of unlike length
    some are drawn more often than others.

    Args:
        ctx: the unit of work.
        spelling: the condition, as text or JSON.

    Returns:
        How many there are (a sample at most :data:`ESTIMATE_LIFETIME` old), and what keeping the segment costs.

    Raises:
        ConditionError: what is wrong with it and where.
        ValidationError: the tenant's budget has no room for it; nothing was counted.
        ConditionUnavailable: a plugin that it asks fails.
    """
    schema = rule_schema(ctx)
    rule = Rule(0, named(ctx, parse(spelling, schema, "conditions")), schema)
    price = str(cost_class(rule.condition, schema))
    budget = budget_for(ctx, price)
    total = count_leads(ctx.session)
    if total <= EXACT_UP_TO:
        hits = count_matching(ctx.session, rule.test(ctx)) if rule.asks is None else count_satisfying(ctx, rule)
        return estimated(hits, total, total, price), budget
    types = sorted((name, str(field.type)) for name, field in schema.fields.items() if name in rule.depends_on)
    key = key_of("estimate", to_json(rule.condition), types)
    hits, sampled = remembered(ctx, key, ESTIMATE_LIFETIME, lambda: _draw(ctx, rule))
    return estimated(hits, sampled, total, price), budget


def _draw(ctx: Context, rule: Rule) -> tuple[int, int]:
    low, high = lead_id_bounds(ctx.session)
    points = [ctx.runtime.rng.randint(low, high) for _ in range(SAMPLE)]
    drawn = sample_leads(ctx.session, points)
    if rule.asks is not None:
        return len(satisfying(ctx, rule, drawn)), len(drawn)
    return count_matching(ctx.session, rule.test(ctx, few=True), drawn), len(drawn)
