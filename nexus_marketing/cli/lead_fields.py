"""``nexus-marketing leads fields``: what a tenant declares of its leads' metadata."""

from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.conditions import FieldType
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.leads import field_declarations as services

app = typer.Typer(no_args_is_help=True, help="Fields of a tenant's own, beside those that every lead has.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The field's name in metadata and in conditions.")]
_COLUMNS = ("name", "type", "required", "personal", "allowed", "bounds")


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """List the fields that were declared here or through the API; those of tenant.toml are in that file."""
    with context.obj.runtime() as runtime, _reading(runtime, tenant) as ctx:
        rows = [{"name": row.name, **services.document_of(row)} for row in services.list_fields(ctx)]
    answer(
        {"data": rows}, table("Fields", _COLUMNS, [[row[name] for name in _COLUMNS] for row in rows]), as_json=as_json
    )


@app.command()
def declare(
    context: typer.Context,
    tenant: TenantName,
    name: Name,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="text, number, boolean, date, datetime or list.")],
    allowed: Annotated[list[str] | None, typer.Option(help="A value it may have; may be repeated.")] = None,
    low: Annotated[str | None, typer.Option("--min", help="Smallest value, or shortest length.")] = None,
    high: Annotated[str | None, typer.Option("--max", help="Largest value, or longest length.")] = None,
    *,
    required: Annotated[bool, typer.Option("--required", help="New leads must have it.")] = False,
    personal: Annotated[bool, typer.Option(help="Whether erasing a lead clears it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Declare a field, and tell which leads do not fit it; nothing is ever cast."""
    ends = {"min": low, "max": high}
    data: dict[str, Any] = {"name": name, "type": type_, "required": required, "personal": personal}
    data["bounds"] = {end: _read(text, type_) for end, text in ends.items() if text is not None}
    if allowed:
        data["allowed"] = [_read(text, type_) if type_ == FieldType.NUMBER else text for text in allowed]
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR) as ctx:
            row, _ = services.declare_field(ctx, data)
        found = _check_all(runtime, tenant_id, row.id)
    _answer_check(f"{name} is declared.", name, found, as_json=as_json)


@app.command()
def check(context: typer.Context, tenant: TenantName, name: Name, *, as_json: AsJson = False) -> None:
    """Tell which leads do not fit a field."""
    with context.obj.runtime() as runtime:
        tenant_id = tenant_id_of(runtime, tenant)
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            field_id = services.find_field(ctx, name).id
        found = _check_all(runtime, tenant_id, field_id)
    _answer_check("", name, found, as_json=as_json)


@app.command()
def remove(context: typer.Context, tenant: TenantName, name: Name, *, as_json: AsJson = False) -> None:
    """Take a declaration back, unless segments or templates use the field; leads keep their values."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        services.remove_field(ctx, services.find_field(ctx, name).id)
    answer({"name": name, "removed": True}, f"{name} is no declared field any more.", as_json=as_json)


def _reading(runtime: Runtime, tenant: str) -> AbstractContextManager[Context]:
    return runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read")


def _read(text: str, type_: str) -> Any:
    """A bound: a number where one is meant, and left for the check to refuse where it is none."""
    if type_ in (FieldType.DATE, FieldType.DATETIME):
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _check_all(runtime: Runtime, tenant_id: int, field_id: int) -> services.Misfits:
    """Each look is a read of its own, so that no transaction stays open over a million leads."""
    total = count = after = 0
    rows: list[tuple[int, str]] = []
    while True:
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            found = services.misfits(ctx, field_id, after)
        total, count = total + found.checked, count + found.count
        rows += list(found.rows)[: 100 - len(rows)]
        if found.next_id is None:
            return services.Misfits(total, count, rows, None)
        after = found.next_id


def _answer_check(said: str, name: str, found: services.Misfits, *, as_json: bool) -> None:
    rows = [{"lead_id": str(lead_id), "code": code} for lead_id, code in found.rows]
    lines = [said, f"{found.checked} leads looked at, {found.count} do not fit."]
    lines += [f"  lead {row['lead_id']}: {row['code']}" for row in rows[:10]]
    document = {"name": name, "checked": found.checked, "misfits": found.count, "data": rows}
    answer(document, "\n".join(filter(None, lines)), as_json=as_json)
