"""Engagements that programs report: a batch is validated row by row and written as one (US-016, FR-P2-007).

Whoever writes engagements, here and elsewhere, goes through :func:`write_engagements`, so that counters,
and everything that waits for people to do something, hear of each of them in the same transaction.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from sqlalchemy.orm import Session

from nexus_marketing.core.engagements import Verdict, read_event
from nexus_marketing.core.engagements.reported import (
    OLDEST,
    ReportedEvent,
    event_ids_of,
    ids_named,
    receipt_days,
)
from nexus_marketing.core.errors import NexusError, Problem
from nexus_marketing.core.events import EngagementsTracked
from nexus_marketing.db.ahead import sent_ahead
from nexus_marketing.db.queries.event_batches import (
    Later,
    append_deltas,
    claim_event_ids,
    forget_event_days,
    insert_engagements,
    known_campaigns,
    leads_by,
    living_leads,
    release_event_ids,
)
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.journeys.hearing import ask_listened, hear_events
from nexus_marketing.services.scores.marks import ask_rules, mark_engaged
from nexus_marketing.services.segments.marks import mark_leads

#: Rows of one call, which is one transaction; longer input is taken in by several.
MAX_BATCH = 1000
#: From so many rows on, half of them are written while the others are read.
_LARGE = 100
Answer = dict[str, Any]

_ACCEPTED: Answer = {"status": "accepted"}
_CAMPAIGN = "campaign_id"
_NOT_FOUND = dict.fromkeys(("lead_id", "external_id", "email"), "There is no such lead.") | {
    _CAMPAIGN: "There is no such campaign."
}
_LOOK_UPS: dict[str, Callable[[Session, Collection[Any]], Later[dict[Any, int]]]] = {
    "lead_id": living_leads,
    "external_id": partial(leads_by, "external_id"),
    "email": partial(leads_by, "email_norm"),
    _CAMPAIGN: known_campaigns,
}


@dataclass(frozen=True, slots=True)
class Touched:
    """What a batch was about: leads, and names of events (a custom event's own, else its type)."""

    lead_ids: frozenset[int]
    names: frozenset[str]


class Judged(NamedTuple):
    """A verdict that was found elsewhere than in the row, and what it was found by."""

    verdict: Verdict
    machine_hint: str | None


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
    batch = _Batch(ctx, rows, judged)
    id_ = _write(ctx, batch.pieces(), also=partial(_record, ctx))
    if id_ is not None and len(rows) == 1:
        batch.answers[0] = {"status": "accepted", "id": str(id_)}
    return batch.answers


def write_engagements(ctx: Context, rows: list[dict[str, Any]], *, recipients: int = 0) -> int | None:
    """Write engagements with their counters and tell what they touch; answers the id of a single one.

    Args:
        rows: values by column; ``tracked_at`` is canonical text.
        recipients: how many recipients of messages each row is the first of its type of.
    """
    return _write(ctx, [rows] if rows else [], recipients=recipients)


def _write(
    ctx: Context,
    pieces: Iterable[list[dict[str, Any]]],
    *,
    recipients: int = 0,
    also: Callable[[list[dict[str, Any]]], None] | None = None,
) -> int | None:
    """Write pieces, none of them empty, as they come: each is on its way while the next is made.

    ``also`` writes something else together with all rows, and wants no answer to it.
    """
    rows: list[dict[str, Any]] = []
    ids = []
    with sent_ahead(ctx.session):
        for piece in pieces:
            ids.append(insert_engagements(ctx.session, piece))
            rows += piece
        if not rows:
            return None
        append_deltas(ctx.session, _counted(rows, recipients))
        touched = touched_by(rows)
        mark_leads(ctx, sorted(touched.lead_ids), [f"event:{name}" for name in touched.names])
        if also is not None:
            also(rows)
        ask_rules(ctx)
        listened = ask_listened(ctx)
    mark_engaged(ctx, rows)
    hear_events(ctx, rows, listened())
    ctx.emit(EngagementsTracked(ctx.tenant_id, ctx.now, touched.lead_ids, touched.names))
    return ids[0]() if len(ids) == 1 else None


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


class _Known:
    """What names of leads and campaigns stand for, by the kind of name; ``None`` where there is no such thing."""

    def __init__(self) -> None:
        self.found: dict[str, dict[Any, int | None]] = {kind: {} for kind in _LOOK_UPS}

    def ask(self, session: Session, kind: str, names: set[Any]) -> Callable[[], None]:
        """Look up those that nobody has looked up; what is answered takes the answer in (``db.ahead.ask``)."""
        missing = names.difference(self.found[kind])
        found = _LOOK_UPS[kind](session, missing)

        def take_in() -> None:
            there = found()
            self.found[kind].update((name, there.get(name)) for name in missing)

        return take_in

    def ask_all(self, session: Session, events: Iterable[ReportedEvent]) -> None:
        """Look up whatever events name: a statement for each kind of name, with one wait for them."""
        named: dict[str, set[Any]] = {kind: set() for kind in _LOOK_UPS}
        for event in events:
            kind, name = event.lead
            named[kind].add(name)
            if event.campaign_id is not None:
                named[_CAMPAIGN].add(event.campaign_id)
        if all(names <= self.found[kind].keys() for kind, names in named.items()):
            return
        with sent_ahead(session):
            asked = [self.ask(session, kind, names) for kind, names in named.items()]
        for take_in in asked:
            take_in()


class _Batch:
    """A batch on its way, with an answer per row.

    The database claims the event ids of all rows and looks up what they name while the first of them are read, and
    writes those while the others are read.
    """

    def __init__(self, ctx: Context, rows: Sequence[Any], judged: Sequence[Judged]) -> None:
        self._ctx, self._rows, self._judged = ctx, rows, judged
        self._known = _Known()
        self._new: set[str] = set()
        self.answers: list[Answer] = [_ACCEPTED] * len(rows)

    def pieces(self) -> Iterator[list[dict[str, Any]]]:
        """What is to be written, inside ``sent_ahead``; event ids of what is not are given back."""
        rows, session, days = self._rows, self._ctx.session, receipt_days(self._ctx.now)
        first = len(rows) // 2 if len(rows) >= _LARGE else len(rows)
        new = claim_event_ids(session, event_ids_of(rows), days)
        asked = [self._known.ask(session, kind, ids_named(rows, kind)) for kind in ("lead_id", _CAMPAIGN)]
        read = self._read(range(first))
        self._new = new()
        for take_in in asked:
            take_in()
        if piece := self._settled(read):
            yield piece
        if piece := self._settled(self._read(range(first, len(rows)))):
            yield piece
        release_event_ids(session, self._new, days)

    def _read(self, numbers: range) -> dict[int, ReportedEvent]:
        now, rows = self._ctx.now, self._rows
        events = {}
        for number in numbers:
            try:
                events[number] = read_event(rows[number], now)
            except NexusError as error:
                self._reject(number, error.problems)
        return events

    def _settled(self, events: dict[int, ReportedEvent]) -> list[dict[str, Any]]:
        """What is to be written of them: not what refers to nothing of this tenant, nor what was taken in before.

        That was in an earlier batch, or an earlier row of this one.
        """
        self._known.ask_all(self._ctx.session, events.values())
        known, new = self._known.found, self._new
        campaigns = known[_CAMPAIGN]
        found = []
        for number, event in events.items():
            kind, name = event.lead
            lead_id, campaign_id, event_id = known[kind][name], event.campaign_id, event.event_id
            is_lost = campaign_id is not None and campaigns[campaign_id] is None
            if lead_id is None or is_lost:
                self._reject(number, _not_found(kind if lead_id is None else None, _CAMPAIGN if is_lost else None))
                continue
            if event_id is not None:
                if event_id not in new:
                    self.answers[number] = {"status": "duplicate", "event_id": event_id}
                    continue
                new.discard(event_id)
            event.values["lead_id"] = lead_id
            event.values["campaign_id"] = campaign_id
            if self._judged:
                event.values.update(self._judged[number]._asdict())
            found.append(event.values)
        return found

    def _reject(self, number: int, problems: Iterable[Problem]) -> None:
        listed = [{"path": each.path, "code": each.code, "message": each.message} for each in problems]
        self.answers[number] = {"status": "rejected", "errors": listed}


def _not_found(*fields: str | None) -> list[Problem]:
    return [Problem(each, "not_found", _NOT_FOUND[each]) for each in fields if each is not None]


def _record(ctx: Context, rows: Sequence[dict[str, Any]]) -> None:
    lines = [(row["type"], row["lead_id"], row["tracked_at"]) for row in rows]
    manifest = sha256(orjson.dumps(lines)).digest()
    record_bulk(ctx, "engagements.recorded", "engagement", "batch", len(rows), manifest)
