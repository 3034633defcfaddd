"""``nexus-marketing tenants``: set up, list, suspend, and apply declarations."""

from pathlib import Path
from typing import Annotated

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, answer, table, tenant_id_of
from nexus_marketing.db.queries.tenants import list_tenants
from nexus_marketing.services.declarations import apply_declarations
from nexus_marketing.services.tenants import create_tenant, suspend_tenant
from nexus_marketing.services.warm_ups import warm_up_rows

app = typer.Typer(no_args_is_help=True, help="Tenants: the customers of this installation.")
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="2 to 63 of a-z, 0-9 and -, a letter first.")]


@app.command()
def create(
    context: typer.Context,
    slug: Slug,
    name: Annotated[str, typer.Option(help="The name people read (default: the slug).")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Set up a tenant."""
    with context.obj.runtime() as runtime:
        tenant_id = create_tenant(runtime, slug, name or slug, actor=OPERATOR)
    answer({"id": str(tenant_id), "slug": slug}, f"Tenant {slug} has id {tenant_id}.", as_json=as_json)


@app.command("list")
def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the tenants."""
    with context.obj.runtime() as runtime, runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = [
            {
                "id": str(tenant.id),
                "slug": tenant.slug,
                "name": tenant.name,
                "created_at": tenant.created_at,
                "suspended_at": tenant.suspended_at,
            }
            for tenant in list_tenants(ctx.session)
        ]
    columns = ("id", "slug", "name", "created_at", "suspended_at")
    answer({"data": rows}, table("Tenants", columns, [list(row.values()) for row in rows]), as_json=as_json)


@app.command()
def suspend(
    context: typer.Context,
    slug: Slug,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Let it in again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shut a tenant's keys out; its data stays."""
    with context.obj.runtime() as runtime:
        suspend_tenant(runtime, slug, suspended=not resume, actor=OPERATOR)
    answer(
        {"slug": slug, "suspended": not resume},
        f"Tenant {slug} is {'active' if resume else 'suspended'}.",
        as_json=as_json,
    )


@app.command("warm-up")
def warm_up(context: typer.Context, slug: Slug, *, as_json: AsJson = False) -> None:
    """Show where the senders of a tenant stand in their plans, and how the day went so far."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, slug), OPERATOR, mode="read") as ctx:
        rows = warm_up_rows(ctx)
    columns = ("sender", "day", "of", "allowed", "left", "bounced", "complained")
    answer({"data": rows}, table("Senders", columns, [list(row.values()) for row in rows]), as_json=as_json)


@app.command("apply")
def apply_(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Holds <slug>/tenant.toml files.")] = Path("tenants"),
    *,
    as_json: AsJson = False,
) -> None:
    """Make tenants what their files say; applying twice changes nothing."""
    with context.obj.runtime() as runtime:
        applied = apply_declarations(runtime, directory, actor=OPERATOR)
    rows = [{"slug": each.slug, "id": str(each.tenant_id), "outcome": each.outcome} for each in applied]
    answer({"data": rows}, "\n".join(f"{each.slug}: {each.outcome}" for each in applied), as_json=as_json)
