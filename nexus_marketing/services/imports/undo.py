"""Undoing an import: what it changed is put back where nobody changed it since, what it made is taken away again.

Piece by piece, the last one first, each in one transaction that also forgets the piece's traces: a process
that dies in between leaves the rest to be undone.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import orjson
from sqlalchemy import delete, select

from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import LeadImport, LeadImportChange, LeadImportPiece
from nexus_marketing.db.queries import removals
from nexus_marketing.db.queries.imports import (
    COLUMNS,
    append_consents,
    empty_leads,
    ids_having,
    last_consents,
    leads_by_id,
    touched_leads,
    update_rows,
)
from nexus_marketing.db.types import read_json
from nexus_marketing.runtime import Context
from nexus_marketing.services.audit import record_bulk
from nexus_marketing.services.imports.writing import UNDONE_SOURCE, ids_of
from nexus_marketing.services.scores.marks import mark_changed
from nexus_marketing.services.segments.marks import mark_leads

Values = dict[str, Any]
_DOCUMENTS: Final = ("tags", "metadata")
#: Columns of which no two leads have the same, and the fields that go with each.
_UNIQUE: Final = {"external_id": ("external_id",), "email_norm": ("email", "email_norm")}
_CLEARED_AT_ONCE: Final = 2_000


def undo_piece(ctx: Context, job: LeadImport) -> bool:
    """Undo the last piece that is left; whether there was one.

    Args:
        job: the import, locked; its ``restored``, ``removed`` and ``kept`` grow.
    """
    piece = ctx.session.scalars(
        select(LeadImportPiece)
        .where(LeadImportPiece.import_id == job.id)
        .order_by(LeadImportPiece.row_count.desc())
        .limit(1)
    ).first()
    if piece is None:
        return False
    of_piece = (LeadImportChange.import_id == job.id, LeadImportChange.row_count == piece.row_count)
    changes = {row.lead_id: row for row in ctx.session.scalars(select(LeadImportChange).where(*of_piece))}
    created = ids_of(piece.created)
    found = {row.id: row for row in leads_by_id(ctx.session, sorted({*changes, *created}), list(COLUMNS), lock=True)}
    restored = _restore(ctx, job, changes, {id_: _values(found[id_]) for id_ in changes if id_ in found})
    removed = _take_away(ctx, job, [found[id_] for id_ in created if id_ in found])
    _take_back_consent(ctx, job, [id_ for id_ in ids_of(piece.consented) if id_ not in removed])
    touched = sorted({*restored, *removed})
    mark_changed(ctx, touched)
    mark_leads(ctx, sorted({*touched, *ids_of(piece.consented)}))
    manifest = sha256("\n".join(map(str, touched)).encode()).digest()
    record_bulk(ctx, "leads.import_undone", "lead_import", job.id, len(touched), manifest)
    ctx.session.execute(delete(LeadImportChange).where(*of_piece))
    ctx.session.delete(piece)
    ctx.session.flush()
    return True


def _values(row: Any) -> Values:
    values = dict(zip(COLUMNS, row[2:], strict=True))
    for name in _DOCUMENTS:
        if isinstance(values[name], str):
            values[name] = orjson.loads(values[name])
    return values


def _restore(
    ctx: Context, job: LeadImport, changes: Mapping[int, LeadImportChange], leads: Mapping[int, Values]
) -> list[int]:
    """Put back the fields that are still as the import left them; the leads that got one back."""
    taken = _keys_taken(ctx, changes, leads)
    rows: list[Values] = []
    columns: set[str] = set()
    for lead_id, values in leads.items():
        change = changes[lead_id]
        same = [name for name, value in change.after.items() if _current(values, name) == value]
        for column, fields in _UNIQUE.items():
            if (column, change.before.get(column)) in taken:
                same = [name for name in same if name not in fields]
        job.kept += len(same) < len(change.after)
        if not same:
            continue
        job.restored += 1
        for name in same:
            _put_back(values, name, change.before.get(name))
        columns |= {name.partition(".")[0] for name in same}
        rows.append({"id": lead_id, **values})
    update_rows(
        ctx.session, [{"id": row["id"], **{name: row[name] for name in columns}} for row in rows], columns, ctx.now
    )
    return [row["id"] for row in rows]


def _keys_taken(
    ctx: Context, changes: Mapping[int, LeadImportChange], leads: Mapping[int, Values]
) -> set[tuple[str, str]]:
    """(column, value) of what would be put back and belongs to another lead by now."""
    taken: set[tuple[str, str]] = set()
    for name in _UNIQUE:
        coming = {str(changes[id_].before[name]) for id_ in leads if changes[id_].before.get(name) is not None}
        others = set(ids_having(ctx.session, {name: sorted(coming)})) - set(leads)
        for row in leads_by_id(ctx.session, sorted(others), [name], lock=False):
            taken.add((name, getattr(row, name)))
    return taken


def _current(values: Values, name: str) -> Any:
    return values["metadata"].get(name[9:]) if name.startswith("metadata.") else values.get(name)


def _put_back(values: Values, name: str, value: Any) -> None:
    if not name.startswith("metadata."):
        values[name] = value
    elif value is None:
        values["metadata"].pop(name[9:], None)
    else:
        values["metadata"][name[9:]] = value


def _take_away(ctx: Context, job: LeadImport, rows: Sequence[Any]) -> list[int]:
    """Take leads away that nobody has touched since the import made them; which."""
    unchanged = [row.id for row in rows if row.version == 1]
    touched = touched_leads(ctx.session, unchanged, job.id)
    gone = [id_ for id_ in unchanged if id_ not in touched]
    job.kept += len(rows) - len(gone)
    job.removed += len(gone)
    if gone:
        empty_leads(ctx.session, gone, ctx.now)
        removals.leave_segments(ctx.session, gone)
        for table in removals.personal_tables():
            while removals.clear_piece(ctx.session, table, gone, _CLEARED_AT_ONCE):
                continue
    return gone


def _take_back_consent(ctx: Context, job: LeadImport, lead_ids: Sequence[int]) -> None:
    """Withdraw consent that only the import gave. An act of the person, before or after, stays what counts."""
    rows = []
    for lead_id, last in last_consents(ctx.session, lead_ids).items():
        evidence = read_json(last.evidence)
        if last.granted and evidence.get("import_id") == str(job.id):
            # At the moment of the act it takes back, and after it: nothing that came later is overruled.
            at = last.at if isinstance(last.at, str) else canonical_datetime(last.at)
            rows.append({"lead_id": lead_id, "granted": "no", "at": at, "source": UNDONE_SOURCE})
    append_consents(ctx.session, rows, {"import_id": str(job.id)})
