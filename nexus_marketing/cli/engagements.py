"""``nexus-marketing engagements``: counters compared with the rows they count."""

from typing import Annotated

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.services.counters import reconcile_counters

app = typer.Typer(no_args_is_help=True, help="Engagements: what people did.")


@app.callback()
def engagements() -> None:
    """Engagements: what people did."""


@app.command()
def reconcile(
    context: typer.Context,
    tenant: TenantName,
    *,
    repair: Annotated[bool, typer.Option(help="Mend what differs; safe while others write.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count every engagement anew and show where the counters differ; exit 1 when they do and are not repaired."""
    with context.obj.runtime() as runtime:
        found = reconcile_counters(runtime, tenant_id_of(runtime, tenant), repair=repair, actor=OPERATOR)
    rows = [each._asdict() for each in found]
    columns = ("campaign_id", "day", "type", "verdict", "hits", "recipients")
    text = table("What the counters lacked" if repair else "What the counters lack", columns, [list(r) for r in found])
    answer(
        {"data": rows, "repaired": repair and bool(rows)}, text if rows else "Every counter is right.", as_json=as_json
    )
    if rows and not repair:
        raise typer.Exit(1)
