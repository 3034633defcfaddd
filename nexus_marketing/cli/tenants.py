"""Commands on tenants and their keys."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from nexus_marketing.cli.app import AsJson, ForTenant, opened, show, tenant_id
from nexus_marketing.core.actors import Actor
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.models import Tenant

OPERATOR = Actor("operator:cli")
tenants_group = typer.Typer(no_args_is_help=True, help="Tenants.")
keys_group = typer.Typer(no_args_is_help=True, help="API keys.")


def register(app: typer.Typer) -> None:
    """Add the groups."""
    app.add_typer(tenants_group, name="tenants")
    app.add_typer(keys_group, name="keys")


@tenants_group.command("create")
def create(
    context: typer.Context,
    slug: Annotated[str, typer.Argument(help="Short name: lower case letters, digits, hyphens.")],
    name: Annotated[str, typer.Option(help="The name people see.")] = "",
) -> None:
    """Create a tenant."""
    from nexus_marketing.services.tenants import create_tenant

    with opened(context) as runtime:
        typer.echo(f"Tenant {slug} has id {create_tenant(runtime, slug, name or slug)}.")


@tenants_group.command("list")
def list_tenants(context: typer.Context, as_json: AsJson = False) -> None:
    """List tenants."""
    with opened(context) as runtime, runtime.work(None, role="owner", mode="read") as ctx:
        rows = [
            {"id": row.id, "slug": row.slug, "name": row.name, "suspended_at": row.suspended_at}
            for row in ctx.session.scalars(select(Tenant).order_by(Tenant.id))
        ]
    show(rows, as_json=as_json, title="Tenants")


@tenants_group.command("suspend")
def suspend(
    context: typer.Context,
    slug: str,
    lift: Annotated[bool, typer.Option("--lift", help="End the suspension.")] = False,
) -> None:
    """Refuse every key of a tenant from now on."""
    from nexus_marketing.services.tenants import suspend_tenant

    with opened(context) as runtime:
        suspend_tenant(runtime, slug, suspended=not lift, actor=OPERATOR)
    typer.echo(f"Tenant {slug} is {'active' if lift else 'suspended'}.")


@tenants_group.command("apply")
def apply(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="A folder of <slug>/tenant.toml files, or of one tenant.")],
    as_json: AsJson = False,
) -> None:
    """Make tenants what their files say; running it again changes nothing."""
    from nexus_marketing.services.declarations import apply_declarations

    with opened(context) as runtime:
        applied = apply_declarations(runtime, directory, actor=OPERATOR)
    show([{"slug": a.slug, "id": a.tenant_id, "outcome": a.outcome} for a in applied], as_json=as_json, title="Applied")


@keys_group.command("create")
def create_key(
    context: typer.Context,
    tenant: ForTenant,
    scopes: Annotated[str, typer.Option(help="Comma separated; * for all.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires: Annotated[str, typer.Option(help="A moment with zone, like 2027-01-01T00:00:00Z.")] = "",
    as_json: AsJson = False,
) -> None:
    """Issue a key; it is shown now and never again."""
    from nexus_marketing.services import tenants as services

    words = [word.strip() for word in scopes.split(",") if word.strip()]
    with opened(context) as runtime, runtime.work(tenant_id(runtime, tenant), OPERATOR) as ctx:
        row, secret = services.create_key(ctx, name, words, expires_at=_moment(expires))
        shown = {"key": secret, "key_id": row.key_id, "scopes": " ".join(row.scopes)}
    if as_json:
        show([shown], as_json=True)
    else:
        typer.echo(f"{secret}\nThis key is shown once: keep it.")


@keys_group.command("list")
def list_keys(context: typer.Context, tenant: ForTenant, as_json: AsJson = False) -> None:
    """List a tenant's keys, without secrets."""
    from nexus_marketing.services import tenants as services

    with opened(context) as runtime, runtime.work(tenant_id(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = [
            {
                "key_id": row.key_id,
                "name": row.name,
                "scopes": " ".join(row.scopes),
                "expires_at": row.expires_at,
                "revoked_at": row.revoked_at,
            }
            for row in services.list_keys(ctx)
        ]
    show(rows, as_json=as_json, title="Keys")


@keys_group.command("revoke")
def revoke_key(context: typer.Context, tenant: ForTenant, key_id: str) -> None:
    """End a key; every process refuses it within a second."""
    from nexus_marketing.services import tenants as services

    with opened(context) as runtime, runtime.work(tenant_id(runtime, tenant), OPERATOR) as ctx:
        services.revoke_key(ctx, key_id)
    typer.echo(f"Key {key_id} is revoked.")


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValidationError.at("expires", "not_a_moment", f"{text!r}: write 2027-01-01T00:00:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
