"""Leads as files, in flat memory. Cells that a spreadsheet would run are neutralised (S12).

PostgreSQL writes CSV itself, neutralised too: a million leads took 11 s where Python did, most of it for the cells.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

import orjson

from nexus_marketing.core.actors import Actor
from nexus_marketing.core.audience import EXPORTED, WORDS, joined_tags, neutral
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import LeadImportError
from nexus_marketing.db.queries.leads import export_bound, export_page, export_table, import_errors
from nexus_marketing.runtime import Runtime

FORMATS: Final = ("csv", "jsonl")
ERROR_COLUMNS: Final = ("row", "column", "code", "message")
_PAGE: Final = 5_000
_TAGS, _METADATA = EXPORTED.index("tags"), EXPORTED.index("metadata")
#: Where somebody's own words may stand; all else is numbers, codes and moments, or begins with a brace.
_WORDS: Final = tuple(map(EXPORTED.index, (*WORDS, "tags")))
Rows = Sequence[Sequence[Any]]


def export_leads(
    runtime: Runtime, tenant_id: int, out: TextIO, *, actor: Actor, form: str = "csv", segment_id: int | None = None
) -> int:
    """Write the tenant's leads, in the order of their ids; answers how many.

    Args:
        form: and ``segment_id``: as of :func:`lead_blocks`.

    Raises:
        PermissionDenied: the actor may not read leads.
    """
    actor.require(Permission.LEADS_READ)
    count = 0
    out.write(_header(form))
    for lines, block in _blocks(runtime, tenant_id, actor, form, segment_id, "worker"):
        out.write(block)
        count += lines
    return count


def lead_blocks(
    runtime: Runtime,
    tenant_id: int,
    *,
    actor: Actor,
    form: str = "csv",
    segment_id: int | None = None,
    role: str = "worker",
) -> Iterator[str]:
    """The tenant's leads as a file, some thousand lines at a time, in the order of their ids.

    Each block is a read of its own, so no transaction stays open while a slow reader takes them.

    Args:
        form: ``csv`` (with a header line) or ``jsonl``.
        segment_id: only its members.
        role: of the database that reads.

    Raises:
        PermissionDenied: the actor may not read leads.
    """
    actor.require(Permission.LEADS_READ)

    def blocks() -> Iterator[str]:
        yield _header(form)
        yield from (block for _, block in _blocks(runtime, tenant_id, actor, form, segment_id, role))

    return blocks()


def error_blocks(runtime: Runtime, tenant_id: int, import_id: int, role: str = "worker") -> Iterator[str]:
    """The rejected rows of an import as a CSV file: row, column, code and message."""
    yield table_text([ERROR_COLUMNS])
    for page in _error_pages(runtime, tenant_id, import_id, role):
        yield table_text((e.row_no, neutral(e.column), e.code, neutral(e.message)) for e in page)


def table_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file (RFC 4180)."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _header(form: str) -> str:
    return table_text([EXPORTED]) if form == "csv" else ""


def _csv_lines(page: Rows) -> str:
    return table_text(map(_cells, page))


def _cells(row: Sequence[Any]) -> list[Any]:
    cells = list(row)
    tags = cells[_TAGS]
    cells[_TAGS] = "" if tags == "[]" else joined_tags(orjson.loads(tags))
    for place in _WORDS:
        cell = cells[place]
        # What begins with a letter or digit is no formula; most cells do.
        if cell and not cell[0].isalnum():
            cells[place] = neutral(cell)
    return cells


def _json_lines(page: Rows) -> str:
    return "".join([orjson.dumps(_document(row), option=orjson.OPT_APPEND_NEWLINE).decode() for row in page])


def _document(row: Sequence[Any]) -> dict[str, Any]:
    document = dict(zip(EXPORTED, row, strict=True))
    document["id"] = str(document["id"])
    document["tags"], document["metadata"] = orjson.Fragment(row[_TAGS]), orjson.Fragment(row[_METADATA])
    return document


_WRITERS: Final[dict[str, Callable[[Rows], str]]] = {"csv": _csv_lines, "jsonl": _json_lines}


def _blocks(
    runtime: Runtime, tenant_id: int, actor: Actor, form: str, segment_id: int | None, role: str
) -> Iterator[tuple[int, str]]:
    """How many leads, and their lines."""
    after, is_full = 0, True
    by_database = form == "csv" and runtime.engines.dialect == "postgresql"
    while is_full:
        with runtime.work(tenant_id, actor, mode="read", role=role) as ctx:
            if by_database:
                last, count = export_bound(ctx.session, after, _PAGE, segment_id)
                block = export_table(ctx.session, after, last, segment_id) if count else ""
            else:
                page = export_page(ctx.session, after, _PAGE, segment_id)
                last, count = page[-1][0] if page else 0, len(page)
                block = _WRITERS[form](page)
        if count:
            yield count, block
        after, is_full = last, count == _PAGE


def _error_pages(runtime: Runtime, tenant_id: int, import_id: int, role: str) -> Iterator[Sequence[LeadImportError]]:
    after = 0
    while True:
        with runtime.work(tenant_id, mode="read", role=role) as ctx:
            page = import_errors(ctx.session, import_id, after, _PAGE)
        yield page
        if len(page) < _PAGE:
            return
        after = page[-1].row_no
