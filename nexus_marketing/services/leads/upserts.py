"""Leads written by who they are, not by their id: create or change, also when two callers come at once.

A lead is known by its external id, else by its folded e-mail address. An insert that meets another of
the same moment writes nothing, and the row it met is changed instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from nexus_marketing.core.errors import Conflict, NexusError, Problem, Unavailable, ValidationError
from nexus_marketing.core.events import LeadCreated, LeadUpdated
from nexus_marketing.db.models import Lead
from nexus_marketing.db.queries.leads import insert_leads, lock_leads, update_leads
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.leads.records import (
    ADDRESSES,
    Changes,
    Values,
    change_lead,
    changes_of,
    checked,
    new_values,
    note_created,
)
from nexus_marketing.services.scores.marks import mark_changed

MAX_ROWS = 1_000
#: How often somebody may be faster: each time a row was there or went away between two statements.
_ATTEMPTS = 4
Row = Mapping[str, object]


def upsert_lead(ctx: Context, data: Row) -> tuple[Lead, bool]:
    """Create a lead or change the one that it is; also whether it is new.

    Fields that are not given stay as they are.

    Raises:
        ValidationError: no ``external_id`` and no ``email`` to know it by, or a field is wrong.
        Conflict: external id and address belong to two leads; ``lead_ids`` are theirs.
    """
    identity = _Identity.of(checked(ctx, data))
    for _ in range(_ATTEMPTS):
        lead = identity.match(lock_leads(ctx.session, identity.external_ids, identity.emails))
        if lead is not None:
            change_lead(ctx, lead, changes_of(lead, checked(ctx, data, country=lead.country)))
            return lead, False
        values = new_values(ctx, data)
        (lead_id,) = insert_leads(ctx.session, [values], ctx.now)
        if lead_id is not None:
            found = ctx.session.get_one(Lead, (ctx.tenant_id, lead_id))
            note_created(ctx, found, values)
            return found, True
    raise Unavailable("Others write the same lead at the same moment: nothing was changed, try again.")


@dataclass(slots=True)
class RowAnswer:
    """What became of one row: ``created``, ``updated``, ``unchanged`` or ``rejected``, then with ``errors``."""

    status: str
    lead_id: int | None = None
    version: int | None = None
    errors: Sequence[Problem] = ()


def upsert_leads(ctx: Context, rows: Sequence[Row]) -> list[RowAnswer]:
    """Create and change up to 1,000 leads; a row that is wrong is answered so and keeps no other from its way.

    One audit row stands for all of them. Rows lock in the order of what they are known by, whatever
    order they come in.

    Args:
        rows: as for :func:`upsert_lead`.
    """
    answers: list[RowAnswer | None] = [None] * len(rows)
    waiting = _sound(ctx, rows, answers)
    for _ in range(_ATTEMPTS):
        waiting = _write(ctx, waiting, answers)
        if not waiting:
            break
    for row in waiting:
        answers[row.index] = _rejected([Problem("", "conflict", "Others write this lead at this moment: try again.")])
    done = [answer for answer in answers if answer is not None]
    _note(ctx, done)
    return done


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a row is known by."""

    external_id: str | None
    email: str | None

    @classmethod
    def of(cls, values: Values) -> "_Identity":
        """Of normalised values.

        Raises:
            ValidationError: there is neither.
        """
        external_id, email = values.get("external_id"), values.get("email_norm")
        if not external_id and not email:
            raise ValidationError.at("external_id", "required", "Give an external_id or an email to know the lead by.")
        return cls(None if external_id is None else str(external_id), None if email is None else str(email))

    @property
    def external_ids(self) -> list[str]:
        return [] if self.external_id is None else [self.external_id]

    @property
    def emails(self) -> list[str]:
        return [] if self.email is None else [self.email]

    @property
    def key(self) -> tuple[str, str]:
        """Where it stands in the order of locks."""
        return (self.email or "", self.external_id or "")

    def match(self, leads: Iterable[Lead]) -> Lead | None:
        """The lead that this is, among those with the same id or address.

        Raises:
            Conflict: it would be two.
        """
        found = {
            lead.id: lead
            for lead in leads
            if (self.external_id is not None and lead.external_id == self.external_id)
            or (self.email is not None and lead.email_norm == self.email)
        }
        if len(found) > 1:
            ids = sorted(found)
            raise Conflict(
                f"external_id and email belong to two leads, {ids[0]} and {ids[1]}: merge them, or send one of the two.",
                lead_ids=[str(each) for each in ids],
            )
        return next(iter(found.values()), None)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row that is right in itself."""

    index: int
    data: Row
    identity: _Identity
    values: Values = field(default_factory=dict)


def _sound(ctx: Context, rows: Sequence[Row], answers: list[RowAnswer | None]) -> list[_Waiting]:
    found: list[_Waiting] = []
    seen: set[str] = set()
    for index, data in enumerate(rows):
        try:
            values = checked(ctx, data)
            identity = _Identity.of(values)
        except NexusError as error:
            answers[index] = _rejected(error.problems)
            continue
        names = {f"x{each}" for each in identity.external_ids} | {f"@{each}" for each in identity.emails}
        if names & seen:
            message = "An earlier row of this request is the same lead: send one of the two."
            answers[index] = _rejected([Problem("", "duplicate_row", message)])
            continue
        seen |= names
        found.append(_Waiting(index, data, identity, values))
    return sorted(found, key=lambda row: row.identity.key)


def _write(ctx: Context, rows: Sequence[_Waiting], answers: list[RowAnswer | None]) -> list[_Waiting]:
    """Write what can be written; answers the rows that somebody else was writing."""
    known = lock_leads(
        ctx.session,
        [each for row in rows for each in row.identity.external_ids],
        [each for row in rows for each in row.identity.emails],
    )
    by_id = {lead.external_id: lead for lead in known if lead.external_id}
    by_email = {lead.email_norm: lead for lead in known if lead.email_norm}
    fresh: list[tuple[_Waiting, Values]] = []
    changed: list[tuple[Lead, Changes]] = []
    for row in rows:
        candidates = (by_id.get(row.identity.external_id or ""), by_email.get(row.identity.email or ""))
        try:
            lead = row.identity.match(each for each in candidates if each is not None)
            if lead is None:
                fresh.append((row, new_values(ctx, row.data)))
            else:
                changes = _changes(ctx, row, lead)
                answers[row.index] = _answer(lead, changes)
                if changes:
                    changed.append((lead, changes))
        except NexusError as error:
            answers[row.index] = _rejected(error.problems or [Problem("", error.code, error.message)])
    update_leads(ctx.session, changed, ctx.now)
    ids = insert_leads(ctx.session, [values for _, values in fresh], ctx.now)
    again = []
    for (row, _), lead_id in zip(fresh, ids, strict=True):
        if lead_id is None:
            again.append(row)
        else:
            answers[row.index] = RowAnswer("created", lead_id, 1)
    return again


def _changes(ctx: Context, row: _Waiting, lead: Lead) -> Changes:
    values = row.values
    if "phone" in values and lead.country is not None:
        values = checked(ctx, row.data, country=lead.country)
    changes = changes_of(lead, values)
    left = {name: getattr(lead, name) for name in ADDRESSES} | {name: after for name, (_, after) in changes.items()}
    if not any(left[name] for name in ADDRESSES):
        raise ValidationError.at("email", "no_address", "A lead needs an email, a phone or an external_id: keep one.")
    return changes


def _answer(lead: Lead, changes: Changes) -> RowAnswer:
    return RowAnswer("updated" if changes else "unchanged", lead.id, lead.version + bool(changes))


def _rejected(problems: Sequence[Problem]) -> RowAnswer:
    return RowAnswer("rejected", errors=problems)


def _note(ctx: Context, answers: Sequence[RowAnswer]) -> None:
    written = {answer.lead_id: answer for answer in answers if answer.status in ("created", "updated")}
    if not written:
        return
    lines = [f"{lead_id}:{written[lead_id].version}" for lead_id in sorted(filter(None, written))]
    record_bulk(ctx, "leads.upserted", "lead", "batch", len(written), sha256("\n".join(lines).encode()).digest())
    mark_changed(ctx, [lead_id for lead_id in written if lead_id])
    for lead_id, answer in written.items():
        kind = LeadCreated if answer.status == "created" else LeadUpdated
        ctx.emit(kind(ctx.tenant_id, ctx.now, lead_id or 0))
