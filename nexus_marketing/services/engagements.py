"""Engagements that programs report: a batch is validated row by row and written as one (US-016, FR-P2-007).

Whoever writes engagements, here and elsewhere, goes through :func:`write_engagements`, so that counters,
and everything that waits for people to do something, hear of each of them in the same transaction.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from nexus_marketing.core.engagements import Verdict, read_event
from nexus_marketing.core.engagements.reported import OLDEST, ReportedEvent, event_id_of, receipt_days
from nexus_marketing.core.errors import NexusError, Problem
from nexus_marketing.core.events import EngagementsTracked
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.queries.event_batches import (
    append_deltas,
    claiming_event_ids,
    forget_event_days,
    insert_engagement,
    insert_engagements,
    known_campaigns,
    leads_by,
    living_leads,
    release_event_ids,
)
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.journey_hearing import hear_events
from nexus_marketing.services.score_marks import mark_engaged
from nexus_marketing.services.segment_marks import mark_leads

#: Rows of one call, which is one transaction; longer input is taken in by several.
MAX_BATCH = 1000
#: From so many rows on, the database claims event ids while they are read.
_LARGE = 100
Answer = dict[str, Any]

_ACCEPTED: Answer = {"status": "accepted"}


@dataclass(frozen=True, slots=True)
class Touched:
    """What a batch was about: leads, and names of events (a custom event's own, else its type)."""

    lead_ids: frozenset[int]
    names: frozenset[str]


class Judged(NamedTuple):
    """A verdict that was found elsewhere than in the row, and what it was found by."""

    verdict: Verdict
    machine_hint: str | None


@dataclass(slots=True)
class _Batch:
    """A batch on its way: an answer per row, and the rows that are still in the running."""

    answers: list[Answer]
    events: dict[int, ReportedEvent] = field(default_factory=dict)

    def event_ids(self) -> set[str]:
        """Of the rows that are in the running."""
        return {event.event_id for event in self.events.values() if event.event_id is not None}

    def reject(self, number: int, problems: Iterable[Problem]) -> None:
        self.events.pop(number, None)
        listed = [{"path": each.path, "code": each.code, "message": each.message} for each in problems]
        self.answers[number] = {"status": "rejected", "errors": listed}


def touched_by(rows: Iterable[dict[str, Any]]) -> Touched:
    """Which leads and event names the written rows touch: what segments, scores and triggers ask about."""
    named = {(row["lead_id"], row.get("name") or row["type"]) for row in rows}
    return Touched(frozenset(lead_id for lead_id, _ in named), frozenset(str(name) for _, name in named))


def record_engagements(ctx: Context, rows: Sequence[Any], judged: Sequence[Judged] = ()) -> list[Answer]:
    """Take in reported events; each row is accepted, a duplicate or rejected on its own.

    Args:
        rows: at most ``MAX_BATCH``, each as ``core.engagements.EVENT_SCHEMA`` says.
        judged: a verdict per row, where rows come from strangers.

    Returns:
        Per row ``status`` (``accepted``, ``duplicate``, ``rejected``), and ``errors`` of a rejected one. A
        single row that is accepted has its ``id``.
    """
    batch = _Batch([_ACCEPTED] * len(rows))
    if len(rows) < _LARGE:
        _read(ctx, batch, rows)
        _resolve(ctx, batch)
        new = _claimed(ctx, batch.event_ids())
    else:
        new = _read_claiming(ctx, batch, rows)
    _leave_out_known(batch, new)
    for number, event in batch.events.items():
        if judged:
            event.values.update(judged[number]._asdict())
    if batch.events:
        written = [event.values for event in batch.events.values()]
        id_ = write_engagements(ctx, written, also=partial(_record, ctx, written))
        if len(rows) == 1:
            batch.answers[0] = {"status": "accepted", "id": str(id_)}
    return batch.answers


def write_engagements(
    ctx: Context, rows: list[dict[str, Any]], *, recipients: int = 0, also: Callable[[], None] | None = None
) -> int | None:
    """Write engagements with their counters and tell what they touch; answers the id of a single one.

    Args:
        rows: values by column; ``tracked_at`` is canonical text.
        recipients: how many recipients of messages each row is the first of its type of.
        also: writes something else together with them, and wants no answer to it.
    """
    if not rows:
        return None
    id_ = insert_engagement(ctx.session, rows[0]) if len(rows) == 1 else None
    with sent_ahead(ctx.session):
        if len(rows) > 1:
            insert_engagements(ctx.session, rows)
        append_deltas(ctx.session, _counted(rows, recipients))
        touched = touched_by(rows)
        mark_leads(ctx, sorted(touched.lead_ids), [f"event:{name}" for name in touched.names])
        if also is not None:
            also()
    mark_engaged(ctx, rows)
    hear_events(ctx, rows)
    ctx.emit(EngagementsTracked(ctx.tenant_id, ctx.now, touched.lead_ids, touched.names))
    return id_


def _counted(rows: Iterable[dict[str, Any]], recipients: int) -> list[dict[str, Any]]:
    """What the rows change of counters."""
    counted = Counter(
        (row.get("campaign_id") or 0, row["tracked_at"][:10], row["type"], row["verdict"]) for row in rows
    )
    return [
        {
            "campaign_id": campaign,
            "day": day,
            "type": type_,
            "verdict": verdict,
            "hits": hits,
            "recipients": hits * recipients,
        }
        for (campaign, day, type_, verdict), hits in sorted(counted.items())
    ]


def forget_event_ids(runtime: Runtime) -> None:
    """Let go of event ids that are too old for a repeat to be accepted."""
    before = (runtime.clock.now() - OLDEST).date() - timedelta(days=1)
    gone = 1
    while gone:
        with open_session(runtime.engines.worker, tenant_id=None) as session, session.begin():
            gone = forget_event_days(session, before)


def _read(ctx: Context, batch: _Batch, rows: Sequence[Any]) -> None:
    now = ctx.now
    for number, row in enumerate(rows):
        try:
            batch.events[number] = read_event(row, now)
        except NexusError as error:
            batch.reject(number, error.problems)


def _resolve(ctx: Context, batch: _Batch) -> None:
    """Put lead ids in, and reject what refers to nothing of this tenant: a look-up per kind of name."""
    given: dict[str, set[Any]] = {"lead_id": set(), "external_id": set(), "email": set()}
    for event in batch.events.values():
        kind, name = event.lead
        given[kind].add(name)
    asked = {event.campaign_id for event in batch.events.values() if event.campaign_id is not None}
    leads: dict[str, dict[Any, int]] = {
        "lead_id": living_leads(ctx.session, given["lead_id"]),
        "external_id": leads_by(ctx.session, "external_id", given["external_id"]),
        "email": leads_by(ctx.session, "email_norm", given["email"]),
    }
    campaigns: set[int | None] = {None, *known_campaigns(ctx.session, asked)}
    for number, event in list(batch.events.items()):
        kind, name = event.lead
        lead_id = leads[kind].get(name)
        if lead_id is not None and event.campaign_id in campaigns:
            event.values["lead_id"] = lead_id
            event.values["campaign_id"] = event.campaign_id
            continue
        problems = [] if lead_id is not None else [Problem(kind, "not_found", "There is no such lead.")]
        if event.campaign_id not in campaigns:
            problems.append(Problem("campaign_id", "not_found", "There is no such campaign."))
        batch.reject(number, problems)


def _read_claiming(ctx: Context, batch: _Batch, rows: Sequence[Any]) -> set[str]:
    """The same of many rows, which are read while the database claims their event ids; answers those that are new.

    Ids of rows that turn out to be rejected are given back.
    """
    days = receipt_days(ctx.now)
    given = {id_ for id_ in map(event_id_of, rows) if id_ is not None}
    with claiming_event_ids(ctx.session, given, days) as new:
        _read(ctx, batch, rows)
    _resolve(ctx, batch)
    found = new()
    release_event_ids(ctx.session, found.difference(batch.event_ids()), days)
    return found


def _claimed(ctx: Context, event_ids: Collection[str]) -> set[str]:
    with claiming_event_ids(ctx.session, event_ids, receipt_days(ctx.now)) as new:
        pass
    return new()


def _leave_out_known(batch: _Batch, new: set[str]) -> None:
    """Leave out what was taken in before, by an earlier batch or by an earlier row of this one."""
    for number, event in list(batch.events.items()):
        id_ = event.event_id
        if id_ is None:
            continue
        if id_ in new:
            new.discard(id_)
            continue
        del batch.events[number]
        batch.answers[number] = {"status": "duplicate", "event_id": id_}


def _record(ctx: Context, rows: Sequence[dict[str, Any]]) -> None:
    lines = [(row["type"], row["lead_id"], row["tracked_at"]) for row in rows]
    manifest = sha256(orjson.dumps(lines)).digest()
    record_bulk(ctx, "engagements.recorded", "engagement", "batch", len(rows), manifest)
