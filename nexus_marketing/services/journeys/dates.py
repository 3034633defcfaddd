"""Leads whom a date or the clock brings into journeys: one timer for each lead's next date, one for each schedule.

A timer says only when to look: what is due is worked out again from what the lead is then, so that a date that moved, a
lead who moved, and a version that came meanwhile all count.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys import Journey, TriggerKind
from nexus_marketing.core.journeys.anniversaries import NextDate, next_occurrence
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.statuses import JourneyStatus, Listens
from nexus_marketing.core.pacing.recurrence import read_recurrence
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.models import JourneyListener
from nexus_marketing.db.queries.journey_dates import forget_dates, leads_after, leads_named
from nexus_marketing.db.queries.journeys import DATES
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.arrivals import Occasion, arrive
from nexus_marketing.services.journeys.entries import begin_round
from nexus_marketing.services.journeys.facts import plain_facts, tenant_zone
from nexus_marketing.services.journeys.plugins import ask_in_round
from nexus_marketing.services.journeys.rows import journey_version
from nexus_marketing.services.timers import cancel_timer, set_timer, set_timers

#: The next date of a lead in a journey, looking for the dates of all leads, and the next round of a schedule.
DATE_DUE: Final = "journey.date"
DATES_DUE: Final = "journey.dates"
SCHEDULE_DUE: Final = "journey.schedule"
#: Leads of one transaction: a timer is all that is written for each.
PIECE: Final = 1_000
#: So many are written by a statement: PostgreSQL works on it while the next ones are looked at.
_AT_ONCE: Final = 250


def begin_waiting(ctx: Context, row: JourneyRow, journey: Journey) -> None:
    """Wait for what the newly published version is brought in by; what the one before waited for is let go."""
    if _dated(journey):
        set_timer(ctx, DATES_DUE, str(row.id), ctx.now, {"after": 0})
    for number, trigger in enumerate(journey.entry.triggers):
        cancel_timer(ctx, SCHEDULE_DUE, f"{row.id}:{number}")
        if trigger.recurrence is not None:
            _wait_for_round(ctx, row.id, number, trigger, (ctx.now, 0))


def dates_due(ctx: Context, timer: TimerFact) -> None:
    """Look for the next dates of some leads of a journey that was published."""
    row = ctx.session.get(JourneyRow, (ctx.tenant_id, int(timer.key)))
    if row is None or row.published is None or row.status == JourneyStatus.STOPPED:
        return
    triggers = _dated(journey_version(ctx, row.id, row.published))
    found = plain_facts(ctx, leads_after(int(timer.payload["after"]), PIECE, _names(triggers)))
    with sent_ahead(ctx.session):
        _wait_for_dates(ctx, row.id, triggers, found, ctx.now)
        if len(found) == PIECE:
            set_timer(ctx, DATES_DUE, timer.key, ctx.now, {"after": max(found)})


def redate(ctx: Context, timer: TimerFact) -> None:
    """A lead came or changed: its next dates may be others."""
    ids = select(JourneyListener.journey_id).where(
        JourneyListener.kind == Listens.CHANGE, JourneyListener.name == DATES
    )
    for row in ctx.session.scalars(select(JourneyRow).where(JourneyRow.id.in_(ids)).order_by(JourneyRow.id)):
        if row.published is not None:
            triggers = _dated(journey_version(ctx, row.id, row.published))
            _wait_for_dates(ctx, row.id, triggers, _facts(ctx, triggers, int(timer.key)), ctx.now)


def date_due(ctx: Context, timer: TimerFact) -> None:
    """The date of a lead has come, unless it moved meanwhile: then the next one is waited for."""
    journey_id, lead_id = map(int, timer.key.split(":"))
    row = ctx.session.get(JourneyRow, (ctx.tenant_id, journey_id))
    if row is None or row.published is None or row.status == JourneyStatus.STOPPED:
        return
    triggers = _dated(journey_version(ctx, row.id, row.published))
    after = datetime.fromisoformat(timer.payload["after"])
    known = _facts(ctx, triggers, lead_id)
    for facts in known.values():
        if facts is None:
            continue
        for trigger in triggers:
            found = next_occurrence(trigger, facts.record, facts.zone, after)
            if found is not None and found.at <= ctx.now:
                arrive(ctx, row, lead_id, Occasion(trigger, found.name(trigger), found.event(trigger)))
    _wait_for_dates(ctx, row.id, triggers, known, ctx.now)


def schedule_due(ctx: Context, timer: TimerFact) -> None:
    """A round of a schedule: the segment's members come in, or a plugin says who does, unless it could not begin in time.

    What is later than the grace is missed, as launches are; the audit says so, and the next round is waited for.
    """
    journey_id, number = map(int, timer.key.split(":"))
    row = ctx.session.get(JourneyRow, (ctx.tenant_id, journey_id))
    if row is None or row.published is None or row.status == JourneyStatus.STOPPED:
        return
    triggers = journey_version(ctx, row.id, row.published).entry.triggers
    trigger = triggers[number] if number < len(triggers) else None
    if trigger is None or trigger.recurrence is None:
        return
    planned, runs = datetime.fromisoformat(timer.payload["planned"]), int(timer.payload["runs"])
    if ctx.now - planned > ctx.runtime.settings.grace:
        record(ctx, "journey.round_missed", "journey", row.id, {"planned": (None, canonical_datetime(planned))})
    elif row.status == JourneyStatus.PUBLISHED:
        begin = begin_round if trigger.on is TriggerKind.SCHEDULE else ask_in_round
        begin(ctx, row, number, trigger, planned)
    _wait_for_round(ctx, row.id, number, trigger, (max(planned, ctx.now), runs + 1))


def _wait_for_round(ctx: Context, journey_id: int, number: int, trigger: Trigger, after: tuple[datetime, int]) -> None:
    moment, runs = after
    at = read_recurrence(trigger.recurrence or {}, tenant_zone(ctx)).next_after(moment, runs)
    if at is not None:
        payload = {"planned": at.isoformat(), "runs": runs}
        set_timer(ctx, SCHEDULE_DUE, f"{journey_id}:{number}", at, payload)


def _wait_for_dates(
    ctx: Context,
    journey_id: int,
    triggers: Sequence[Trigger],
    leads: Mapping[int, LeadFacts | None],
    after: datetime,
) -> None:
    """A timer for the next date of each of the leads; none for who has no date, or is gone. May be sent ahead."""
    none, payload = [], {"after": after.isoformat()}
    coming = [NextDate(each, after) for each in triggers]
    in_order = sorted(leads)  # locked in one order, whoever else writes the same
    for first in range(0, len(in_order), _AT_ONCE):
        timers = []
        for lead_id in in_order[first : first + _AT_ONCE]:
            facts = leads[lead_id]
            if dates := [] if facts is None else _dates_of(facts, coming):
                timers.append((f"{journey_id}:{lead_id}", min(dates), payload))
            else:
                none.append(lead_id)
        set_timers(ctx, DATE_DUE, timers)
    if none:
        forget_dates(ctx.session, DATE_DUE, journey_id, none)


def _dates_of(facts: LeadFacts, coming: Sequence[NextDate]) -> list[datetime]:
    record, zone = facts.record, facts.zone
    return [found.at for each in coming if (found := each.of(record, zone)) is not None]


def _facts(ctx: Context, triggers: Iterable[Trigger], lead_id: int) -> Mapping[int, LeadFacts | None]:
    """A lead, or nothing where it is gone."""
    return {lead_id: None, **plain_facts(ctx, leads_named(ctx.session, [lead_id], _names(triggers)))}


def _names(triggers: Iterable[Trigger]) -> set[str]:
    """The columns of leads that dates are kept in."""
    return {trigger.path[0] for trigger in triggers}


def _dated(journey: Journey) -> list[Trigger]:
    return [each for each in journey.entry.triggers if each.on is TriggerKind.DATE]
