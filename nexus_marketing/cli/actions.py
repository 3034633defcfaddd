"""``nexus-marketing actions``: what was asked for by name, what became of it, and once more."""

from typing import Annotated

import typer

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, tenant_id_of
from nexus_marketing.core.actions import ActionState
from nexus_marketing.db.queries.resources.campaigns import ACTIONS
from nexus_marketing.services.actions.requests import retry_action

app = typer.Typer(no_args_is_help=True, help="Named actions: of campaigns, escalations and journeys.")


@app.callback()
def actions() -> None:
    """Named actions: of campaigns, escalations and journeys."""


@app.command("list")
def list_(
    context: typer.Context,
    tenant: TenantName,
    *,
    state: Annotated[ActionState | None, typer.Option(help="Only in this state.")] = None,
    campaign: Annotated[int | None, typer.Option(help="Only of this campaign.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show actions and what became of them, the newest first."""
    asked = [f"state == '{state}'" if state else "", f"campaign_id == {campaign}" if campaign is not None else ""]
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, ACTIONS, limit, " and ".join(filter(None, asked)))
    columns = ("id", "name", "source", "campaign_id", "state", "reason", "detail", "attempts")
    show_rows("Actions", columns, rows, as_json=as_json)


@app.command()
def retry(
    context: typer.Context,
    action: Annotated[int, typer.Argument(help="The action's id.")],
    tenant: TenantName,
    *,
    as_json: AsJson = False,
) -> None:
    """Have an action that failed taken once more, under the same key; one that waits is taken now."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = retry_action(ctx, action)
        said = {"id": str(row.id), "name": row.name, "state": row.state}
    answer(said, f"Action {action} ({said['name']}) is {said['state']}: a worker takes it.", as_json=as_json)
