"""``nexus-marketing members``: the people who act for a tenant."""

from typing import Annotated

import typer

from nexus_marketing.cli.lists import Limit, newest, show_rows
from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, tenant_id_of
from nexus_marketing.core.permissions import FORMER
from nexus_marketing.db.queries.resources.messages import MEMBERS
from nexus_marketing.services.tenants import MEMBER_ROLES, change_role, create_member

app = typer.Typer(no_args_is_help=True, help="Members: the people who act for a tenant, each in a role.")
_ROLES = ", ".join(MEMBER_ROLES)


@app.command()
def add(
    context: typer.Context,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Their address: nobody else of the tenant has it.")],
    tenant: TenantName,
    role: Annotated[str, typer.Option(help=f"One of {_ROLES}.")],
    name: Annotated[str, typer.Option(help="What people call them (default: the address).")] = "",
    manager: Annotated[int | None, typer.Option(help="The id of the member whom escalation turns to.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Let somebody act for a tenant."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        row = create_member(ctx, name or email, email, role, manager_id=manager)
    document = {"id": str(row.id), "email": row.email, "role": row.role}
    answer(document, f"Member {row.id} is {row.role} of {tenant}.", as_json=as_json)


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, limit: Limit = 100, *, as_json: AsJson = False) -> None:
    """List the people who act for a tenant."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = newest(ctx, MEMBERS, limit)
    show_rows(f"Members of {tenant}", ("id", "name", "email", "role", "manager_id"), rows, as_json=as_json)


@app.command("change")
def change(
    context: typer.Context,
    member: Annotated[int, typer.Argument(metavar="ID", help="Of the member, as `members list` shows it.")],
    tenant: TenantName,
    role: Annotated[str, typer.Option(help=f"One of {_ROLES}; {FORMER} for who left.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Give somebody another role, within a second everywhere; of who left the keys end as well."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        ended = change_role(ctx, member, role)
    said = f"Member {member} is {role} now" + (f"; keys that ended: {ended}." if ended else ".")
    answer({"id": str(member), "role": role, "keys_ended": ended}, said, as_json=as_json)
