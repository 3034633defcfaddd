"""Leads whose scores are to be looked at: noted in the transaction that touched them, and only where rules ask.

Whoever writes engagements or leads says so here; the worker does the rest after commit (``services.scores.scoring``).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.scoring import DEFAULT_SCORE
from nexus_marketing.db.models import Score
from nexus_marketing.db.queries.scoring import append_marks, asked_by_rules, move_contributions, move_given_points
from nexus_marketing.runtime import Context

_ASKED: Final = "nexus_scores_asked"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the tenant's published rules ask for: events, and columns of leads."""

    events: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()


def mark_engaged(ctx: Context, rows: Iterable[Mapping[str, Any]], *, only_human: bool = True) -> None:
    """Have the scores of those leads looked at whose engagements give points.

    Args:
        ctx: the unit of work that has written the engagements: asked afterwards, so that whoever publishes
            rules meanwhile finds either the mark or the engagement.
        rows: engagements as they were written (``lead_id``, ``type``, ``verdict``, ``tracked_at`` as text).
        only_human: leave out what machines did; not where a verdict was changed.
    """
    events = _asked(ctx).events
    if not events:
        return
    spans: dict[int, list[str]] = {}
    for row in rows:
        if only_human and row["verdict"] != "human":
            continue
        if row["type"] in events or row.get("name") in events:
            span = spans.setdefault(row["lead_id"], [row["tracked_at"], row["tracked_at"]])
            span[:] = min(span[0], row["tracked_at"]), max(span[1], row["tracked_at"])
    _append(ctx, [{"lead_id": lead_id, "since": span[0], "until": span[1]} for lead_id, span in spans.items()])


def ask_rules(ctx: Context) -> None:
    """Inside ``db.ahead.sent_ahead``, behind what was written: :func:`mark_engaged` need not wait for the answer."""
    if _ASKED not in ctx.session.info:
        ctx.session.info[_ASKED] = asked_by_rules(ctx.session)


def mark_changed(ctx: Context, lead_ids: Collection[int], names: Collection[str] | None = None) -> None:
    """Have the scores of leads looked at that were written.

    Args:
        ctx: the unit of work that has written them.
        lead_ids: which.
        names: the fields that changed; ``None`` for any.
    """
    reads = _asked(ctx).reads
    if lead_ids and reads and (names is None or not reads.isdisjoint(names)):
        _append(ctx, [{"lead_id": lead_id, "since": None, "until": None} for lead_id in sorted(lead_ids)])


def take_over_points(ctx: Context, loser_id: int, winner_id: int) -> bool:
    """Points that were given to a merged lead by hand become the winner's; whether rules make the lead's own score.

    Without such rules nothing moves in that score: the policy of the merge says what the number is.
    """
    ruled = ctx.session.execute(
        select(Score.id, Score.name).where(Score.published.is_not(None), Score.removed_at.is_(None))
    ).all()
    if ruled:
        move_given_points(ctx.session, loser_id, winner_id, [row.id for row in ruled])
    return any(row.name == DEFAULT_SCORE for row in ruled)


def follow_points(ctx: Context, loser_id: int, winner_id: int, size: int) -> int:
    """Points for what a merged lead did become the winner's, up to so many; answers how many."""
    moved = move_contributions(ctx.session, loser_id, winner_id, size)
    if moved:
        _append(ctx, [{"lead_id": winner_id, "since": None, "until": None}])
    return moved


def _append(ctx: Context, rows: list[dict[str, Any]]) -> None:
    if rows:
        append_marks(ctx.session, rows)
        ctx.ring("scores")


def _asked(ctx: Context) -> _Asked:
    known: _Asked | Callable[[], list[Any]] | None = ctx.session.info.get(_ASKED)
    if not isinstance(known, _Asked):
        rows = (known or asked_by_rules(ctx.session))()
        events = frozenset(str(name) for row in rows for name in row.events)
        known = _Asked(events, frozenset(str(name) for row in rows for name in row.reads))
        ctx.session.info[_ASKED] = known  # for this unit of work
    return known
