"""Counters of engagements: folded by the workers, compared with the rows by whoever doubts them.

Nothing adds to a counter where engagements are written: a delta is appended there, in the same transaction.
Deltas are claimed by deleting them, and what a transaction deletes it adds, so that no mark remembers how
far the fold has come and a row that commits late is folded when it is there.
"""

from collections import defaultdict

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.errors import Conflict
from nexus_marketing.db.queries.counters import Count, add_to_rollups, differences, take_deltas
from nexus_marketing.db.queries.event_batches import append_deltas
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import last_entry_id, record

_SUBJECT = ("counters", "all")


def fold_counters(runtime: Runtime, tenant_id: int) -> int:
    """Move a piece of the waiting deltas of a tenant into its roll-ups; answers how many."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        deltas = take_deltas(ctx.session)
        sums: dict[tuple[int, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        for delta in deltas:
            total = sums[delta[:4]]
            total[0] += delta.hits
            total[1] += delta.recipients
        add_to_rollups(ctx.session, [Count(*key, *sums[key]) for key in sorted(sums) if any(sums[key])])
    return len(deltas)


def reconcile_counters(runtime: Runtime, tenant_id: int, *, repair: bool = False, actor: Actor = SYSTEM) -> list[Count]:
    """Count a tenant's engagements anew and answer what the counters lack (negative: have too much).

    Args:
        repair: append the differences as deltas, so that the counters are right from then on, whatever
            is written meanwhile.

    Raises:
        Conflict: somebody else repaired them at the same time; nothing was changed.
    """
    if not repair:
        with runtime.work(tenant_id, actor, mode="read") as ctx:
            return differences(ctx.session)
    # Two transactions, because counting takes as long as there are rows and the repair must not block others.
    with runtime.work(tenant_id, actor, mode="read") as ctx:
        before = last_entry_id(ctx.session, *_SUBJECT)
        found = differences(ctx.session)
    if found:
        with runtime.work(tenant_id, actor) as ctx:
            _repair(ctx, found, before)
    return found


def _repair(ctx: Context, found: list[Count], before: int | None) -> None:
    if not try_alone(ctx.session, "counters") or last_entry_id(ctx.session, *_SUBJECT) != before:
        raise Conflict("Somebody else repaired these counters at the same time: count again.")
    append_deltas(ctx.session, [each._asdict() for each in found])
    record(ctx, "counters.repaired", *_SUBJECT, {"differences": (None, len(found))})
