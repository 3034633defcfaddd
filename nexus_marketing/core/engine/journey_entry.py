"""Who comes into a journey: one decision for each occurrence of a trigger, with the reason of a refusal (BEHAVIOUR.md 5.1)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys.drafts import Draft
from nexus_marketing.core.journeys.draws import bucket
from nexus_marketing.core.journeys.model import ConcurrencyKind, Journey, Reentry, ReentryKind, Trigger, TriggerKind
from nexus_marketing.core.journeys.runs import HistoryLine, Run, RunDecision, RunState, Said
from nexus_marketing.core.pacing.zones import zone_named


class Refusal(StrEnum):
    """Why somebody does not come in."""

    CLOSED = "closed"
    DUPLICATE = "duplicate"
    FILTER = "filter"
    REENTRY = "reentry"
    TOO_SOON = "too_soon"
    COOLDOWN = "cooldown"
    KEY_MISSING = "key_missing"
    KEY_USED = "key_used"
    CONCURRENCY = "concurrency"
    CAP = "cap"
    HOLDOUT = "holdout"


class Arrival(NamedTuple):
    """A trigger occurred for a lead. ``run_id`` names the run if there is to be one."""

    run_id: str
    lead_id: str
    trigger: Trigger
    event: Mapping[str, Any] = {}


class Past(NamedTuple):
    """What is known of the lead in this journey, and of the journey itself.

    ``runs`` are the live ones, oldest first; ``entries`` counts all that ever were; ``keys`` are those used. ``recent`` are
    the entries of anybody within the time of the entry cap. ``is_seen``: this very occurrence was decided already.
    """

    runs: tuple[Run, ...] = ()
    entries: int = 0
    last_entered_at: datetime | None = None
    keys: frozenset[str] = frozenset()
    recent: int = 0
    is_seen: bool = False
    is_open: bool = True


class Admitted(NamedTuple):
    """Somebody comes in: the number of the run among the lead's in this journey, its key, and the runs that it replaces."""

    sequence: int
    key: str | None = None
    replaced: tuple[RunDecision, ...] = ()


@dataclass(frozen=True, slots=True)
class Entered:
    """A new run, its history, and those that it replaces."""

    run: Run
    history: tuple[HistoryLine, ...]
    replaced: tuple[RunDecision, ...] = ()


def columns_read(journey: Journey) -> frozenset[str] | None:
    """The columns of leads that :func:`admit` reads, beside their zones; nothing where it must be given all of them.

    That is where a plugin is asked: nobody knows what it looks at.
    """
    entry = journey.entry
    found = set(entry.key[:1] if entry.key else ())
    if entry.filter is not None:
        if entry.filter.reads.conditions:
            return None
        found |= {entry.filter.schema.resolve(name).path[0] for name in entry.filter.reads.fields}
    return frozenset(found)


def enter(journey: Journey, arrival: Arrival, facts: LeadFacts, past: Past, now: datetime) -> Entered | Refusal:
    """Decide on an arrival (:func:`admit`), and begin the run of whoever comes in; ``now`` is aware UTC."""
    found = admit(journey, arrival, facts, past, Evaluation(now, facts.tenant_zone))
    if isinstance(found, Refusal):
        return found
    run, line = begin(journey, arrival, found, now)
    return Entered(run, (line,), found.replaced)


def admit(journey: Journey, arrival: Arrival, facts: LeadFacts, past: Past, clock: Evaluation) -> Admitted | Refusal:
    """Decide on an arrival: open, new, filter, re-entry, concurrency, cap, holdout, in this order.

    Args:
        journey: its newest published version.
        arrival: who comes, and by which trigger.
        facts: of the lead.
        past: what was before.
        clock: the moment, and the tenant's zone; the same for all who come by one occasion.
    """
    if not past.is_open:
        return Refusal.CLOSED
    if past.is_seen:
        return Refusal.DUPLICATE
    entry, now = journey.entry, clock.now
    record = {**facts.record, "event": arrival.event} if arrival.event else facts.record
    if entry.filter is not None and not entry.filter.holds(record, clock):
        return Refusal.FILTER
    key = _key(journey, record)
    refused = _again(journey, key, facts, past, now) or _crowded(journey, past)
    if refused is None and entry.cap is not None and past.recent >= entry.cap[0]:
        refused = Refusal.CAP
    if refused is None and entry.holdout and _is_held_out(journey, arrival.lead_id):
        refused = Refusal.HOLDOUT
    if refused is not None:
        return refused
    replaced = past.runs if entry.concurrency.kind is ConcurrencyKind.RESTART else ()
    return Admitted(past.entries + 1, key, tuple(_restarted(each, now) for each in replaced))


def begin(journey: Journey, arrival: Arrival, admitted: Admitted, now: datetime) -> tuple[Run, HistoryLine]:
    """The run of somebody who came in, and the first line of its history.

    Runs that begin by one occasion at one moment differ in ``id``, ``lead_id``, ``sequence`` and ``key`` alone, and their
    lines in the ``sequence`` of ``detail``.
    """
    run = Run(
        arrival.run_id,
        journey.code,
        journey.digest,
        arrival.lead_id,
        now,
        arrival.trigger.start,
        sequence=admitted.sequence,
        key=admitted.key,
        event=arrival.event,
        wake_at=now,
    )
    detail = {"trigger": str(arrival.trigger.on), "sequence": run.sequence}
    return run, HistoryLine(now, Said.ENTERED, run.node, detail)


def _is_held_out(journey: Journey, lead_id: str) -> bool:
    return bucket(journey.salt, journey.code, "holdout", lead_id) < journey.entry.holdout


def triggers_for(
    journey: Journey, kind: TriggerKind, name: str, event: Mapping[str, Any], now: datetime, zone: str = "UTC"
) -> Iterator[Trigger]:
    """The triggers that something sets off; ``name`` is the segment, event, date field or journey."""
    for trigger in journey.entry.triggers:
        is_named = trigger.on is kind and trigger.name == name
        if is_named and (trigger.where is None or trigger.where.holds(event, Evaluation(now, zone))):
            yield trigger


def _key(journey: Journey, record: Mapping[str, object]) -> str | None:
    """What may start one run only; empty where the journey asks for it and there is none."""
    if journey.entry.key is None:
        return None
    value: object = record
    for name in journey.entry.key:
        value = value.get(name) if isinstance(value, Mapping) else None
    return str(value) if isinstance(value, (str, int, float)) else ""


def _again(journey: Journey, key: str | None, facts: LeadFacts, past: Past, now: datetime) -> Refusal | None:
    if key is not None:
        if not key:
            return Refusal.KEY_MISSING
        if key in past.keys:
            return Refusal.KEY_USED
    last, cooldown = past.last_entered_at, journey.entry.cooldown
    if last is not None and now - last < cooldown:
        return Refusal.COOLDOWN
    policy = journey.entry.reentry
    if not past.entries or policy.kind is ReentryKind.ALWAYS:
        return None
    if policy.kind is ReentryKind.NEVER:
        return Refusal.REENTRY
    if policy.kind is ReentryKind.AFTER_EXIT:
        return Refusal.REENTRY if past.runs else None
    return None if _is_long_ago(policy, facts, past.last_entered_at, now) else Refusal.TOO_SOON


def _is_long_ago(policy: Reentry, facts: LeadFacts, last: datetime | None, now: datetime) -> bool:
    if last is None:
        return True
    if not policy.calendar_days:
        return now - last >= policy.interval
    zone = zone_named(policy.zone) or facts.zone
    return (now.astimezone(zone).date() - last.astimezone(zone).date()).days >= policy.calendar_days


def _crowded(journey: Journey, past: Past) -> Refusal | None:
    policy = journey.entry.concurrency
    if policy.kind is ConcurrencyKind.RESTART or len(past.runs) < policy.most:
        return None
    return Refusal.CONCURRENCY


def _restarted(run: Run, now: datetime) -> RunDecision:
    """An older run ends in the transaction in which the new one begins."""
    draft = Draft(run, now)
    draft.end(RunState.EXITED, "restarted")
    return draft.decision()
