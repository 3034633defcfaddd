"""What journeys hear of: a timer for each, set in the transaction of what happened, so that none is missed or told twice."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.journeys.crossings import ScoreMove, names_of, was_crossed
from nexus_marketing.core.journeys.statuses import Listens
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.models import JourneyListener
from nexus_marketing.db.queries.journeys import ENDED, HAPPENED, SCORED, events_listened, tell_change
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context
from nexus_marketing.services.timers import set_timer, set_timers


def ask_listened(ctx: Context) -> Callable[[], frozenset[str]]:
    """Which events are waited for, asked behind what was written: whoever begins to wait meanwhile finds either."""
    return events_listened(ctx.session)


def hear_events(ctx: Context, rows: Iterable[Mapping[str, Any]], listened: Collection[str]) -> None:
    """Have journeys hear of engagements that were just written, where any waits for such (:func:`ask_listened`)."""
    if not listened:
        return
    found = {}
    for row in rows:
        name, at = str(row.get("name") or row["type"]), row["tracked_at"]
        if name in listened:
            moment = at if isinstance(at, str) else to_text(at)
            payload = {"lead": row["lead_id"], "at": moment, "name": name}
            found[f"{row['lead_id']}:{moment}:{name}"] = payload
    with sent_ahead(ctx.session):
        for key in sorted(found):  # locked in one order, whoever else writes the same
            set_timer(ctx, HAPPENED, key, ctx.now, found[key])


def hear_changes(ctx: Context, lead_ids: Sequence[int]) -> None:
    """Have journeys look at their runs of leads that changed, where they read what leads are."""
    tell_change(ctx.session, sorted(set(lead_ids)), ctx.now)


def hear_crossings(ctx: Context, moves: Collection[ScoreMove]) -> None:
    """Have journeys hear of scores that crossed what they wait for; of those that did not no timer is set."""
    if not moves:
        return
    crossings = (
        JourneyListener.kind == Listens.EVENT,
        JourneyListener.name >= "score:",
        JourneyListener.name < "score;",
    )
    listened = sorted(set(ctx.session.scalars(select(JourneyListener.name).where(*crossings))))
    at, found = canonical_datetime(ctx.now), {}
    for move in moves if listened else ():
        begins = names_of(move.score)
        names = [name for name in listened if name.startswith(begins) and was_crossed(name, move)]
        if names:
            said = {"lead": move.lead_id, "score": move.score, "before": move.before, "after": move.after}
            key = f"{move.lead_id}:{move.score}:{at}:{move.before!r}:{move.after!r}"
            found[key] = (key, ctx.now, {**said, "at": at, "names": names})
    if found:
        set_timers(ctx, SCORED, [found[key] for key in sorted(found)])
        ctx.ring("timers")


def ends_of(journey_id: int) -> str:
    """What journeys that begin where runs of this one end listen to; no event can be called so."""
    return f"journey:{journey_id}"


def tell_ends(ctx: Context, ended: Mapping[int, Sequence[int]]) -> None:
    """Have other journeys hear that runs ended, by the journeys of these, where any begins with it."""
    for journey_id, run_ids in ended.items():
        listening = (JourneyListener.kind == Listens.EVENT, JourneyListener.name == ends_of(journey_id))
        if ctx.session.scalars(select(JourneyListener.journey_id).where(*listening).limit(1)).first() is not None:
            set_timers(ctx, ENDED, [(str(run_id), ctx.now, {}) for run_id in run_ids])
            ctx.ring("timers")
