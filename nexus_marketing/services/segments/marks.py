"""Leads to look at again: written with the change itself, so that no segment misses it (BEHAVIOUR.md 5.3)."""

from collections.abc import Collection, Mapping, Sequence

from nexus_marketing.core.segments import EVERYTHING, names_changed
from nexus_marketing.db.queries.upkeep import add_mark
from nexus_marketing.runtime import Context
from nexus_marketing.services.journeys.hearing import hear_changes


def mark_leads(ctx: Context, lead_ids: Sequence[int], names: Collection[str] = (EVERYTHING,)) -> None:
    """Have membership of leads looked at once this transaction commits.

    Args:
        ctx: the unit of work that changes them.
        lead_ids: which ones.
        names: what changed, in the words of ``core.segments``; everything without.
    """
    if lead_ids:
        add_mark(ctx.session, sorted(names), list(lead_ids), ctx.now)
        hear_changes(ctx, lead_ids)
        ctx.ring("segments")


def mark_changes(ctx: Context, lead_id: int, changes: Mapping[str, tuple[object, object]]) -> None:
    """The same for one lead whose fields went from one value to another."""
    keys: set[str] = set()
    before, after = changes.get("metadata", (None, None))
    if isinstance(after, Mapping):
        old = before if isinstance(before, Mapping) else {}
        keys = {key for key in {*old, *after} if old.get(key) != after.get(key)}
    mark_leads(ctx, [lead_id], names_changed(changes, keys))
