"""``nexus-marketing leads``: files in and out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nexus_marketing.cli import lead_fields
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, tenant_id_of
from nexus_marketing.core.audience import ImportOptions, neutral
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.models import LeadRemoval
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.reports import ImportReport
from nexus_marketing.services.imports.reports import Progress as Done
from nexus_marketing.services.leads.erasure import certificate, erase_lead
from nexus_marketing.services.leads.exports import ERROR_COLUMNS, FORMATS, error_blocks, export_leads, table_text
from nexus_marketing.services.leads.removals import finish_removal

app = typer.Typer(no_args_is_help=True, help="Leads: files in and out, fields of a tenant's own.")
app.add_typer(lead_fields.app, name="fields")
Existing = Annotated[str, typer.Option(help="Leads known already: overwrite, fill_empty or keep_existing.")]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="FIELD=POLICY", help="Another policy for one field: tags=append_unique …"),
]
Mappings = Annotated[
    list[str] | None, typer.Option("--map", metavar="COLUMN=FIELD", help="Which field a column fills, or ignore.")
]
NullText = Annotated[str | None, typer.Option(help="Cells of this text clear their field; empty cells say nothing.")]
Region = Annotated[str | None, typer.Option(help="Country (DE, US …) of phone numbers without a country code.")]
Encoding = Annotated[str | None, typer.Option(help="utf-8, cp1252 … (default: found out).")]
Delimiter = Annotated[str | None, typer.Option(help="One of , ; tab | (default: found out).")]


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header line, or JSON lines.")],
    tenant: TenantName,
    existing: Existing = "overwrite",
    policy: Policies = None,
    mapping: Mappings = None,
    null_text: NullText = None,
    region: Region = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    errors: Annotated[Path | None, typer.Option(help="Write rejected rows with reasons to this CSV.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read every row, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring leads in; run it again on the same file to go on after an interruption."""
    options = ImportOptions.read(
        {
            "existing": existing,
            "policies": _pairs("--policy", policy),
            "mapping": _pairs("--map", mapping),
            "null_text": null_text,
            "region": region,
            "encoding": encoding,
            "delimiter": {"tab": "\t"}.get(delimiter or "", delimiter),
        }
    )
    with context.obj.runtime() as runtime, _progress(shown=not as_json) as tell:
        tenant_id = tenant_id_of(runtime, tenant)
        report = import_leads(
            runtime,
            tenant_id,
            file,
            actor=OPERATOR,
            dry_run=dry_run,
            options=options,
            on_progress=tell,
        )
        if errors is not None:
            _write_errors(runtime, tenant_id, report, errors)
    answer(_document(report), _sentences(report), as_json=as_json)


@app.command("export")
def export_(
    context: typer.Context,
    tenant: TenantName,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File (default: standard output).")] = None,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    segment: Annotated[int | None, typer.Option(help="Only members of this segment.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write leads out, streaming; cells that a spreadsheet would run are neutralised in CSV."""
    if form not in FORMATS:
        raise ValidationError.at("--format", "unknown_format", f"{form!r}: use {' or '.join(FORMATS)}.")
    if as_json and output is None:
        raise ValidationError.at("--json", "needs_output", "Leads go to standard output: name a file with --output.")
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        if output is None:
            export_leads(runtime, tenant_id, sys.stdout, actor=OPERATOR, form=form, segment_id=segment)
            return
        with output.open("w", encoding="utf-8", newline="") as file:
            count = export_leads(runtime, tenant_id, file, actor=OPERATOR, form=form, segment_id=segment)
    answer({"leads": count, "file": str(output)}, f"{count} leads are in {output}.", as_json=as_json)


@app.command()
def erase(
    context: typer.Context,
    tenant: TenantName,
    lead: Annotated[int, typer.Argument(metavar="ID", help="The lead's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Erase a lead for good, now and here; what is on the wire at this moment is settled by the workers."""
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR) as ctx:
            removal_id = erase_lead(ctx, lead).id
        finish_removal(runtime, tenant_id, removal_id)
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            document = certificate(find(ctx.session, LeadRemoval, removal_id))
    rows = ", ".join(f"{count} of {name}" for name, count in document["counts"].items())
    answer(document, f"Erasure of lead {lead} is {document['status']}: {rows}.", as_json=as_json)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` as often as it was said; the name may hold ``=`` itself."""
    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.rpartition("=")
        if not equals or not name or not value:
            raise ValidationError.at(option, "not_a_pair", f"{each!r}: write NAME=VALUE.")
        found[name] = value
    return found


@contextmanager
def _progress(*, shown: bool) -> Iterator[Any]:
    if not shown:
        yield None
        return
    columns = (TextColumn("Importing"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("import", total=None)

        def tell(done: Done) -> None:
            bar.update(task, completed=done.bytes_done, total=done.bytes_total)

        yield tell


def _document(report: ImportReport) -> dict[str, Any]:
    document = asdict(report)
    document["import_id"] = None if report.import_id is None else str(report.import_id)
    return document


def _sentences(report: ImportReport) -> str:
    verb = "would be" if report.dry_run else "were"
    lines = [
        f"{report.rows} rows read as {report.encoding} (confidence {report.encoding_confidence:.0%}).",
        f"{report.created} {verb} created, {report.updated} updated, {report.unchanged} unchanged.",
        f"{report.duplicate} duplicates, {report.rejected} rejected.",
    ]
    if report.resumed_at:
        lines.insert(1, f"Went on after row {report.resumed_at}, where an earlier run stopped.")
    if report.suppressed:
        lines.append(f"{report.suppressed} of them are suppressed and get no marketing.")
    if report.consents or report.consents_refused:
        lines.append(f"{report.consents} acts of consent, {report.consents_refused} refused after a withdrawal.")
    lines += [f"  row {each.row_no}, {each.column}: {each.message}" for each in report.errors[:10]]
    if report.rejected > 10:
        lines.append(f"  … and {report.rejected - 10} more: --errors FILE writes all of them.")
    return "\n".join(lines)


def _write_errors(runtime: Runtime, tenant_id: int, report: ImportReport, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if report.import_id is not None:
            file.writelines(error_blocks(runtime, tenant_id, report.import_id))
            return
        shown = [(e.row_no, neutral(e.column), e.code, neutral(e.message)) for e in report.errors]
        file.write(table_text([ERROR_COLUMNS, *shown]))
