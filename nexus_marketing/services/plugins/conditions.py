"""Which conditions of plugins a tenant's rules may ask, and what becomes of rules whose plugin comes, goes or changes.

A rule is checked against what the tenant has on when it is saved. Later its plugin may be off, gone or broken: then nothing
is decided, and what there is stays as it is (``ConditionUnavailable``) until it can be asked again.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import select, update

from nexus_marketing.core.conditions import Vocabulary
from nexus_marketing.core.segments import conditions_read
from nexus_marketing.db.models import Segment
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.runtime import Context

#: When what could not ask a plugin's condition tries again.
TRY_AGAIN: Final = timedelta(minutes=10)


def conditions_of(ctx: Context, *, is_saved: bool = False) -> Vocabulary:
    """The conditions that the tenant's rules may name; the same object as long as the same plugins are on.

    Args:
        ctx: the unit of work.
        is_saved: for a rule that was checked when it was saved: what is gone since can be read, and not be asked.
    """
    registry = ctx.runtime.plugins
    if not registry.of(Capability.CONDITION):
        return registry.conditions(is_saved=is_saved)
    return registry.conditions(frozenset(ctx.runtime.switches.of(ctx.session)), is_saved=is_saved)


def look_again(ctx: Context, plugin: str) -> None:
    """Have the segments computed whose rules name a condition of a plugin that was switched on or off."""
    names = {entry.name for entry in ctx.runtime.plugins.added_by(plugin) if entry.kind is Capability.CONDITION}
    if not names:
        return
    ruled = select(Segment.id, Segment.depends_on).where(Segment.conditions.is_not(None))
    asking = [
        row.id
        for row in ctx.session.execute(ruled)
        if names.intersection(each.partition("@")[0] for each in conditions_read(row.depends_on))
    ]
    if asking:
        ctx.session.execute(update(Segment).where(Segment.id.in_(asking)).values(requested_at=ctx.now))
        ctx.ring("segments")
