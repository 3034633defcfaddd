"""Leads as files, in flat memory. Cells that a spreadsheet would run are neutralised (S12)."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TextIO

import orjson

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.queries.leads import leads_after
from nexus_marketing.runtime import Runtime

FORMATS: Final = ("csv", "jsonl")
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

    Each page is a read of its own, so no transaction stays open while a slow reader takes them.

    Args:
        form: ``csv`` or ``jsonl``.
        segment_id: only its members.

    Raises:
        PermissionDenied: the actor may not read leads.
    """
    actor.require(Permission.LEADS_READ)
    rows = _rows(runtime, tenant_id, actor, segment_id)
    return _write_lines(out, rows) if form == "jsonl" else _write_csv(out, rows)


def _write_lines(out: TextIO, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for row in rows:
        out.write(orjson.dumps({**row, "id": str(row["id"])}).decode() + "\n")
        count += 1
    return count


def _write_csv(out: TextIO, rows: Iterable[Mapping[str, Any]]) -> int:
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        writer.writerow([neutral(_cell(row[name])) for name in COLUMNS])
        count += 1
    return count


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs: an apostrophe stands before what would be a formula.

    Plain numbers, negative ones and phone numbers included, stay as they are.
    """
    if _LIVE.match(cell) and not _PLAIN_NUMBER.fullmatch(cell):
        return "'" + cell
    return cell


def _rows(runtime: Runtime, tenant_id: int, actor: Actor, segment_id: int | None) -> Iterator[Mapping[str, Any]]:
    after = 0
    while True:
        with runtime.work(tenant_id, actor, mode="read") as ctx:
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
