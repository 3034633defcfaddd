"""Who comes into a journey: each arrival is decided once, and the refusals are written down with their reason.

Many leads that come by one occasion are looked at together: what is known of them is read, and what they become is
written, by a statement for all.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.engine.journey_entry import Admitted, Arrival, Past, Refusal, admit, begin
from nexus_marketing.core.journeys import Journey
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.runs import LIVE
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.by_index import looking_up_by_index
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyRun
from nexus_marketing.db.queries.journey_arrivals import PastOfLead, add_refusals, past_asked
from nexus_marketing.db.tenancy import find, tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.journeys.effects import take_effect
from nexus_marketing.services.journeys.facts import entry_asked, entry_facts
from nexus_marketing.services.journeys.rows import insert_runs, journey_version, run_of, write_decision

ENTERED: Final = "entered"
#: Refused before the engine is asked: there is no such lead (any more).
GONE: Final = "gone"
#: Of whom nothing is written: there is nobody, or it is written already.
_NOT_NOTED: Final = frozenset({ENTERED, GONE, str(Refusal.DUPLICATE)})
#: How occurrences begin that a program named.
_BY_PROGRAM: Final = "hook:"


class Answer(NamedTuple):
    """What became of an arrival: ``entered`` with the run, or the reason of the refusal."""

    lead_id: int
    outcome: str
    run_id: int | None = None


class Occasion(NamedTuple):
    """What brought somebody: by which trigger, with which event, and what makes it the same if it is told again."""

    trigger: Trigger
    occurrence: str
    event: Mapping[str, Any] = {}


def arrive(ctx: Context, row: JourneyRow, lead_id: int, occasion: Occasion) -> Answer:
    """As :func:`arrive_all` for one lead."""
    (answer,) = arrive_all(ctx, row, [lead_id], occasion)
    return answer


def arrive_all(
    ctx: Context, row: JourneyRow, lead_ids: Collection[int], occasion: Occasion, journey: Journey | None = None
) -> list[Answer]:
    """Decide whether leads come in, and write the runs and the refusals; answers are in the order of the leads' ids.

    Two arrivals of a lead are decided one after the other: its row is locked first. ``journey`` is the newest version, where
    the caller has read it.
    """
    ctx.session.flush()
    occasion = occasion._replace(occurrence=_as_kept(ctx, occasion.occurrence))
    wanted = sorted(set(lead_ids))
    if not wanted or row.published is None:
        return [Answer(each, GONE) for each in wanted]
    with looking_up_by_index(ctx.session):
        return _arrive_all(ctx, row, journey or journey_version(ctx, row.id, row.published), (wanted, occasion))


def _arrive_all(
    ctx: Context, row: JourneyRow, journey: Journey, arrived: tuple[Sequence[int], Occasion]
) -> list[Answer]:
    (wanted, occasion), now = arrived, ctx.now
    decided = _decide(ctx, row, journey, arrived, now)
    entered = {lead_id: found for lead_id, found in decided.items() if isinstance(found, Admitted)}
    for found in entered.values():
        for decision in found.replaced:
            replaced = ctx.session.get_one(JourneyRun, (ctx.tenant_id, int(decision.run.id)))
            write_decision(ctx, replaced, decision)
            for effect in decision.effects:
                take_effect(ctx, replaced, effect)
    shared = {
        "journey_id": row.id,
        "version_number": row.published,
        "occurrence": occasion.occurrence,
        "at": now,
    }
    run_ids: Mapping[int, int] = {}
    if entered:
        lead_id, first = next(iter(entered.items()))
        begun = begin(journey, Arrival("", str(lead_id), occasion.trigger, occasion.event), first, now)
        run_ids = insert_runs(ctx, shared, journey, begun, entered)
    told = [_answer(each, decided.get(each), run_ids) for each in wanted]
    if refused := [each._asdict() for each in told if each.outcome not in _NOT_NOTED]:
        add_refusals(ctx.session, shared, refused)
    if entered:
        ctx.runtime.telemetry.point("journeys.entered")
    return told


def _as_kept(ctx: Context, occurrence: str) -> str:
    """How an occurrence is written down. What programs call it may say whom it is about, and no erasure finds it here."""
    named = occurrence.removeprefix(_BY_PROGRAM)
    return occurrence if named == occurrence else f"{_BY_PROGRAM}{ctx.runtime.keys.mark(tenant_of(ctx.session), named)}"


def _answer(lead_id: int, found: Admitted | Refusal | None, run_ids: Mapping[int, int]) -> Answer:
    if isinstance(found, Admitted):
        return Answer(lead_id, ENTERED, run_ids[lead_id])
    return Answer(lead_id, GONE if found is None else str(found))


def _decide(
    ctx: Context, row: JourneyRow, journey: Journey, arrived: tuple[Sequence[int], Occasion], now: datetime
) -> dict[int, Admitted | Refusal]:
    """The engine's word on each of the leads that are there, which are locked."""
    lead_ids, occasion = arrived
    has_keys = journey.entry.key is not None
    past = past_asked(ctx.session, row.id, lead_ids, occasion.occurrence, with_keys=has_keys)
    asked = entry_asked(ctx, lead_ids, journey)
    told = answers(ctx.session, *asked, *past.questions)  # what was before is read when they are locked
    facts, pasts = entry_facts(ctx, journey, told[: len(asked)]), past.told(told[len(asked) :])
    live = _live_runs(ctx, row.id, [lead_id for lead_id in facts if lead_id in pasts and pasts[lead_id].entries])
    recent, is_open = _recent(ctx, row, journey), row.status == JourneyStatus.PUBLISHED
    zone = next((known.tenant_zone for known in facts.values()), "UTC")
    clock = Evaluation(now, zone)
    decided: dict[int, Admitted | Refusal] = {}
    for lead_id, known in facts.items():
        before = _past(pasts.get(lead_id), live.get(lead_id, ()), recent, is_open=is_open)
        arrival = Arrival("", str(lead_id), occasion.trigger, occasion.event)
        found = decided[lead_id] = admit(journey, arrival, known, before, clock)
        recent += isinstance(found, Admitted)
    return decided


def _past(of_lead: PastOfLead | None, live: Sequence[Any], recent: int, *, is_open: bool) -> Past:
    if of_lead is None:
        return Past(recent=recent, is_open=is_open)
    return Past(
        tuple(live),
        of_lead.entries,
        of_lead.last_entered_at,
        frozenset(of_lead.keys),
        recent,
        of_lead.is_seen,
        is_open,
    )


def _live_runs(ctx: Context, journey_id: int, lead_ids: Sequence[int]) -> dict[int, list[Any]]:
    """Live runs of leads in a journey as the engine knows them, oldest first, locked."""
    found: dict[int, list[Any]] = {}
    if lead_ids:
        wanted = (JourneyRun.journey_id == journey_id, JourneyRun.lead_id.in_(lead_ids), JourneyRun.state.in_(LIVE))
        rows = ctx.session.scalars(select(JourneyRun).where(*wanted).order_by(JourneyRun.id).with_for_update())
        for each in rows.all():
            run = run_of(each, journey_version(ctx, journey_id, each.version_number))
            found.setdefault(each.lead_id, []).append(run)
    return found


def _recent(ctx: Context, row: JourneyRow, journey: Journey) -> int:
    """Who entered within the time of the cap; whoever counts keeps the others from it until the end of the transaction."""
    if journey.entry.cap is None:
        return 0
    find(ctx.session, JourneyRow, row.id, lock=True)
    since = ctx.now - journey.entry.cap[1]
    counted = select(func.count()).where(JourneyRun.journey_id == row.id, JourneyRun.entered_at > since)
    return ctx.session.scalar(counted) or 0
