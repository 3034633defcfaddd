"""Commands on campaigns: launch, and explain what became of somebody."""

from typing import Annotated

import typer
from sqlalchemy import select

from nexus_marketing.cli.app import AsJson, ForTenant, opened, show, tenant_id
from nexus_marketing.cli.tenants import OPERATOR
from nexus_marketing.core.errors import NotFound
from nexus_marketing.db.models import Delivery, Lead, Send

group = typer.Typer(no_args_is_help=True, help="Campaigns.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="campaigns")
    app.command("explain")(explain)


@group.command()
def launch(context: typer.Context, tenant: ForTenant, campaign: Annotated[int, typer.Argument(help="Its id.")]) -> None:
    """Launch a campaign; the same as POST /api/v1/campaigns/{id}/launch."""
    from nexus_marketing.services.campaigns import launch_campaign

    with opened(context) as runtime, runtime.work(tenant_id(runtime, tenant), OPERATOR) as ctx:
        launched = launch_campaign(ctx, campaign)
        typer.echo(f"Campaign {campaign} is {launched.status}.")


def explain(
    context: typer.Context,
    tenant: ForTenant,
    lead: Annotated[int, typer.Option(help="The lead's id.")],
    campaign: Annotated[int, typer.Option(help="The campaign's id.")],
    as_json: AsJson = False,
) -> None:
    """Say what became of one lead in one campaign, and why."""
    with opened(context) as runtime, runtime.work(tenant_id(runtime, tenant), OPERATOR, mode="read") as ctx:
        if ctx.session.get(Lead, (ctx.tenant_id, lead)) is None:
            raise NotFound(f"There is no lead {lead}.")
        statement = (
            select(Delivery, Send)
            .join(Send, (Send.tenant_id == Delivery.tenant_id) & (Send.id == Delivery.send_id))
            .where(Send.campaign_id == campaign, Delivery.lead_id == lead)
            .order_by(Send.id)
        )
        rows = [
            {
                "send": send.id,
                "send_status": send.status,
                "state": delivery.state,
                "reason": delivery.reason,
                "attempts": delivery.attempts,
                "answer": delivery.provider_code,
                "settled_at": delivery.settled_at,
                "due_at": delivery.due_at,
            }
            for delivery, send in ctx.session.execute(statement)
        ]
    if not rows and not as_json:
        typer.echo(f"Lead {lead} was in no audience of campaign {campaign}.")
        return
    show(rows, as_json=as_json, title=f"Lead {lead} in campaign {campaign}")
