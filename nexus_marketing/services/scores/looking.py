"""What the scores of leads come to: what is stored of them, what they did, and what their rules make of it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, RowMapping

from nexus_marketing.core.scoring import (
    Contribution,
    EventFact,
    Known,
    Mark,
    Touch,
    Update,
    update,
)
from nexus_marketing.core.scoring.folding import MAX_CONTRIBUTIONS
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.runtime import Context
from nexus_marketing.services.leads.lookup import current_ids
from nexus_marketing.services.scores.sheets import Sheet

#: The widest span: whatever a lead did.
EVER: Final = (datetime.fromisoformat("0001-01-02T00:00:00+00:00"), datetime.fromisoformat("9999-12-30T00:00:00+00:00"))


@dataclass(frozen=True, slots=True)
class Change:
    """A score of a lead as it was and as it is to be stored."""

    sheet: Sheet
    lead_id: int
    known: Known
    update: Update
    is_stored: bool

    @property
    def is_other(self) -> bool:
        """Whether another number is shown."""
        return self.update.value != self.update.before

    @property
    def needs_writing(self) -> bool:
        """Whether anything is to be stored; a score of nothing that nothing will change is not."""
        new = self.update
        if not self.is_stored:
            return bool(new.appended or new.value or new.next_change_at or any(m.above for m in new.marks.values()))
        return bool(new.appended) or self.is_other or new.marks != self.known.marks or self.is_late

    @property
    def is_late(self) -> bool:
        """Whether what is stored speaks of another version or another moment to look again."""
        return self.known.version != self.sheet.number or self.update.next_change_at != self.known.next_change_at

    @property
    def sooner(self) -> datetime | None:
        """When to look at it again, where no timer is set for it that early already."""
        old, new = self.known.next_change_at, self.update.next_change_at
        return new if old is None or (new is not None and new < old) else None


@dataclass(slots=True)
class Batch:
    """Leads to look at, each with spans of time in which it did something nobody has looked at."""

    leads: set[int] = field(default_factory=set)
    spans: dict[int, list[tuple[datetime, datetime]]] = field(default_factory=lambda: defaultdict(list))


def look_at(ctx: Context, sheets: Sequence[Sheet], records: Sequence[RowMapping], batch: Batch) -> list[Change]:
    """What the scores of these leads come to, without storing it."""
    ids = [record["id"] for record in records]
    known, engagements = _Stored.read(ctx, sheets, ids, _spans_of(batch))
    done = _events(ctx, engagements, batch, ids)
    history = _history(ctx, sheets, records, known, batch)
    found = []
    for record in records:
        lead_id, readable = record["id"], as_read(record)
        for sheet in sheets:
            stored = known.of(sheet, lead_id)
            is_behind = stored.version < sheet.number and _is_older(record, sheet)
            touch = Touch(
                lead_id,
                readable,
                done[lead_id],
                history[lead_id] if is_behind else (),
                record["score"] if sheet.is_own else None,
                ctx.runtime.rng.getrandbits(52),
                is_behind and not sheet.fire_on_recompute,
            )
            result = update(sheet.scorer, stored, touch, sheet.number, ctx.now)
            found.append(Change(sheet, lead_id, stored, result, known.has(sheet, lead_id)))
    return found


def known_of(ctx: Context, sheet: Sheet, lead_id: int) -> tuple[Known, bool]:
    """What is stored of a lead's score, and whether there is a row of it."""
    stored, _ = _Stored.read(ctx, [sheet], [lead_id])
    return stored.of(sheet, lead_id), stored.has(sheet, lead_id)


@dataclass(slots=True)
class _Stored:
    """What is stored of leads' scores."""

    values: dict[tuple[int, int], Row[Any]]
    contributions: dict[tuple[int, int], list[Contribution]]

    @classmethod
    def read(
        cls, ctx: Context, sheets: Sequence[Sheet], lead_ids: Collection[int], spans: Sequence[Mapping[str, Any]] = ()
    ) -> tuple["_Stored", list[Any]]:
        """Of these scores and leads, and the engagements in spans of time that their rules ask about: one wait."""
        session = ctx.session
        keys = [key for sheet in sheets for key in sheet.rule_keys()]
        events = {event for sheet in sheets for event in sheet.scorer.rules.events}
        asked = [
            queries.values_of(session, lead_ids, [sheet.score_id for sheet in sheets]),
            queries.contributions_of(session, lead_ids, keys, MAX_CONTRIBUTIONS),
        ]
        if spans and events:
            asked.append(queries.engagements_of(session, spans, events, MAX_CONTRIBUTIONS))
        values, points, *engagements = answers(session, *asked)
        contributions: dict[tuple[int, int], list[Contribution]] = defaultdict(list)
        for row in points:
            contributions[(row.score_id, row.lead_id)].append(_contribution(row))
        found = cls({(row.score_id, row.lead_id): row for row in values}, contributions)
        return found, engagements[0] if engagements else []

    def has(self, sheet: Sheet, lead_id: int) -> bool:
        return (sheet.score_id, lead_id) in self.values

    def of(self, sheet: Sheet, lead_id: int) -> Known:
        contributions = self.contributions.get((sheet.score_id, lead_id), [])
        row = self.values.get((sheet.score_id, lead_id))
        if row is None:
            return Known(contributions=contributions)
        marks = {key: Mark.of(kept) for key, kept in row.marks.items()}
        return Known(row.value, row.version, marks, contributions, row.next_change_at)


def _spans_of(batch: Batch) -> list[dict[str, Any]]:
    return [queries.span(lead_id, *each) for lead_id, given in batch.spans.items() for each in sorted(set(given))]


def _events(
    ctx: Context, rows: Iterable[Row[Any]], batch: Batch, lead_ids: Collection[int]
) -> dict[int, list[EventFact]]:
    """What leads did in spans of time, in order; of leads that were merged under the one they are now."""
    found: dict[int, dict[int, EventFact]] = defaultdict(dict)
    strangers = {lead_id for lead_id, given in batch.spans.items() if given}.difference(lead_ids)
    merged = current_ids(ctx, strangers) if strangers else {}
    for row in rows:
        found[merged.get(row.lead_id, row.lead_id)][row.id] = _fact(row)
    return defaultdict(list, {lead_id: _in_order(facts.values()) for lead_id, facts in found.items()})


def _history(
    ctx: Context, sheets: Sequence[Sheet], records: Sequence[RowMapping], known: _Stored, batch: Batch
) -> dict[int, list[EventFact]]:
    """What leads did that rules have not looked at, because they are newer; without what waits for its own turn."""
    events: set[str] = set()
    behind: set[int] = set()
    for record in records:
        for sheet in sheets:
            version = known.of(sheet, record["id"]).version
            if version < sheet.number and _is_older(record, sheet):
                events |= sheet.scorer.events_since(version)
                behind.add(record["id"])
    found: dict[int, list[EventFact]] = defaultdict(list)
    if not events:
        return found
    spans = [queries.span(lead_id, *EVER) for lead_id in sorted(behind)]
    asked = queries.engagements_of(ctx.session, spans, events, MAX_CONTRIBUTIONS, only_human=True)
    rows = answers(ctx.session, asked)[0]
    if not rows:
        return found
    # Asked after the engagements: what they show of a transaction, the marks show too.
    waiting = {lead_id: list(given) for lead_id, given in batch.spans.items()}
    for mark in queries.marks_of(ctx.session, behind):
        waiting.setdefault(mark.lead_id, []).append((mark.since, mark.until))
    for row in rows:
        if not any(since <= row.tracked_at <= until for since, until in waiting.get(row.lead_id, ())):
            found[row.lead_id].append(_fact(row))
    return defaultdict(list, {lead_id: _in_order(facts) for lead_id, facts in found.items()})


def _is_older(record: RowMapping, sheet: Sheet) -> bool:
    """Whether a lead was there before the rules were: only then it has a past that they have not seen."""
    return sheet.published_at is not None and record["created_at"] <= sheet.published_at


def _in_order(facts: Iterable[EventFact]) -> list[EventFact]:
    return sorted(facts, key=lambda fact: (fact.at, fact.id))


def _fact(row: Row[Any]) -> EventFact:
    return EventFact(
        row.id,
        row.tracked_at,
        row.type,
        row.name,
        row.verdict,
        row.metadata or {},
        row.channel,
        row.campaign_id,
        row.link,
    )


def _contribution(row: Row[Any]) -> Contribution:
    key = (row.rule, row.version, row.cause, row.turn)
    return Contribution(row.kind, *key, row.points, row.at, row.actor, row.reason)


def as_read(record: RowMapping) -> dict[str, Any]:
    """A lead as conditions read it: moments as canonical text."""
    return {name: canonical_datetime(value) if isinstance(value, datetime) else value for name, value in record.items()}
