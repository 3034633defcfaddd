"""Who comes into a journey: each arrival is decided once, and the refusals are written down with their reason.

Many leads that come by one occasion are looked at together: what is known of them is read, and what they become is
written, by a statement for all.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select

from nexus_marketing.core.engine.journey_entry import Arrival, Entered, Past, Refusal, enter, looks_at_leads
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys import Journey
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.runs import LIVE
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.db.by_index import looking_up_by_index
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyRun
from nexus_marketing.db.queries.journey_arrivals import PastOfLead, add_arrivals, lock_living, pasts_of
from nexus_marketing.db.tenancy import find, tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.journeys.effects import take_effect
from nexus_marketing.services.journeys.facts import facts_of_all
from nexus_marketing.services.journeys.rows import insert_runs, journey_version, run_of, write_decision

ENTERED: Final = "entered"
#: Refused before the engine is asked: there is no such lead (any more).
GONE: Final = "gone"
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


def arrive_all(ctx: Context, row: JourneyRow, lead_ids: Collection[int], occasion: Occasion) -> list[Answer]:
    """Decide whether leads come in, and write the runs and the refusals; answers are in the order of the leads' ids.

    Two arrivals of a lead are decided one after the other: its row is locked first.
    """
    ctx.session.flush()
    occasion = occasion._replace(occurrence=_as_kept(ctx, occasion.occurrence))
    with looking_up_by_index(ctx.session):
        return _arrive_all(ctx, row, sorted(set(lead_ids)), occasion)


def _arrive_all(ctx: Context, row: JourneyRow, wanted: Sequence[int], occasion: Occasion) -> list[Answer]:
    living = lock_living(ctx.session, wanted) if wanted and row.published is not None else set()
    if not living:
        return [Answer(each, GONE) for each in wanted]
    assert row.published is not None, "nobody is looked at otherwise"
    journey = journey_version(ctx, row.id, row.published)
    decided = _decide(ctx, row, journey, [each for each in wanted if each in living], occasion)
    entered = {lead_id: found for lead_id, found in decided.items() if isinstance(found, Entered)}
    for found in entered.values():
        for decision in found.replaced:
            replaced = ctx.session.get_one(JourneyRun, (ctx.tenant_id, int(decision.run.id)))
            write_decision(ctx, replaced, decision)
            for effect in decision.effects:
                take_effect(ctx, replaced, effect)
    run_ids = insert_runs(ctx, (row.id, row.published), journey, list(entered.values()))
    answers = [_answer(each, decided.get(each), run_ids) for each in wanted]
    noted = [each._asdict() for each in answers if each.outcome not in (GONE, Refusal.DUPLICATE)]
    if noted:
        shared = {"journey_id": row.id, "occurrence": occasion.occurrence, "at": ctx.now}
        add_arrivals(ctx.session, shared, noted)
    if entered:
        ctx.runtime.telemetry.point("journeys.entered")
    return answers


def _as_kept(ctx: Context, occurrence: str) -> str:
    """How an occurrence is written down. What programs call it may say whom it is about, and no erasure finds it here."""
    named = occurrence.removeprefix(_BY_PROGRAM)
    return occurrence if named == occurrence else f"{_BY_PROGRAM}{ctx.runtime.keys.mark(tenant_of(ctx.session), named)}"


def _answer(lead_id: int, found: Entered | Refusal | None, run_ids: Mapping[int, int]) -> Answer:
    if isinstance(found, Entered):
        return Answer(lead_id, ENTERED, run_ids[lead_id])
    return Answer(lead_id, GONE if found is None else str(found))


def _decide(
    ctx: Context, row: JourneyRow, journey: Journey, lead_ids: Sequence[int], occasion: Occasion
) -> dict[int, Entered | Refusal]:
    """The engine's word on each of the leads, which are locked."""
    has_keys = journey.entry.key is not None
    pasts = pasts_of(ctx.session, row.id, lead_ids, occasion.occurrence, with_keys=has_keys)
    live = _live_runs(ctx, row.id, [lead_id for lead_id, past in pasts.items() if past.entries])
    facts = facts_of_all(ctx, lead_ids, journey) if looks_at_leads(journey) else {}
    recent = _recent(ctx, row, journey)
    nothing, is_open, now = LeadFacts({}), row.status == JourneyStatus.PUBLISHED, ctx.now
    decided: dict[int, Entered | Refusal] = {}
    for lead_id in lead_ids:
        past = _past(pasts[lead_id], live.get(lead_id, ()), recent, is_open=is_open)
        arrival = Arrival("", str(lead_id), occasion.trigger, occasion.event)
        found = decided[lead_id] = enter(journey, arrival, facts.get(lead_id, nothing), past, now)
        recent += isinstance(found, Entered)
    return decided


def _past(of_lead: PastOfLead, live: Sequence[Any], recent: int, *, is_open: bool) -> Past:
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
