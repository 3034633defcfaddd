"""What brings leads into journeys: who is named, segments, events and ends of other journeys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from nexus_marketing.core.conditions.facts import HUMAN
from nexus_marketing.core.engine.journey_entry import triggers_for
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.journeys import TriggerKind
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.statuses import JourneyStatus, Listens
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyRun, Segment, SegmentMember
from nexus_marketing.db.queries.journeys import BACKFILL
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.arrivals import ENTERED, Answer, Occasion, arrive, arrive_all
from nexus_marketing.services.journeys.facts import happened_at, tenant_zone
from nexus_marketing.services.journeys.hearing import ends_of
from nexus_marketing.services.journeys.plugins import ask_about_event
from nexus_marketing.services.journeys.rows import journey_version, listening, newest_version
from nexus_marketing.services.journeys.runs import LATER, event_happened, lead_moved
from nexus_marketing.services.timers import set_timer
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: The members of a segment are let in so many at a time.
PIECE: Final = 500
#: Leads of one call of the API, decided on in its transaction.
MOST_LEADS: Final = 200
#: Journeys that begin where others end, one after the other: longer chains are circles.
MOST_IN_CHAIN: Final = 50
_MOVES: Final[Mapping[str, tuple[TriggerKind, Listens]]] = {
    "entered": (TriggerKind.SEGMENT_ENTERED, Listens.ENTERED),
    "left": (TriggerKind.SEGMENT_LEFT, Listens.LEFT),
}


def enter_leads(ctx: Context, journey_id: int, lead_ids: Sequence[int]) -> list[Answer]:
    """Let leads in that somebody names.

    Args:
        ctx: the unit of work.
        journey_id: which journey.
        lead_ids: at most ``MOST_LEADS``.

    Returns:
        An answer for each, in their order; ``gone`` where there is no such lead.

    Raises:
        Conflict: nobody may be named for this journey, or it was never published.
    """
    row = find(ctx.session, JourneyRow, journey_id)
    trigger = _by_hand(ctx, row)
    occurrence = f"api:{ctx.request_id}"
    answers = {each.lead_id: each for each in arrive_all(ctx, row, lead_ids, Occasion(trigger, occurrence))}
    entered = sum(answer.outcome == ENTERED for answer in answers.values())
    record(ctx, "journey.entries", "journey", row.id, {"entered": (None, entered), "asked": (None, len(answers))})
    ctx.ring("timers")
    return [answers[each] for each in lead_ids]


def enter_members(ctx: Context, journey_id: int, segment_id: int, *, backfill: bool) -> int:
    """Let the members of a segment in, a piece at a time; answers how many there are now.

    Args:
        backfill: whether to do it; without it nobody comes in, and the number is a preview. In a paused journey they come in
            when it goes on.

    Raises:
        Conflict: nobody may be named for this journey, it was never published, or nobody comes in any more.
    """
    row = find(ctx.session, JourneyRow, journey_id)
    _by_hand(ctx, row)
    find(ctx.session, Segment, segment_id)
    if backfill:
        if row.status not in (JourneyStatus.PUBLISHED, JourneyStatus.PAUSED):
            said = f"The journey is {row.status}, nobody comes in: publish a new version of it, or another journey."
            raise Conflict(said, status=row.status)
        begin_backfill(ctx, row, segment_id)
        record(ctx, "journey.backfill", "journey", row.id, {"segment_id": (None, segment_id)})
    counted = select(func.count()).select_from(SegmentMember).where(SegmentMember.segment_id == segment_id)
    return ctx.session.scalar(counted) or 0


def begin_backfill(ctx: Context, row: JourneyRow, segment_id: int) -> None:
    """Have the members of a segment come in from now on."""
    payload = {"after": 0, "occurrence": f"list:{segment_id}:{ctx.request_id}"}
    set_timer(ctx, BACKFILL, f"{row.id}:{segment_id}", ctx.now, payload)
    ctx.ring("timers")


def begin_round(ctx: Context, row: JourneyRow, number: int, trigger: Trigger, planned: datetime) -> None:
    """Have the members of a segment come in by a schedule; rounds do not disturb each other."""
    name = canonical_datetime(planned)
    payload = {"after": 0, "occurrence": f"schedule:{number}:{name}", "trigger": number}
    set_timer(ctx, BACKFILL, f"{row.id}:{trigger.name}:{name}", ctx.now, payload)
    ctx.ring("timers")


def backfill_due(ctx: Context, timer: TimerFact) -> None:
    """Let the next members of a segment in; they came by a schedule, as a list, or as if they had just entered it."""
    journey_id, segment_id = (int(part) for part in timer.key.split(":")[:2])
    row = find(ctx.session, JourneyRow, journey_id)
    if row.status == JourneyStatus.PAUSED:  # the rest of them come in when it goes on
        set_timer(ctx, BACKFILL, timer.key, ctx.now + LATER, timer.payload)
        return
    if row.status != JourneyStatus.PUBLISHED or row.published is None:
        return
    after = (SegmentMember.segment_id == segment_id, SegmentMember.lead_id > timer.payload["after"])
    members = select(SegmentMember.lead_id).where(*after).order_by(SegmentMember.lead_id).limit(PIECE)
    lead_ids = list(ctx.session.scalars(members))
    journey = journey_version(ctx, row.id, row.published)
    way = _way_in(journey.entry.triggers, segment_id, timer.payload)
    if way is None:
        return
    arrive_all(ctx, row, lead_ids, Occasion(way, timer.payload["occurrence"]), journey)
    if len(lead_ids) == PIECE:
        set_timer(ctx, BACKFILL, timer.key, ctx.now, {**timer.payload, "after": lead_ids[-1]})


def _way_in(triggers: Sequence[Trigger], segment_id: int, payload: Mapping[str, Any]) -> Trigger | None:
    """By which trigger members come; nothing where the schedule of their round is there no more."""
    number = payload.get("trigger")
    if number is not None:
        found = triggers[number] if number < len(triggers) else None
        return found if found is not None and found.on is TriggerKind.SCHEDULE else None
    entered = (each for each in triggers if each.on is TriggerKind.SEGMENT_ENTERED and each.name == str(segment_id))
    return next(entered, None) or _for_those_named(triggers)


def run_ended(ctx: Context, timer: TimerFact) -> None:
    """A run of a journey ended by itself: its lead comes into those that begin there."""
    ended = ctx.session.get(JourneyRun, (ctx.tenant_id, int(timer.key)))
    if ended is None or ended.ended_at is None:
        return
    chain = int((ended.snapshot.get("event") or {}).get("chain") or 0) + 1
    if chain > MOST_IN_CHAIN:
        log.warning("journey_chain_too_long", tenant_id=ctx.tenant_id, run_id=ended.id, chain=chain)
        return
    event = {
        "type": "journey_ended",
        "journey": str(ended.journey_id),
        "run": str(ended.id),
        "state": ended.state,
        "reason": ended.reason,
        "chain": chain,
    }
    for row in listening(ctx, Listens.EVENT, [ends_of(ended.journey_id)]):
        found = triggers_for(newest_version(ctx, row), TriggerKind.JOURNEY, str(ended.journey_id), event, ctx.now)
        trigger = next((each for each in found if ended.state in each.ended), None)
        if trigger is not None:
            arrive(ctx, row, ended.lead_id, Occasion(trigger, f"run:{ended.id}", event))


def segment_moved(ctx: Context, timer: TimerFact) -> None:
    """A lead entered or left a segment: it comes into journeys, and runs that read the segment are looked at."""
    change, segment, lead, _rest = timer.key.split(":", 3)
    kind, listens = _MOVES[change]
    for row in listening(ctx, listens, [segment]):
        trigger = next(triggers_for(newest_version(ctx, row), kind, segment, {}, ctx.now), None)
        if trigger is not None:
            arrive(ctx, row, int(lead), Occasion(trigger, timer.key))
    lead_moved(ctx, int(lead), listens, int(segment))


def score_crossed(ctx: Context, timer: TimerFact) -> None:
    """A score of a lead crossed a threshold: it comes into journeys."""
    said, zone = timer.payload, tenant_zone(ctx)
    moved = {"before": said["before"], "after": said["after"]}
    event = {"type": "score", "name": said["score"], "tracked_at": datetime.fromisoformat(said["at"])}
    event |= {"metadata": moved}
    for row in listening(ctx, Listens.EVENT, said["names"]):
        found = triggers_for(newest_version(ctx, row), TriggerKind.SCORE, said["score"], event, ctx.now, zone)
        trigger = next((each for each in found if each.crossing in said["names"]), None)
        if trigger is not None:
            arrive(ctx, row, said["lead"], Occasion(trigger, f"score:{timer.key}", event))


def event_due(ctx: Context, timer: TimerFact) -> None:
    """A lead did something: it comes into journeys, and its runs hear of it."""
    lead_id, name = int(timer.payload["lead"]), str(timer.payload["name"])
    at = datetime.fromisoformat(timer.payload["at"])
    zone, rows = tenant_zone(ctx), listening(ctx, Listens.EVENT, [name])
    for event in happened_at(ctx, lead_id, at, name):
        if event["verdict"] != HUMAN:
            continue
        ask_about_event(ctx, rows, lead_id, event, name)
        for row in rows:
            found = triggers_for(newest_version(ctx, row), TriggerKind.EVENT, name, event, ctx.now, zone)
            trigger = next(found, None)
            if trigger is not None:
                arrive(ctx, row, lead_id, Occasion(trigger, f"event:{event['id']}", event))
    event_happened(ctx, lead_id, at, name)


def _by_hand(ctx: Context, row: JourneyRow) -> Trigger:
    """The trigger of those whom somebody names."""
    if row.published is None:
        raise Conflict("The journey was never published: publish it first.", status=row.status)
    return _for_those_named(journey_version(ctx, row.id, row.published).entry.triggers)


def _for_those_named(triggers: Sequence[Trigger]) -> Trigger:
    found = next((each for each in triggers if each.on in (TriggerKind.API, TriggerKind.LIST)), None)
    if found is None:
        raise Conflict('Nobody may be named for this journey: give it a trigger {"on": "api"} and publish it again.')
    return found
