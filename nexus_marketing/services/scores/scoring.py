"""Scores brought up to date: batches of leads, each in one transaction with few statements (BEHAVIOUR.md 5.4).

A lead's row is locked while its scores are computed, so that everything about them happens one after the other.
What made them, what they are now and the thresholds they crossed are written together; a worker that dies leaves
nothing half done, and the mark that called it stays for the next.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, Final

import orjson
from sqlalchemy import Row, RowMapping

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import Vocabulary
from nexus_marketing.core.events import LeadScored, ScoreThresholdCrossed
from nexus_marketing.core.journeys.crossings import ScoreMove
from nexus_marketing.core.scoring import (
    DEFAULT_SCORE,
    Contribution,
    EventFact,
    Known,
    Mark,
    RuleSet,
    Scorer,
    Touch,
    Update,
    parse_rule_set,
    update,
)
from nexus_marketing.core.scoring.folding import MAX_CONTRIBUTIONS
from nexus_marketing.core.scoring.thresholds import Crossing
from nexus_marketing.core.segments import names_changed, score_name
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.ahead import answers, sent_ahead
from nexus_marketing.db.queries import scoring as queries
from nexus_marketing.db.queries.locks import try_alone
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.campaigns.listening import hear_scores
from nexus_marketing.services.journeys.hearing import hear_crossings
from nexus_marketing.services.leads.lookup import current_ids
from nexus_marketing.services.plugins.conditions import conditions_of
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.timers import set_timer

#: One worker at a time looks at a tenant's scores.
WORK: Final = "scoring"
#: The timer that looks at scores which time has changed: one of each tenant.
TIMER: Final = "scores.due"
#: Marks, and leads, of one transaction (DATABASE.md: what SQLite's one writer may keep others waiting for).
BATCH: Final = 100
_KEPT: Final = 500
#: The widest span: whatever a lead did.
EVER: Final = (datetime.fromisoformat("0001-01-02T00:00:00+00:00"), datetime.fromisoformat("9999-12-30T00:00:00+00:00"))


@dataclass(frozen=True, slots=True)
class Sheet:
    """A score with the version of its rules that is in force; number 0 is the default score without rules."""

    score_id: int
    name: str
    number: int
    scorer: Scorer
    published_at: datetime | None = None
    fire_on_recompute: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is the lead's own column."""
        return self.name == DEFAULT_SCORE

    def rule_keys(self) -> list[dict[str, Any]]:
        """What contributions of its rules are found by."""
        return [
            {"score_id": self.score_id, "rule": rule.key, "version": rule.since} for rule in self.scorer.rules.rules
        ]


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


def published_sheets(ctx: Context, score_id: int | None = None) -> list[Sheet]:
    """The scores with rules in force, in the order of their ids."""
    found = _sheets(ctx, answers(ctx.session, queries.rules_in_force())[0])
    return [sheet for sheet in found if score_id in (None, sheet.score_id)]


def _sheets(ctx: Context, rows: Iterable[Any]) -> list[Sheet]:
    conditions = conditions_of(ctx, is_saved=True)
    return [
        Sheet(
            row.id,
            row.name,
            row.number,
            scorer_of(row.rules, conditions),
            row.published_at,
            bool(row.fire_on_recompute),
        )
        for row in rows
    ]


def scorer_of(rules: Mapping[str, Any], conditions: Vocabulary) -> Scorer:
    """A stored rule set made ready; versions never change, so that it is done once for the same conditions of plugins."""
    return _understood(orjson.dumps(rules), conditions)


@lru_cache(maxsize=_KEPT)
def _understood(rules: bytes, conditions: Vocabulary) -> Scorer:
    return Scorer(parse_rule_set(orjson.loads(rules), conditions=conditions))


def score_marked(runtime: Runtime, tenant_id: int, most: int = BATCH) -> int:
    """Look at leads that were touched, by at most so many marks in one transaction; answers how many were taken."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        marks, rules = answers(ctx.session, queries.marks_to_take(ctx.session, most), queries.rules_in_force())
        if marks:
            score_leads(ctx, _sheets(ctx, rules), _batch_of(marks))
        return len(marks)


def score_due(ctx: Context, timer: TimerFact) -> None:
    """Look at leads whose scores time has changed: a batch, and set the timer for what comes next."""
    del timer
    if try_alone(ctx.session, WORK):
        _score_due(ctx)
    due = queries.first_due(ctx.session)
    if due is not None:
        set_timer(ctx, TIMER, "", due, earliest=True)


def _score_due(ctx: Context) -> None:
    leads = queries.due_leads(ctx.session, ctx.now, BATCH)
    # The timer is locked already, and whoever has a lead may wait for it: leads in other hands come next time.
    free = queries.free_leads(ctx.session, leads)
    score_leads(ctx, published_sheets(ctx), Batch(set(free)))
    queries.forget_due(ctx.session, leads, free, ctx.now)


def score_leads(ctx: Context, sheets: Sequence[Sheet], batch: Batch) -> list[Change]:
    """Bring scores of leads up to date, in the caller's transaction; answers those that show another number.

    Args:
        ctx: the unit of work; the leads are locked until it ends.
        sheets: the scores.
        batch: the leads.
    """
    records = _locked(ctx, batch) if batch.leads and sheets else []
    if not records:
        return []
    changes = look_at(ctx, sheets, records, batch)
    others = [change for change in changes if change.is_other]
    store_changes(ctx, changes, also=partial(_record, ctx, others) if others else None)
    return others


def _record(ctx: Context, changes: Sequence[Change]) -> None:
    lines = [f"{each.lead_id}:{each.sheet.name}:{each.update.value!r}" for each in changes]
    digest = sha256("\n".join(sorted(lines)).encode()).digest()
    record_bulk(ctx, "scores.updated", "lead", "batch", len(changes), digest)


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


def store_changes(ctx: Context, changes: Iterable[Change], *, also: Callable[[], None] | None = None) -> None:
    """Write what has changed, and tell of it.

    Args:
        ctx: the unit of work that has the leads locked.
        changes: what it came to; those that need no writing are left out.
        also: writes something else together with them, and wants no answer to it.
    """
    written = [change for change in changes if change.needs_writing]
    if not written:
        return
    with sent_ahead(ctx.session):
        _write(ctx, written)
        _mark(ctx, written)
        if also is not None:
            also()
    _tell(ctx, written)
    rises = [each for each in written if each.sheet.is_own and each.is_other and each.update.value > each.update.before]
    hear_scores(ctx, {each.lead_id: (each.update.before, each.update.value) for each in rises})
    hear_crossings(ctx, [_move(each) for each in written if each.is_other or each.update.crossings])


def _move(change: Change) -> ScoreMove:
    told = frozenset((each.threshold, each.direction) for each in change.update.crossings)
    return ScoreMove(change.lead_id, change.sheet.name, change.update.judged_from, change.update.value, told)


def _write(ctx: Context, written: Sequence[Change]) -> None:
    session, now = ctx.session, to_text(ctx.now)
    contributions = [_contribution_row(change, each) for change in written for each in change.update.appended]
    contributions.sort(key=lambda row: (row["score_id"], row["rule"], row["version"], row["cause"], row["turn"]))
    queries.append_contributions(session, contributions)
    queries.write_values(session, [_value_row(change, now) for change in written])
    own = [change for change in written if change.sheet.is_own and change.is_other]
    queries.write_own_scores(session, [{"lead_id": each.lead_id, "value": each.update.value} for each in own])
    crossings = [_crossing_row(change, each, now) for change in written for each in change.update.crossings]
    queries.append_crossings(session, crossings)
    due = min((each.sooner for each in written if each.sooner is not None), default=None)
    if due is not None:
        set_timer(ctx, TIMER, "", due, earliest=True)


def _mark(ctx: Context, changes: Sequence[Change]) -> None:
    """Have segments hear of changed scores (BR-013)."""
    own = [change.lead_id for change in changes if change.sheet.is_own and change.is_other]
    mark_leads(ctx, own, names_changed(["score"]))
    named: dict[str, list[int]] = {}
    for change in changes:
        if change.is_other and not change.sheet.is_own:
            named.setdefault(change.sheet.name, []).append(change.lead_id)
    for score, lead_ids in sorted(named.items()):
        mark_leads(ctx, lead_ids, [score_name(score)])


def _tell(ctx: Context, changes: Sequence[Change]) -> None:
    """The one place from which a changed score goes on to subscribers; segments have their marks already."""
    for change in changes:
        name, new = change.sheet.name, change.update
        if change.is_other:
            ctx.emit(LeadScored(ctx.tenant_id, ctx.now, change.lead_id, name, new.before, new.value))
        for each in new.crossings:
            more = (each.before, each.after, each.threshold, each.direction)
            ctx.emit(ScoreThresholdCrossed(ctx.tenant_id, ctx.now, change.lead_id, name, *more))


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


def _locked(ctx: Context, batch: Batch) -> list[RowMapping]:
    """The leads of a batch, locked; those that were merged as the lead that each of them is by now."""
    records = queries.lock_records(ctx.session, batch.leads)
    found = {record["id"] for record in records}
    merged = current_ids(ctx, batch.leads - found) if len(found) < len(batch.leads) else {}
    for old, new in merged.items():
        batch.spans[new] += batch.spans.get(old, [])  # what it did may have moved already, or not yet
    others = set(merged.values()) - found
    return [*records, *(queries.lock_records(ctx.session, others) if others else ())]


def _batch_of(marks: Sequence[Row[Any]]) -> Batch:
    batch = Batch()
    for mark in marks:
        batch.leads.add(mark.lead_id)
        if mark.since is not None:
            batch.spans[mark.lead_id].append((mark.since, mark.until))
    return batch


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


def _contribution_row(change: Change, each: Contribution) -> dict[str, Any]:
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "rule": each.rule,
        "version": each.version,
        "cause": each.cause,
        "turn": each.turn,
        "kind": str(each.kind),
        "points": each.points,
        "at": to_text(each.at),
        "actor": each.actor,
        "reason": each.reason,
    }


def _crossing_row(change: Change, each: Crossing, now: str) -> dict[str, Any]:
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "threshold": each.threshold,
        "direction": each.direction,
        "before": each.before,
        "after": each.after,
        "at": now,
    }


def _value_row(change: Change, now: str) -> dict[str, Any]:
    new = change.update
    return {
        "score_id": change.sheet.score_id,
        "lead_id": change.lead_id,
        "value": new.value,
        "version": change.sheet.number,
        "marks": {key: mark.kept() for key, mark in new.marks.items()},
        "next_change_at": None if new.next_change_at is None else to_text(new.next_change_at),
        "computed_at": now,
    }


def unruled(score_id: int) -> Sheet:
    """The default score of a tenant that has no rules for it."""
    return Sheet(score_id, DEFAULT_SCORE, 0, Scorer(RuleSet()))
