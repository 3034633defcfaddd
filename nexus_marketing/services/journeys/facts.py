"""What journeys know of a lead when they decide: its row, segments, what it did, scores and consent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, Final

from sqlalchemy import Row

from nexus_marketing.core.conditions.schema import Dependencies
from nexus_marketing.core.engine.journey_entry import columns_read
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.journeys import Journey
from nexus_marketing.core.journeys.nodes import Branch, Occasion, Rule
from nexus_marketing.db.ahead import Question, answers
from nexus_marketing.db.queries import journeys as queries
from nexus_marketing.db.queries.journey_dates import leads_locked
from nexus_marketing.db.queries.journey_steps import records_of, segments_of, tenant_settings
from nexus_marketing.db.types import read_json, read_moment
from nexus_marketing.runtime import Context

#: The newest of what a lead did; older events are not looked at.
_MOST: Final = 1_000
_EVENTS: Final = Dependencies(events=frozenset({""}))


def facts_of(ctx: Context, lead_id: int, journey: Journey) -> LeadFacts | None:
    """The lead as a journey's conditions see it; nothing of one that is gone."""
    return facts_of_all(ctx, [lead_id], journey).get(lead_id)


def facts_of_all(ctx: Context, lead_ids: Sequence[int], journey: Journey) -> dict[int, LeadFacts]:
    """The leads as a journey's conditions see them, by id; those that are gone are left out."""
    return facts_from(ctx, journey, answers(ctx.session, *facts_asked(ctx, lead_ids)))


def facts_asked(ctx: Context, lead_ids: Sequence[int]) -> list[Question]:
    """What is asked of leads whatever the journey; its answers are for :func:`facts_from`."""
    return [records_of(ctx.session, lead_ids), segments_of(ctx.session, lead_ids), tenant_settings()]


def facts_from(ctx: Context, journey: Journey, answered: Sequence[Sequence[Any]]) -> dict[int, LeadFacts]:
    """As :func:`facts_of_all`; what this journey reads besides is asked now."""
    found, memberships, (tenant,) = answered
    rules = list(_rules(journey))
    reads = reduce(or_, (each.reads for each in rules), Dependencies())
    if any(each.event for each in _occasions(journey)):
        reads |= _EVENTS
    records = {row.id: row._asdict() for row in found}
    _complete(ctx, records, memberships, reads)
    zone = _zone(tenant.settings)
    return {lead_id: LeadFacts(record, zone) for lead_id, record in records.items()}


def entry_asked(ctx: Context, lead_ids: Sequence[int], journey: Journey) -> list[Question]:
    """What is asked of leads that come into a journey, who are locked; its answers are for :func:`entry_facts`."""
    locked = leads_locked(ctx.session, lead_ids, columns_read(journey))
    reads = _entry_reads(journey)
    memberships = [segments_of(ctx.session, lead_ids)] if reads.segments or reads.conditions else []
    return [locked, tenant_settings(), *memberships]


def entry_facts(ctx: Context, journey: Journey, answered: Sequence[Sequence[Any]]) -> dict[int, LeadFacts]:
    """What the decision on an entry reads of leads, by id; those that are gone are left out."""
    found, (tenant,), *memberships = answered
    records = {row.id: row._asdict() for row in found}
    reads = _entry_reads(journey)
    if reads != Dependencies(fields=reads.fields, clock=reads.clock):
        _complete(ctx, records, memberships[0] if memberships else (), reads)
    zone = _zone(tenant.settings)
    return {lead_id: LeadFacts(record, zone) for lead_id, record in records.items()}


def _entry_reads(journey: Journey) -> Dependencies:
    """What the filter of a journey's entry reads."""
    return Dependencies() if journey.entry.filter is None else journey.entry.filter.reads


def _complete(
    ctx: Context, records: Mapping[int, dict[str, Any]], memberships: Iterable[Any], reads: Dependencies
) -> None:
    """Add to leads by their ids what is kept of them elsewhere, as far as it is read."""
    for record in records.values():
        record["segments"] = set()
    for row in memberships:
        if row.lead_id in records:
            records[row.lead_id]["segments"].add(row.segment_id)
    for lead_id, record in records.items():
        if reads.scores:
            record["scores"] = queries.score_values(ctx.session, lead_id)
        if reads.consents:
            record["consents"] = _consents(ctx, lead_id)
        if reads.events:
            newest = queries.newest_events(ctx.session, lead_id, _MOST)
            record["events"] = [event_of(row) for row in reversed(newest)]


def plain_facts(ctx: Context, asked: Question) -> dict[int, LeadFacts]:
    """Leads by their ids, with no more than a question brings of them."""
    found, (tenant,) = answers(ctx.session, asked, tenant_settings())
    zone = _zone(tenant.settings)
    return {row.id: LeadFacts(row._asdict(), zone) for row in found}


def happened_at(ctx: Context, lead_id: int, at: datetime, name: str) -> list[dict[str, Any]]:
    """What a lead did at a moment under a name."""
    events = [event_of(row) for row in queries.events_at(ctx.session, lead_id, at, _MOST)]
    return sorted((each for each in events if (each["name"] or each["type"]) == name), key=_id)


def tenant_zone(ctx: Context) -> str:
    """The time zone of those who have none of their own."""
    ((row,),) = answers(ctx.session, tenant_settings())
    return _zone(row.settings)


def _zone(settings: Mapping[str, Any] | None) -> str:
    return str((settings or {}).get("default_time_zone") or "UTC")


def reads_states(journey: Journey) -> bool:
    """Whether a change of the lead may move a run that waits."""
    return any(each.when is not None for each in journey.occasions()) or bool(journey.reads.fields)


def event_of(row: Row[Any]) -> dict[str, Any]:
    """An engagement as conditions carry it; one with a message of a journey tells of which run and node."""
    said = row.metadata
    about = dict(read_json(said) or {})
    if row.step:
        about |= {"run": str(row.occurrence // queries.VISITS), "node": row.step}
    return {
        "id": row.id,
        "type": row.type,
        "name": row.name,
        "verdict": row.verdict,
        "tracked_at": read_moment(row.tracked_at),
        "channel": row.channel,
        "campaign_id": row.campaign_id,
        "metadata": about,
    }


def _consents(ctx: Context, lead_id: int) -> Mapping[tuple[str, str], tuple[bool, datetime | None]]:
    """The newest act of each channel and type."""
    return {
        (row.channel, row.type): (
            row.granted_at is not None,
            None if row.expires_at is None else read_moment(row.expires_at),
        )
        for row in queries.consent_acts(ctx.session, lead_id)
    }


def _occasions(journey: Journey) -> Iterator[Occasion]:
    yield from journey.occasions()
    for node in journey.nodes.values():
        if isinstance(node, Branch):
            yield from (way.occasion for way in node.ways)


def _rules(journey: Journey) -> Iterable[Rule]:
    found = [each.when for each in _occasions(journey)] + [journey.entry.filter]
    return (each for each in found if each is not None)


def _id(event: Mapping[str, Any]) -> int:
    return int(event["id"])
