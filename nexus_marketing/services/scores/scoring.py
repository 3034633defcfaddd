"""Scores brought up to date: batches of leads, each in one transaction with few statements (BEHAVIOUR.md 5.4).

A lead's row is locked while its scores are computed, so that everything about them happens one after the other.
What made them, what they are now and the thresholds they crossed are written together; a worker that dies leaves
nothing half done, and the mark that called it stays for the next.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Row, RowMapping

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.leads.lookup import current_ids
from nexus_marketing.services.scores.looking import Batch, Change, look_at
from nexus_marketing.services.scores.sheets import Sheet, published_sheets, sheets_of
from nexus_marketing.services.scores.storing import TIMER, store_changes
from nexus_marketing.services.timers import set_timer

#: One worker at a time looks at a tenant's scores.
WORK: Final = "scoring"
#: Marks, and leads, of one transaction (DATABASE.md: what SQLite's one writer may keep others waiting for).
BATCH: Final = 100


def score_marked(runtime: Runtime, tenant_id: int, most: int = BATCH) -> int:
    """Look at leads that were touched, by at most so many marks in one transaction; answers how many were taken."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        marks, rules = answers(ctx.session, queries.marks_to_take(ctx.session, most), queries.rules_in_force())
        if marks:
            score_leads(ctx, sheets_of(ctx, rules), _batch_of(marks))
        return len(marks)


def score_due(ctx: Context, timer: TimerFact) -> None:
    """Look at leads whose scores time has changed: a batch, and set the timer for what comes next."""
    del timer
    if try_alone(ctx.session, WORK):
        _score_due(ctx)
    due = queries.first_due(ctx.session)
    if due is not None:
        set_timer(ctx, TIMER, "", due, earliest=True)


def _score_due(ctx: Context) -> None:
    leads = queries.due_leads(ctx.session, ctx.now, BATCH)
    # The timer is locked already, and whoever has a lead may wait for it: leads in other hands come next time.
    free = queries.free_leads(ctx.session, leads)
    score_leads(ctx, published_sheets(ctx), Batch(set(free)))
    queries.forget_due(ctx.session, leads, free, ctx.now)


def score_leads(ctx: Context, sheets: Sequence[Sheet], batch: Batch) -> list[Change]:
    """Bring scores of leads up to date, in the caller's transaction; answers those that show another number.

    Args:
        ctx: the unit of work; the leads are locked until it ends.
        sheets: the scores.
        batch: the leads.
    """
    records = _locked(ctx, batch) if batch.leads and sheets else []
    if not records:
        return []
    changes = look_at(ctx, sheets, records, batch)
    others = [change for change in changes if change.is_other]
    store_changes(ctx, changes, also=partial(_record, ctx, others) if others else None)
    return others


def _record(ctx: Context, changes: Sequence[Change]) -> None:
    lines = [f"{each.lead_id}:{each.sheet.name}:{each.update.value!r}" for each in changes]
    digest = sha256("\n".join(sorted(lines)).encode()).digest()
    record_bulk(ctx, "scores.updated", "lead", "batch", len(changes), digest)


def _locked(ctx: Context, batch: Batch) -> list[RowMapping]:
    """The leads of a batch, locked; those that were merged as the lead that each of them is by now."""
    records = queries.lock_records(ctx.session, batch.leads)
    found = {record["id"] for record in records}
    merged = current_ids(ctx, batch.leads - found) if len(found) < len(batch.leads) else {}
    for old, new in merged.items():
        batch.spans[new] += batch.spans.get(old, [])  # what it did may have moved already, or not yet
    others = set(merged.values()) - found
    return [*records, *(queries.lock_records(ctx.session, others) if others else ())]


def _batch_of(marks: Sequence[Row[Any]]) -> Batch:
    batch = Batch()
    for mark in marks:
        batch.leads.add(mark.lead_id)
        if mark.since is not None:
            batch.spans[mark.lead_id].append((mark.since, mark.until))
    return batch
