"""Leads as files, in flat memory. Cells that a spreadsheet would run are neutralised (S12)."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TextIO

import orjson

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadImportError
from nexus_marketing.db.queries.leads import import_errors, leads_after
from nexus_marketing.runtime import Runtime

FORMATS: Final = ("csv", "jsonl")
ERROR_COLUMNS: Final = ("row", "column", "code", "message")
COLUMNS: Final = (
    "id",
    "email",
    "name",
    "first_name",
    "last_name",
    "external_id",
    "phone",
    "country",
    "locale",
    "time_zone",
    "score",
    "tags",
    "metadata",
    "created_at",
    "updated_at",
)
_PAGE: Final = 2_000
#: What Excel, LibreOffice and Google Sheets take for a formula, also behind white space.
_LIVE: Final = re.compile(r"[\s\x00]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def export_leads(
    runtime: Runtime, tenant_id: int, out: TextIO, *, actor: Actor, form: str = "csv", segment_id: int | None = None
) -> int:
    """Write the tenant's leads, in the order of their ids; answers how many.

    Args:
        form: and ``segment_id``: as of :func:`lead_lines`.

    Raises:
        PermissionDenied: the actor may not read leads.
    """
    count = -1 if form == "csv" else 0  # the header is no lead
    for line in lead_lines(runtime, tenant_id, actor=actor, form=form, segment_id=segment_id):
        out.write(line)
        count += 1
    return count


def lead_lines(
    runtime: Runtime,
    tenant_id: int,
    *,
    actor: Actor,
    form: str = "csv",
    segment_id: int | None = None,
    role: str = "worker",
) -> Iterator[str]:
    """The tenant's leads as lines of a file, one lead after the other, in the order of their ids.

    Each page is a read of its own, so no transaction stays open while a slow reader takes them.

    Args:
        form: ``csv`` (with a header line) or ``jsonl``.
        segment_id: only its members.
        role: of the database that reads.

    Raises:
        PermissionDenied: the actor may not read leads.
    """
    actor.require(Permission.LEADS_READ)
    rows = _rows(runtime, tenant_id, actor, segment_id, role)
    if form == "jsonl":
        return (orjson.dumps({**row, "id": str(row["id"])}).decode() + "\n" for row in rows)
    return _csv_lines(COLUMNS, ([neutral(_cell(row[name])) for name in COLUMNS] for row in rows))


def error_lines(runtime: Runtime, tenant_id: int, import_id: int, role: str = "worker") -> Iterator[str]:
    """The rejected rows of an import as lines of a CSV file: row, column, code and message."""
    found = _errors(runtime, tenant_id, import_id, role)
    return _csv_lines(ERROR_COLUMNS, ((e.row_no, neutral(e.column), e.code, neutral(e.message)) for e in found))


def _errors(runtime: Runtime, tenant_id: int, import_id: int, role: str) -> Iterator[LeadImportError]:
    after = 0
    while True:
        with runtime.work(tenant_id, mode="read", role=role) as ctx:
            page = import_errors(ctx.session, import_id, after, _PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].row_no


class _Line:
    """What the csv module writes to: the line it wrote last."""

    text = ""

    def write(self, text: str) -> int:
        self.text = text
        return len(text)


def _csv_lines(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    line = _Line()
    writer = csv.writer(line)
    for cells in itertools.chain([header], rows):
        writer.writerow(cells)
        yield line.text


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe stands before what would be a formula.

    Plain numbers, negative ones and phone numbers included, stay as they are.
    """
    if _LIVE.match(cell) and not _PLAIN_NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


def _rows(
    runtime: Runtime, tenant_id: int, actor: Actor, segment_id: int | None, role: str
) -> Iterator[Mapping[str, Any]]:
    after = 0
    while True:
        with runtime.work(tenant_id, actor, mode="read", role=role) as ctx:
            page = leads_after(ctx.session, COLUMNS, after, _PAGE, segment_id)
        for row in page:
            yield {name: row[name] for name in COLUMNS}
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return ";".join(value)
        return orjson.dumps(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
