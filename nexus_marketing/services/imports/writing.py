"""Writing one piece of a file: leads, consent, and what it takes to undo it; all in the caller's transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import insert

from nexus_marketing.core.audience import ConsentWord
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.privacy import SuppressionReason, SuppressionType
from nexus_marketing.core.values import Canonical, canonical_datetime
from nexus_marketing.db.models import LeadImportPiece, Suppression
from nexus_marketing.db.queries.imports import (
    COLUMNS,
    append_consents,
    insert_rows,
    keep_changes,
    last_consents,
    update_rows,
)
from nexus_marketing.db.queries.privacy import anybody_erased, erased_hashes, suppressed_hashes
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.imports.matching import OUTCOMES, Decision, Matched, Matcher, Person
from nexus_marketing.services.imports.rows import ConsentAct, Piece
from nexus_marketing.services.scores.marks import mark_changed
from nexus_marketing.services.segments.marks import mark_leads

#: Where an act of consent came from that undoing an import appended.
UNDONE_SOURCE: Final = "import_undone"


@dataclass(frozen=True, slots=True)
class Coming:
    """A piece that was read, and the leads that had its rows' keys at that moment."""

    piece: Piece
    known: Sequence[int]
    #: Has the next piece read meanwhile: called where this one waits for the database and needs no interpreter.
    read_on: Callable[[], object] = field(default=lambda: None)


@dataclass(slots=True)
class PieceOutcome:
    """What became of a piece: ``errors`` are rows that matching rejected, ``manifest`` is SHA-256 over
    ``id:version`` of every lead written.
    """

    created: int
    updated: int
    unchanged: int
    errors: Sequence[tuple[int, ValidationError]] = ()
    manifest: bytes = b""
    suppressed: int = 0
    consents: int = 0
    consents_refused: int = 0
    decisions: Sequence[Decision] = field(default_factory=list)
    created_ids: Sequence[int] = ()
    consented_ids: Sequence[int] = ()
    changed: Sequence[Person] = ()


def write_piece(ctx: Context, import_id: int, coming: Coming, matcher: Matcher, file_digest: str) -> PieceOutcome:
    """Write a piece; :func:`keep_traces` then keeps what undoing it needs.

    Raises:
        IntegrityError: somebody made one of its leads meanwhile; the whole transaction can be done again.
    """
    piece = coming.piece
    matched = matcher.match(ctx, piece.rows, coming.known, lock=True, tell=bool(piece.consents))
    _leave_out_erased(ctx, matched)
    outcome = _outcome(matched)
    coming.read_on()
    created = _create(ctx, matched.created)
    outcome.created_ids, outcome.changed = list(created.values()), matched.changed
    versions = dict.fromkeys(outcome.created_ids, 1) | _change(ctx, outcome.changed)
    written = sorted(versions)
    outcome.manifest = sha256("\n".join(f"{id_}:{versions[id_]}" for id_ in written).encode()).digest()
    mark_changed(ctx, written, {*matcher.columns, "email"})
    evidence = {"file_sha256": file_digest, "import_id": str(import_id)}
    outcome.consented_ids = _consent(ctx, _acts_of(piece, matched), created, evidence, outcome)
    mark_leads(ctx, sorted({*written, *outcome.consented_ids}))
    return outcome


def keep_traces(ctx: Context, import_id: int, row_count: int, outcome: PieceOutcome) -> None:
    """Keep what a piece made and how what it changed was, for as long as it can be undone."""
    keep_changes(ctx.session, import_id, row_count, [_trace(person) for person in outcome.changed])
    values = {
        "tenant_id": tenant_of(ctx.session),
        "import_id": import_id,
        "row_count": row_count,
        "created": ranges_of(outcome.created_ids),
        "consented": ranges_of(outcome.consented_ids),
    }
    ctx.session.execute(insert(LeadImportPiece), [values])


def judge_piece(ctx: Context, coming: Coming, matcher: Matcher) -> PieceOutcome:
    """What :func:`write_piece` would do, without writing; also how many rows get no marketing anyway."""
    piece = coming.piece
    matched = matcher.match(ctx, piece.rows, coming.known, lock=False, tell=True)
    _leave_out_erased(ctx, matched)
    outcome = _outcome(matched)
    addresses = _addresses(ctx, (decision.person for decision in matched.decisions))
    found = suppressed_hashes(ctx.session, list(addresses), "email", MessageClass.MARKETING)
    suppressed = {id(person) for hashed in found for person in addresses[hashed]}
    outcome.suppressed = sum(id(decision.person) in suppressed for decision in matched.decisions)
    acts = _acts_of(piece, matched)
    states = last_consents(ctx.session, sorted({person.id for _, person in acts if person.id is not None}))
    refused = sum(_is_overruled(act, states.get(person.id or 0)) for act, person in acts)
    outcome.consents, outcome.consents_refused = len(acts) - refused, refused
    return outcome


def ranges_of(ids: Iterable[int]) -> list[list[int]]:
    """Ids as ranges, both ends included.

    >>> ranges_of([4, 1, 2, 3, 9])
    [[1, 4], [9, 9]]
    """
    ranges: list[list[int]] = []
    for each in sorted(set(ids)):
        if ranges and ranges[-1][1] == each - 1:
            ranges[-1][1] = each
        else:
            ranges.append([each, each])
    return ranges


def ids_of(ranges: Iterable[Sequence[int]]) -> list[int]:
    """Ranges as ids.

    >>> ids_of([[1, 3], [9, 9]])
    [1, 2, 3, 9]
    """
    return [each for first, last in ranges for each in range(first, last + 1)]


def _outcome(matched: Matched) -> PieceOutcome:
    errors = sorted(matched.errors, key=lambda pair: pair[0])
    created, updated, unchanged = (matched.counts[name] for name in OUTCOMES)
    return PieceOutcome(created, updated, unchanged, errors=errors, decisions=matched.decisions)


def _create(ctx: Context, people: Sequence[Person]) -> dict[int, int]:
    """Write new leads; their ids by ``id()`` of the person."""
    ordered = sorted(people, key=lambda person: str(person.values.get("email_norm") or ""))
    columns = {name for person in ordered for name in person.values}
    found = insert_rows(ctx.session, [person.values for person in ordered], columns, ctx.now)
    by_email = {row.email_norm: row.id for row in found if row.email_norm is not None}
    nameless = iter(row.id for row in found if row.email_norm is None)
    ids: dict[int, int] = {}
    for person in ordered:
        email = person.values.get("email_norm")
        # Rows without an address have nothing that tells them apart here: any of the new ids is one of theirs.
        ids[id(person)] = next(nameless) if email is None else by_email[str(email)]
    return ids


def _change(ctx: Context, people: Sequence[Person]) -> dict[int, int]:
    """Write what changed of known leads; the new versions by id."""
    columns = {name for person in people for name in person.before or ()} & COLUMNS.keys()
    rows = [{"id": person.id, **{name: person.values.get(name) for name in columns}} for person in people]
    return update_rows(ctx.session, rows, columns, ctx.now)


def _trace(person: Person) -> Mapping[str, object]:
    """What changed of one lead, metadata by its keys."""
    before: dict[str, Canonical] = {}
    after: dict[str, Canonical] = {}
    for name, was in (person.before or {}).items():
        now = person.values.get(name)
        if name == "metadata":
            old: Any = was or {}
            new: Any = now or {}
            for key in {*old, *new}:
                if old.get(key) != new.get(key):
                    before[f"metadata.{key}"], after[f"metadata.{key}"] = old.get(key), new.get(key)
        elif was != now:
            before[name], after[name] = was, now
    return {"lead_id": person.id, "before": before, "after": after}


def _addresses(ctx: Context, people: Iterable[Person]) -> dict[bytes, list[Person]]:
    """Who has an address, by its hash."""
    tenant_id, keys = tenant_of(ctx.session), ctx.runtime.keys
    found: dict[bytes, list[Person]] = {}
    for person in people:
        for name in ("email_norm", "phone"):
            address = person.values.get(name)
            if address is not None:
                found.setdefault(keys.address_hash(tenant_id, str(address)), []).append(person)
    return found


def _leave_out_erased(ctx: Context, matched: Matched) -> None:
    """Reject rows about people who were erased and did not come back by themselves (SECURITY.md D04)."""
    if not matched.created or not anybody_erased(ctx.session):
        return
    addresses = _addresses(ctx, matched.created)
    erased = erased_hashes(ctx.session, list(addresses))
    gone = {id(person) for hashed in erased for person in addresses[hashed]}
    if not gone:
        return
    matched.errors += [(person.row_no, _erased(person)) for person in matched.created if id(person) in gone]
    matched.counts["created"] -= len(gone)
    matched.created = [person for person in matched.created if id(person) not in gone]
    matched.decisions = [decision for decision in matched.decisions if id(decision.person) not in gone]


def _erased(person: Person) -> ValidationError:
    path = "email" if person.values.get("email") is not None else "phone"
    message = "This person asked to be erased: add them by hand if they came back by themselves."
    return ValidationError.at(path, "erased", message)


def _acts_of(piece: Piece, matched: Matched) -> list[tuple[ConsentAct, Person]]:
    people = {decision.row_no: decision.person for decision in matched.decisions}
    return [(act, people[act.row_no]) for act in piece.consents if act.row_no in people]


def _consent(
    ctx: Context,
    said: Sequence[tuple[ConsentAct, Person]],
    created: Mapping[int, int],
    evidence: Mapping[str, str],
    outcome: PieceOutcome,
) -> list[int]:
    """Write acts of consent, but for what a later withdrawal overrules (LESSONS.md 50); leads that got one."""
    acts = [(act, person.id if person.id is not None else created[id(person)]) for act, person in said]
    if not acts:
        return []
    states = last_consents(ctx.session, sorted({lead_id for _, lead_id in acts}))
    allowed = [(act, lead_id) for act, lead_id in acts if not _is_overruled(act, states.get(lead_id))]
    rows = [_consent_row(ctx, act, lead_id) for act, lead_id in allowed]
    given = append_consents(ctx.session, rows, evidence)
    _suppress_withdrawn(ctx, [act for act, _ in allowed if act.word is ConsentWord.WITHDRAWN])
    outcome.consents, outcome.consents_refused = len(allowed), len(acts) - len(allowed)
    return given


def _is_overruled(act: ConsentAct, last: Any) -> bool:
    """Whether the person withdrew; what undoing an import took back was nobody's wish."""
    return act.word is ConsentWord.GIVEN and last is not None and not last.granted and last.source != UNDONE_SOURCE


def _consent_row(ctx: Context, act: ConsentAct, lead_id: int) -> Mapping[str, object]:
    return {
        "lead_id": lead_id,
        "granted": "yes" if act.word is ConsentWord.GIVEN else "no",
        "at": act.at or canonical_datetime(ctx.now),
        "source": act.source or "import",
        "text_version": act.text_version,
        "ip_address": act.ip_address,
    }


def _suppress_withdrawn(ctx: Context, acts: Sequence[ConsentAct]) -> None:
    tenant_id = tenant_of(ctx.session)
    hashes = [ctx.runtime.keys.address_hash(tenant_id, act.email_norm) for act in acts]
    known = suppressed_hashes(ctx.session, hashes, "email", MessageClass.MARKETING)
    rows = [
        {
            "tenant_id": tenant_id,
            "address_hash": hashed,
            "channel": "email",
            "type": str(SuppressionType.MARKETING),
            "reason": str(SuppressionReason.IMPORTED),
            "source": "import",
            "suppressed_at": ctx.now,
        }
        for hashed in dict.fromkeys(hashes)
        if hashed not in known
    ]
    if rows:
        ctx.session.execute(insert(Suppression), rows)
