"""``nexus-marketing campaigns`` and ``explain``: launch one, and say what became of a lead in it."""

from typing import Annotated, Any

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, tenant_id_of
from nexus_marketing.core.errors import NotFound
from nexus_marketing.core.values import email_norm
from nexus_marketing.db.models import Campaign, Lead
from nexus_marketing.db.queries.leads import lead_by_address
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns import launch_campaign
from nexus_marketing.services.explanations import explain_lead

app = typer.Typer(no_args_is_help=True, help="Campaigns.")


@app.callback()
def campaigns() -> None:
    """Campaigns."""


@app.command()
def launch(
    context: typer.Context,
    campaign: Annotated[int, typer.Argument(help="The campaign's id.")],
    tenant: TenantName,
    *,
    as_json: AsJson = False,
) -> None:
    """Launch a campaign; workers plan its audience and send."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        launched = launch_campaign(ctx, campaign)
    document = {"id": str(launched.id), "status": launched.status, "version": launched.version}
    answer(document, f"Campaign {launched.id} is {launched.status}.", as_json=as_json)


def explain(
    context: typer.Context,
    tenant: TenantName,
    lead: Annotated[str, typer.Option("--lead", help="Id, e-mail address or external id.")],
    campaign: Annotated[int, typer.Option("--campaign", help="The campaign's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what became of a lead in a campaign, and why."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        find(ctx.session, Campaign, campaign)
        explained = explain_lead(ctx, _lead_id(ctx, lead), campaign)
    answer(explained, "\n".join([explained["sentence"], *map(_line, explained["deliveries"])]), as_json=as_json)


def _line(delivery: dict[str, Any]) -> str:
    facts = [f"send {delivery['send_id']} by {delivery['channel']}", delivery["state"], delivery["reason"]]
    facts += [delivery["provider_code"], delivery["settled_at"] and delivery["settled_at"].isoformat()]
    return "  " + ", ".join(str(fact) for fact in facts if fact)


def _lead_id(ctx: Context, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:
        return find(ctx.session, Lead, int(text)).id
    found = lead_by_address(ctx.session, text, email_norm(text))
    if found is None:
        raise NotFound("There is no lead with this id, e-mail address or external id.")
    return found
