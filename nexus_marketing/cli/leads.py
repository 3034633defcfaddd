"""Commands on leads and segments."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from nexus_marketing.cli.app import AsJson, ForTenant, opened, show, tenant_id
from nexus_marketing.cli.tenants import OPERATOR
from nexus_marketing.core.errors import NotFound

leads_group = typer.Typer(no_args_is_help=True, help="Leads.")
segments_group = typer.Typer(no_args_is_help=True, help="Segments.")
_COUNTS = ("rows", "created", "updated", "unchanged", "duplicate", "rejected")


def register(app: typer.Typer) -> None:
    """Add the groups."""
    app.add_typer(leads_group, name="leads")
    app.add_typer(segments_group, name="segments")


@leads_group.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CSV file.")],
    tenant: ForTenant,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and check, change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a CSV in; running it again after an interruption goes on where it stopped."""
    from nexus_marketing.services import imports

    columns = (TextColumn("Importing"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with opened(context) as runtime, Progress(*columns, disable=as_json) as progress:
        task = progress.add_task("import", total=file.stat().st_size)

        def moved(at: imports.Progress) -> None:
            progress.update(task, completed=at.bytes_done)

        report = imports.import_leads(
            runtime, tenant_id(runtime, tenant), file, actor=OPERATOR, dry_run=dry_run, on_progress=moved
        )
    document = asdict(report)
    if as_json:
        show([document], as_json=True)
        return
    show([{name: document[name] for name in _COUNTS}], as_json=False, title="Would import" if dry_run else "Imported")
    if report.errors:
        show([asdict(each) for each in report.errors[:20]], as_json=False, title="First rejected rows")


@segments_group.command("recalculate")
def recalculate(
    context: typer.Context,
    tenant: ForTenant,
    name: Annotated[str, typer.Argument(help="The segment's name; all without it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compute membership now, in this process."""
    from sqlalchemy import select

    from nexus_marketing.db.models import Segment
    from nexus_marketing.services.segments import refresh

    with opened(context) as runtime:
        owner = tenant_id(runtime, tenant)
        with runtime.work(owner, OPERATOR, mode="read") as ctx:
            found = {row.name: row.id for row in ctx.session.scalars(select(Segment).order_by(Segment.id))}
        if name and name not in found:
            raise NotFound(f"There is no segment {name!r}: there are {', '.join(found) or 'none yet'}.")
        chosen = {name: found[name]} if name else found
        rows = [{"segment": each, "leads": refresh(runtime, owner, id_)} for each, id_ in chosen.items()]
    show(rows, as_json=as_json, title="Segments")
