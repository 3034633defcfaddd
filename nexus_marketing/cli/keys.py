"""``nexus-marketing keys``: API keys of a tenant."""

from datetime import timedelta
from typing import Annotated

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.services.secret_rotation import rotate_secrets
from nexus_marketing.services.tenants import create_key, list_keys, revoke_key

app = typer.Typer(no_args_is_help=True, help="API keys: shown once, stored as a hash.")


@app.command()
def create(
    context: typer.Context,
    tenant: TenantName,
    scopes: Annotated[str, typer.Option(help="Comma-separated, for example leads:read,leads:write; * for all.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days until it expires (default: never).")] = None,
    member: Annotated[int | None, typer.Option(help="The id of the member whom the key acts for.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Issue a key and show it, this once."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        expires_at = None if expires_days is None else ctx.now + timedelta(days=expires_days)
        row, text = create_key(ctx, name, scopes.replace(",", " ").split(), expires_at=expires_at, member_id=member)
    document = {"key": text, "key_id": row.key_id, "scopes": row.scopes, "expires_at": row.expires_at}
    answer(document, f"{text}\nKeep it now: it is not shown again.", as_json=as_json)


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """List a tenant's keys, without their secrets."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        columns = ("key_id", "name", "scopes", "created_at", "expires_at", "revoked_at")
        rows = [{column: getattr(row, column) for column in columns} for row in list_keys(ctx)]
    cells = [[" ".join(row["scopes"]) if name == "scopes" else row[name] for name in columns] for row in rows]
    answer({"data": rows}, table(f"Keys of {tenant}", columns, cells), as_json=as_json)


@app.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="The 8 characters after nmk_live_.")],
    tenant: TenantName,
    *,
    as_json: AsJson = False,
) -> None:
    """End a key; every process knows within a second."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = revoke_key(ctx, key_id)
    answer({"key_id": row.key_id, "revoked_at": row.revoked_at}, f"Key {row.key_id} is revoked.", as_json=as_json)


@app.command()
def rotate(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Encrypt tenants' stored secrets again under the first key of nexus.secret_key; exit 1 if some cannot be read."""
    with context.obj.runtime() as runtime:
        done = rotate_secrets(runtime, OPERATOR)
    text = f"{done.renewed} of {done.sealed} stored secrets are under the newest key now."
    if done.unreadable:
        text += f" {done.unreadable} cannot be read: write their key back into nexus.secret_key, or set them again."
    answer(done._asdict(), text, as_json=as_json)
    if done.unreadable:
        raise typer.Exit(1)
