"""What scores came to, written down and told."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from nexus_marketing.core.events import LeadScored, ScoreThresholdCrossed
from nexus_marketing.core.journeys.crossings import ScoreMove
from nexus_marketing.core.scoring import (
    Contribution,
)
from nexus_marketing.core.scoring.thresholds import Crossing
from nexus_marketing.core.segments import names_changed, score_name
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns.listening import hear_scores
from nexus_marketing.services.journeys.hearing import hear_crossings
from nexus_marketing.services.scores.looking import Change
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.timers import set_timer

#: The timer that looks at scores which time has changed: one of each tenant.
TIMER: Final = "scores.due"


def store_changes(ctx: Context, changes: Iterable[Change], *, also: Callable[[], None] | None = None) -> None:
    """Write what has changed, and tell of it.

    Args:
        ctx: the unit of work that has the leads locked.
        changes: what it came to; those that need no writing are left out.
        also: writes something else together with them, and wants no answer to it.
    """
    written = [change for change in changes if change.needs_writing]
    if not written:
        return
    with sent_ahead(ctx.session):
        _write(ctx, written)
        _mark(ctx, written)
        if also is not None:
            also()
    _tell(ctx, written)
    rises = [each for each in written if each.sheet.is_own and each.is_other and each.update.value > each.update.before]
    hear_scores(ctx, {each.lead_id: (each.update.before, each.update.value) for each in rises})
    hear_crossings(ctx, [_move(each) for each in written if each.is_other or each.update.crossings])


def _move(change: Change) -> ScoreMove:
    told = frozenset((each.threshold, each.direction) for each in change.update.crossings)
    return ScoreMove(change.lead_id, change.sheet.name, change.update.judged_from, change.update.value, told)


def _write(ctx: Context, written: Sequence[Change]) -> None:
    session, now = ctx.session, to_text(ctx.now)
    contributions = [_contribution_row(change, each) for change in written for each in change.update.appended]
    contributions.sort(key=lambda row: (row["score_id"], row["rule"], row["version"], row["cause"], row["turn"]))
    queries.append_contributions(session, contributions)
    queries.write_values(session, [_value_row(change, now) for change in written])
    own = [change for change in written if change.sheet.is_own and change.is_other]
    queries.write_own_scores(session, [{"lead_id": each.lead_id, "value": each.update.value} for each in own])
    crossings = [_crossing_row(change, each, now) for change in written for each in change.update.crossings]
    queries.append_crossings(session, crossings)
    due = min((each.sooner for each in written if each.sooner is not None), default=None)
    if due is not None:
        set_timer(ctx, TIMER, "", due, earliest=True)


def _mark(ctx: Context, changes: Sequence[Change]) -> None:
    """Have segments hear of changed scores (BR-013)."""
    own = [change.lead_id for change in changes if change.sheet.is_own and change.is_other]
    mark_leads(ctx, own, names_changed(["score"]))
    named: dict[str, list[int]] = {}
    for change in changes:
        if change.is_other and not change.sheet.is_own:
            named.setdefault(change.sheet.name, []).append(change.lead_id)
    for score, lead_ids in sorted(named.items()):
        mark_leads(ctx, lead_ids, [score_name(score)])


def _tell(ctx: Context, changes: Sequence[Change]) -> None:
    """The one place from which a changed score goes on to subscribers; segments have their marks already."""
    for change in changes:
        name, new = change.sheet.name, change.update
        if change.is_other:
            ctx.emit(LeadScored(ctx.tenant_id, ctx.now, change.lead_id, name, new.before, new.value))
        for each in new.crossings:
            more = (each.before, each.after, each.threshold, each.direction)
            ctx.emit(ScoreThresholdCrossed(ctx.tenant_id, ctx.now, change.lead_id, name, *more))


def _contribution_row(change: Change, each: Contribution) -> dict[str, Any]:
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "rule": each.rule,
        "version": each.version,
        "cause": each.cause,
        "turn": each.turn,
        "kind": str(each.kind),
        "points": each.points,
        "at": to_text(each.at),
        "actor": each.actor,
        "reason": each.reason,
    }


def _crossing_row(change: Change, each: Crossing, now: str) -> dict[str, Any]:
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "threshold": each.threshold,
        "direction": each.direction,
        "before": each.before,
        "after": each.after,
        "at": now,
    }


def _value_row(change: Change, now: str) -> dict[str, Any]:
    new = change.update
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "value": new.value,
        "version": change.sheet.number,
        "marks": {key: mark.kept() for key, mark in new.marks.items()},
        "next_change_at": None if new.next_change_at is None else to_text(new.next_change_at),
        "computed_at": now,
    }
