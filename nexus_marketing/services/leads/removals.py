"""What follows when a lead is merged or erased: rows that refer to it, in pieces that workers go on with.

The decision itself, with everything that must hold at once, is one transaction in ``lead_merging`` and
``lead_erasure``. What may be many rows, and messages that a worker may hold at that moment, come after its
commit, as often as it takes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import RemovalKind
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.extensions import Erasure
from nexus_marketing.core.values import Canonical
from nexus_marketing.db.models import Lead, LeadKey, LeadRemoval, ScoreValue
from nexus_marketing.db.queries import removals as queries
from nexus_marketing.db.queries.journeys import end_runs, follow_runs
from nexus_marketing.db.queries.lead_work import LeadWork, lead_work
from nexus_marketing.db.queries.listings import table_of
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.delivery.renders import erase_renders
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.leads.lookup import all_ids
from nexus_marketing.services.plugins.erasers import ask_erasers, erasers_left
from nexus_marketing.services.scores.marks import follow_points
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Rows per transaction (DATABASE.md: what SQLite's one writer may keep others waiting for).
PIECE = 2_000
#: Files that are removed in one go.
FILES = 100
_LEDGER = "marketing_deliveries"
_ENGAGEMENTS = "marketing_engagements"
_RENDERS = "marketing_render_blocks"
_POINTS = "marketing_score_contributions"
_RUNS = "marketing_journey_runs"
_ATTACHMENTS = "marketing_engagement_attachments"
Values = dict[str, Canonical]


@dataclass(frozen=True, slots=True)
class _Step:
    """Work on one table: takes a number of rows, answers how many it did; fewer means that none are left."""

    table: str
    take: Callable[[int], int]
    #: What a row of it costs, in rows that are only updated.
    cost: int = 1


def begin_removal(ctx: Context, removal: LeadRemoval) -> None:
    """Note a lead that goes, and do at once what follows, unless it waits for messages or is more than a piece."""
    ctx.session.add(removal)
    ctx.session.flush()
    if queries.has_open_messages(ctx.session, _ids(ctx, removal)):
        # What keeps these from leaving must be committed before they are settled.
        ctx.ring("removals")
    elif not advance(ctx, removal):
        ctx.ring("removals")


def advance(ctx: Context, removal: LeadRemoval) -> bool:
    """Do the next piece; whether that was the last."""
    left, counts = PIECE, dict[str, int]()
    is_done = True
    for step in _steps(ctx, removal):
        while left > 0:
            asked = max(1, left // step.cost)
            done = step.take(asked)
            counts[step.table] = counts.get(step.table, 0) + done
            left -= done * step.cost
            if done < asked:
                break
        else:
            is_done = False
            break
    if is_done and removal.kind == RemovalKind.ERASED:
        # What is on the wire is settled by whoever put it there: look again.
        ids = _ids(ctx, removal)
        is_done = not queries.has_open_messages(ctx.session, ids) and not queries.attachments_of(ctx.session, ids, 1)
        is_done = is_done and not erasers_left(ctx.runtime, removal)
    removal.counts = queries.add_counts(removal.counts, {name: count for name, count in counts.items() if count})
    if is_done:
        removal.finished_at = ctx.now
    ctx.session.flush()
    return is_done


def finish_removal(runtime: Runtime, tenant_id: int, removal_id: int) -> int:
    """Go on with one until it is done or waits; answers how many pieces that took."""
    pieces = 0
    while True:
        pieces += _remove_files(runtime, tenant_id, removal_id)
        with runtime.work(tenant_id, SYSTEM) as ctx:
            removal = find(ctx.session, LeadRemoval, removal_id, lock=True)
            if removal.finished_at is not None:
                return pieces
            before = dict(removal.counts)
            is_done = advance(ctx, removal)
            has_moved = is_done or removal.counts != before
        pieces += has_moved
        if is_done or not (has_moved or _ask_plugins(runtime, tenant_id, removal_id)):
            return pieces


def _remove_files(runtime: Runtime, tenant_id: int, removal_id: int) -> int:
    """Remove the files about an erased lead; answers whether there were any.

    Bytes go first and outside of a transaction: a process that dies in between leaves a note of nothing,
    which the next one removes, and never bytes that nobody knows of.
    """
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        removal = find(ctx.session, LeadRemoval, removal_id)
        if removal.kind != RemovalKind.ERASED:
            return 0
        found = queries.attachments_of(ctx.session, _ids(ctx, removal), FILES)
    for row in found:
        runtime.blobs.delete(row.blob_key)
    if found:
        with runtime.work(tenant_id, SYSTEM) as ctx:
            removal = find(ctx.session, LeadRemoval, removal_id, lock=True)
            gone = queries.delete_attachments(ctx.session, [row.id for row in found])
            removal.counts = queries.add_counts(removal.counts, {_ATTACHMENTS: gone})
    return bool(found)


def _ask_plugins(runtime: Runtime, tenant_id: int, removal_id: int) -> bool:
    """Let plugins clear what they keep, once nothing that they could be told is under way; whether any did."""
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        removal = find(ctx.session, LeadRemoval, removal_id)
        ids, left = _ids(ctx, removal), erasers_left(runtime, removal)
        if not left or queries.has_open_messages(ctx.session, ids):
            return False
    cleared = ask_erasers(runtime, left, Erasure(tenant_id, tuple(ids)))
    if cleared:
        with runtime.work(tenant_id, SYSTEM) as ctx:
            removal = find(ctx.session, LeadRemoval, removal_id, lock=True)
            removal.counts = queries.add_counts(removal.counts, cleared)
    return bool(cleared)


def finish_removals(runtime: Runtime) -> int:
    """Go on with whatever was begun; answers how many pieces were done."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = lead_work(session, runtime.clock.now(), [LeadWork.REMOVAL])
    return sum(finish_removal(runtime, row.tenant_id, row.id) for row in waiting)


def empty_lead(ctx: Context, lead: Lead, kept: Mapping[str, Canonical] | None = None) -> Values:
    """Clear what is personal in a lead's own row; answers what it was, by public field name.

    Args:
        kept: metadata that stays because it says nothing of the person.
    """
    before: Values = {}
    for column in table_of(Lead).c:
        if not column.info.get("personal"):
            continue
        name = "attributes" if column.name == "metadata" else column.name
        before[str(column.name)] = getattr(lead, name)
        setattr(lead, name, [] if column.name == "tags" else dict(kept or {}) if column.name == "metadata" else None)
    lead.version += 1
    lead.gone_at = lead.updated_at = ctx.now
    ctx.session.flush()
    return before


def addresses_of(ctx: Context, lead: Lead) -> list[tuple[str, str]]:
    """(channel, address) of a lead and of all who were merged into it."""
    found = [("email", lead.email_norm), ("phone", lead.phone)]
    for before in _merged_before(ctx, lead.id):
        found += [("email", str(before.get("email_norm") or "")), ("phone", str(before.get("phone") or ""))]
    return list(dict.fromkeys((channel, address) for channel, address in found if address))


def _merged_before(ctx: Context, lead_id: int) -> Iterator[Mapping[str, object]]:
    merged = all_ids(ctx, lead_id)[1:]
    if merged:
        rows = ctx.session.scalars(select(LeadRemoval.before).where(LeadRemoval.lead_id.in_(merged)))
        yield from (row for row in rows if row)


def _move_engagements(ctx: Context, loser: int, winner: int, size: int) -> int:
    moved = queries.move_engagements(ctx.session, loser, winner, size)
    if moved:
        mark_leads(ctx, [winner])
    return moved


def _ids(ctx: Context, removal: LeadRemoval) -> list[int]:
    return [removal.lead_id] if removal.kind == RemovalKind.MERGED else all_ids(ctx, removal.lead_id)


def _steps(ctx: Context, removal: LeadRemoval) -> Iterator[_Step]:
    ids, session = _ids(ctx, removal), ctx.session
    if removal.kind == RemovalKind.MERGED:
        lead = find(session, Lead, removal.lead_id)
        winner = lead.merged_into or removal.lead_id
        # Planning may have frozen an audience with the lead while it was being merged.
        yield _Step(_LEDGER, lambda _size: queries.follow_messages(session, removal.lead_id, winner))
        yield _Step(_RUNS, lambda _size: follow_runs(session, removal.lead_id, winner))
        yield _Step(_RUNS, lambda size: len(end_runs(session, "lead", [removal.lead_id], "lead_merged", ctx.now, size)))
        yield _Step(_LEDGER, lambda _size: queries.settle_doubles(session, removal.lead_id))
        yield _Step(_ENGAGEMENTS, lambda size: _move_engagements(ctx, removal.lead_id, winner, size))
        yield _Step(_POINTS, lambda size: follow_points(ctx, removal.lead_id, winner, size))
        for keys in (table_of(LeadKey), table_of(ScoreValue)):
            yield _Step(keys.name, lambda size, keys=keys: queries.clear_piece(session, keys, ids, size))  # type: ignore[misc]
        return
    yield _Step(_RUNS, lambda size: len(end_runs(session, "lead", ids, "lead_erased", ctx.now, size)))
    yield _Step(_LEDGER, lambda _size: queries.cancel_messages(session, ids, SkipReason.LEAD_ERASED))
    yield _Step(_RENDERS, lambda size: erase_renders(session, ids, size), cost=20)
    for table in queries.personal_tables():
        yield _Step(table.name, lambda size, table=table: queries.clear_piece(session, table, ids, size))  # type: ignore[misc]
