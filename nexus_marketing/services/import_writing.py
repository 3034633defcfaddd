"""Writing one piece of a file: matching, leads, consent; all in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import insert

from nexus_marketing.core.audience import ConsentWord
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.privacy import ConsentState, SuppressionReason, SuppressionType
from nexus_marketing.core.values import Canonical, canonical_datetime
from nexus_marketing.db.models import Suppression
from nexus_marketing.db.queries.imports import (
    Existing,
    LeadStatements,
    append_consents,
    known_leads,
    lead_ids,
    rename_lead,
)
from nexus_marketing.db.queries.privacy import consent_states, suppressed_hashes
from nexus_marketing.db.queries.removals import standing_suppressions
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.import_rows import ConsentAct, Piece, RowError
from nexus_marketing.services.score_marks import mark_changed
from nexus_marketing.services.segment_marks import mark_leads

Row = dict[str, Canonical]


@dataclass(frozen=True, slots=True)
class PieceOutcome:
    """What became of a piece: ``errors`` are its rejected rows, ``manifest`` is SHA-256 over ``id:version``
    of every lead written.
    """

    created: int
    updated: int
    unchanged: int
    errors: Sequence[RowError] = ()
    manifest: bytes = b""
    suppressed: int = 0
    consents: int = 0
    consents_refused: int = 0


@dataclass(slots=True)
class _Matching:
    """Rows after looking at external ids: ``renames`` give a known lead the row's address."""

    rows: list[Row] = field(default_factory=list)
    renames: list[tuple[int, Row]] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)


def write_piece(ctx: Context, piece: Piece, statements: LeadStatements, file_digest: str) -> PieceOutcome:
    """Write a piece; rows that match two leads at once are rejected too."""
    matching = _match(ctx, piece, statements.existing)
    for lead_id, row in matching.renames:
        rename_lead(ctx.session, lead_id, str(row["email"]), str(row["email_norm"]))
    written = statements.write(ctx.session, matching.rows, ctx.now)
    versions = dict(written.rows)
    mark_changed(ctx, [*versions, *(lead_id for lead_id, _ in matching.renames)], {*statements.columns, "email"})
    renamed_only = sum(lead_id not in versions for lead_id, _ in matching.renames)
    updated = written.updated + renamed_only
    manifest = sha256("\n".join(f"{id_}:{versions[id_]}" for id_ in sorted(versions)).encode()).digest()
    rejected = {error.row_no for error in matching.errors}
    acts = [act for act in piece.consents if act.row_no not in rejected]
    given, refused = _write_consents(ctx, acts, file_digest)
    mark_leads(ctx, sorted({*versions, *(lead_id for lead_id, _ in matching.renames)}))
    return PieceOutcome(
        written.created,
        updated,
        len(matching.rows) - written.created - updated,
        [*piece.errors, *matching.errors],
        manifest,
        consents=given,
        consents_refused=refused,
    )


def judge_piece(ctx: Context, piece: Piece, statements: LeadStatements) -> PieceOutcome:
    """What :func:`write_piece` would do, without writing; also how many rows get no marketing anyway."""
    matching = _match(ctx, piece, statements.existing)
    renamed = {str(row["email_norm"]) for _, row in matching.renames}
    others = [row for row in matching.rows if str(row["email_norm"]) not in renamed]
    created, updated = statements.judge(ctx.session, others)
    updated += len(renamed)
    tenant_id = tenant_of(ctx.session)
    hashes = [ctx.runtime.keys.address_hash(tenant_id, str(row["email_norm"])) for row in matching.rows]
    suppressed = len(suppressed_hashes(ctx.session, hashes, "email", MessageClass.MARKETING))
    given = sum(act.word is ConsentWord.GIVEN for act in piece.consents)
    unchanged = len(matching.rows) - created - updated
    errors = [*piece.errors, *matching.errors]
    return PieceOutcome(created, updated, unchanged, errors, suppressed=suppressed, consents=given)


def _match(ctx: Context, piece: Piece, existing: Existing) -> _Matching:
    """External ids first, then addresses; a row that means two leads, or one that was erased, is rejected."""
    found = _Matching()
    found.errors, allowed = _without_erased(ctx, piece.rows)
    rows = [row for row in allowed if "external_id" in row]
    if not rows:
        found.rows = allowed
        return found
    known = known_leads(
        ctx.session, [str(row["external_id"]) for row in rows], [str(row["email_norm"]) for row in rows]
    )
    by_id = {lead.external_id: lead for lead in known if lead.external_id is not None}
    by_email = {lead.email_norm: lead for lead in known}
    for row in allowed:
        of_id, of_email = by_id.get(row.get("external_id")), by_email.get(row["email_norm"])
        if "external_id" in row and _is_ambiguous(row, of_id, of_email):
            found.errors.append(_ambiguous(row))
            continue
        if of_id is not None and of_email is None:
            if existing is Existing.OVERWRITE:
                found.renames.append((of_id.id, row))
            elif of_id.email_norm is None:
                found.errors.append(_ambiguous(row))
                continue
            else:
                # The known address stays: match the row by it.
                row = {**row, "email_norm": of_id.email_norm}  # noqa: PLW2901 - the row as it will match
        found.rows.append(row)
    found.rows.sort(key=lambda row: str(row["email_norm"]))
    return found


def _without_erased(ctx: Context, rows: Sequence[Row]) -> tuple[list[RowError], list[Row]]:
    """Errors of rows about people who were erased and did not come back, and the other rows (SECURITY.md D04)."""
    tenant_id = tenant_of(ctx.session)
    hashes = {ctx.runtime.keys.address_hash(tenant_id, str(row["email_norm"])): str(row["email_norm"]) for row in rows}
    suppressed = suppressed_hashes(ctx.session, list(hashes), "email", MessageClass.MARKETING)
    standing = standing_suppressions(ctx.session, sorted(suppressed))
    erased = {hashes[bytes(row.address_hash)] for row in standing if row.reason == SuppressionReason.ERASED}
    if erased:
        erased -= lead_ids(ctx.session, sorted(erased)).keys()
    errors = [_erased(row) for row in rows if row["email_norm"] in erased]
    return errors, [row for row in rows if row["email_norm"] not in erased]


def _erased(row: Row) -> RowError:
    message = "This person asked to be erased: add them by hand if they came back by themselves."
    row_no = row["row_no"]
    assert isinstance(row_no, int)
    return RowError(row_no, "email", "erased", message)


def _is_ambiguous(row: Row, of_id: object, of_email: object) -> bool:
    if of_id is not None and of_email is not None:
        return getattr(of_id, "id", None) != getattr(of_email, "id", None)
    other = getattr(of_email, "external_id", None)
    return of_id is None and other is not None and other != row["external_id"]


def _ambiguous(row: Row) -> RowError:
    message = "The external id and the e-mail address belong to different leads: mend one of the two."
    row_no = row["row_no"]
    assert isinstance(row_no, int)
    return RowError(row_no, "external_id", "ambiguous_match", message)


def _write_consents(ctx: Context, acts: Sequence[ConsentAct], file_digest: str) -> tuple[int, int]:
    """How many acts were written and how many not: what a person withdrew, no file gives back (LESSONS.md 50)."""
    if not acts:
        return 0, 0
    ids = lead_ids(ctx.session, [act.email_norm for act in acts])
    states = consent_states(ctx.session, list(ids.values()), "email", "marketing")
    allowed = [act for act in acts if act.email_norm in ids and not _is_overruled(act, states.get(ids[act.email_norm]))]
    rows = [_consent_row(ctx, act, ids[act.email_norm]) for act in allowed]
    append_consents(ctx.session, rows, {"file_sha256": file_digest})
    _suppress_withdrawn(ctx, [act for act in allowed if act.word is ConsentWord.WITHDRAWN])
    return len(allowed), len(acts) - len(allowed)


def _is_overruled(act: ConsentAct, state: ConsentState | None) -> bool:
    return act.word is ConsentWord.GIVEN and state is ConsentState.REVOKED


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
