"""``nexus-marketing segments``: which there are, and membership computed now."""

from typing import Annotated

import typer
from sqlalchemy import select

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries.resources.segments import SEGMENTS
from nexus_marketing.db.tenancy import find
from nexus_marketing.services.segments.refresh import refresh
from nexus_marketing.services.segments.rules import RULED

app = typer.Typer(no_args_is_help=True, help="Segments: audiences by rule or by hand.")


@app.callback()
def segments() -> None:
    """Segments: audiences by rule or by hand."""


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List segments, the newest first, with why one could not be computed."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, SEGMENTS, limit)
    columns = ("id", "name", "kind", "lead_count", "as_of", "error")
    show_rows("Segments", columns, rows, as_json=as_json)


@app.command()
def recalculate(
    context: typer.Context,
    tenant: TenantName,
    segment: Annotated[list[int] | None, typer.Argument(help="Ids (default: every one with a rule).")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Compute membership afresh, now and here."""
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            ruled = select(Segment.id).where(Segment.kind.in_(RULED)).order_by(Segment.id)
            ids = segment or list(ctx.session.scalars(ruled))
        for segment_id in ids:
            refresh(runtime, tenant_id, segment_id)
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            found = [find(ctx.session, Segment, segment_id) for segment_id in ids]
    columns = ("id", "name", "lead_count", "generation", "duration_ms", "as_of")
    rows = [{name: str(each.id) if name == "id" else getattr(each, name) for name in columns} for each in found]
    answer({"data": rows}, table("Segments", columns, [list(row.values()) for row in rows]), as_json=as_json)
