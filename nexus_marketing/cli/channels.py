"""``nexus-marketing channels``: a tenant's accounts at providers, and whether they work."""

from dataclasses import asdict
from json import JSONDecodeError, loads
from typing import Annotated, Any

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.ids import parse_id
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.accounts import all_accounts
from nexus_marketing.db.tenancy import find
from nexus_marketing.delivery.trying import Tried
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.channels.configs import channel_types, read_value
from nexus_marketing.services.channels.records import create_account, delete_account, update_account
from nexus_marketing.services.channels.trials import probe_account, send_test

app = typer.Typer(
    no_args_is_help=True, help="Channel accounts of a tenant: servers and providers that messages leave by."
)
Id = Annotated[str, typer.Argument(metavar="ID", help="Of the account, as `channels list` shows it.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat it. KEY= alone takes it out."),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="KEY", help="A secret setting, asked for and not shown; repeat it."),
]
Weight = Annotated[
    int | None,
    typer.Option(min=0, max=1_000, help="Its share among the channel's accounts; 0 stands by for the others."),
]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether messages leave by it.")]
_SHOWN = (
    "id",
    "type",
    "name",
    "enabled",
    "config",
    "secrets_set",
    "weight",
    "rates",
    "health",
    "health_reason",
    "version",
)


@app.command()
def types(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the channels that there are, and what an account of each can be set to."""
    with context.obj.runtime() as runtime:
        rows = channel_types(runtime)
    cells = [[row["type"], row["address"], ", ".join(map(_setting, row["settings"]))] for row in rows]
    answer({"data": rows}, table("Channels", ("type", "reaches by", "settings"), cells), as_json=as_json)


def _setting(each: dict[str, Any]) -> str:
    return each["name"] + (" (secret)" if each["secret"] else "") + (" (required)" if each["required"] else "")


@app.command("list")
def list_(context: typer.Context, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """List a tenant's accounts: settings, which secrets are set, and health."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR, mode="read") as ctx:
        rows = [_document(account) for account in all_accounts(ctx.session)]
    columns = ("id", "type", "name", "state", "weight", "secrets set", "health")
    cells = [
        [
            row["id"],
            row["type"],
            row["name"],
            "on" if row["enabled"] else "off",
            row["weight"],
            ", ".join(row["secrets_set"]),
            f"{row['health']} {row['health_reason'] or ''}".strip(),
        ]
        for row in rows
    ]
    answer({"data": rows}, table(f"Channel accounts of {tenant}", columns, cells), as_json=as_json)


@app.command()
def add(
    context: typer.Context,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="A channel, as `channels types` lists them.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the account is called.")],
    tenant: TenantName,
    settings: Settings = None,
    secrets: Secrets = None,
    weight: Weight = 1,
    enabled: Enabled = True,
    *,
    as_json: AsJson = False,
) -> None:
    """Add an account; secrets are asked for, or read from standard input line by line."""
    with context.obj.runtime() as runtime:
        data = {"type": type_, "name": name, "config": _config(runtime, type_, settings, secrets)}
        with runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
            document = _document(create_account(ctx, {**data, "weight": weight, "enabled": enabled}))
    answer(document, f"Account {document['id']} ({type_} {name}) is there: try it with channels test.", as_json=as_json)


@app.command()
def change(
    context: typer.Context,
    id_: Id,
    tenant: TenantName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    settings: Settings = None,
    secrets: Secrets = None,
    weight: Weight = None,
    enabled: Enabled = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Change an account: settings that are not named stay."""
    with context.obj.runtime() as runtime:
        tenant_id, number = tenant_id_of(runtime, tenant), parse_id(id_, "channel account")
        with runtime.work(tenant_id, OPERATOR, mode="read") as ctx:
            type_ = find(ctx.session, ChannelAccount, number).type
        data = {"name": name, "weight": weight, "enabled": enabled}
        given: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        if settings or secrets:
            given["config"] = _config(runtime, type_, settings, secrets)
        if not given:
            raise ValidationError.at("", "nothing_to_change", "Name what to change: --set, --secret, --weight, ….")
        with runtime.work(tenant_id, OPERATOR) as ctx:
            document = _document(update_account(ctx, number, given))
    answer(document, f"Account {document['id']} is at version {document['version']}.", as_json=as_json)


@app.command()
def remove(context: typer.Context, id_: Id, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Remove an account and its secrets."""
    number = parse_id(id_, "channel account")
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        delete_account(ctx, number)
    answer({"id": str(number), "removed": True}, f"Account {number} is gone.", as_json=as_json)


@app.command()
def health(context: typer.Context, id_: Id, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Connect to an account's server and log in, and send nothing; exit 1 if it does not work."""
    with context.obj.runtime(sends=True) as runtime:
        tried = probe_account(runtime, tenant_id_of(runtime, tenant), OPERATOR, parse_id(id_, "channel account"))
    _tell(tried, as_json=as_json)


@app.command("test")
def send_one(
    context: typer.Context,
    id_: Id,
    tenant: TenantName,
    to: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the message goes, if the channel needs it.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Send one message by an account; exit 1 if it was not accepted."""
    with context.obj.runtime(sends=True) as runtime:
        tried = send_test(runtime, tenant_id_of(runtime, tenant), OPERATOR, parse_id(id_, "channel account"), to)
    _tell(tried, as_json=as_json)


def _tell(tried: Tried, *, as_json: bool) -> None:
    said = " ".join(filter(None, (tried.outcome, tried.code, tried.detail)))
    answer(asdict(tried), f"{said} ({tried.seconds:.1f} s)", as_json=as_json)
    if not tried.ok:
        raise typer.Exit(1)


def _document(account: ChannelAccount) -> dict[str, Any]:
    return {name: getattr(account, name) if name != "id" else str(account.id) for name in _SHOWN}


def _config(runtime: Runtime, type_: str, settings: list[str] | None, secrets: list[str] | None) -> dict[str, Any]:
    given = dict(_setting_of(runtime, type_, text) for text in settings or ())
    for key in secrets or ():
        given[key] = typer.prompt(key, hide_input=True, err=True)
    return given


def _setting_of(runtime: Runtime, type_: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValidationError.at("set", "not_well_formed", f"{text!a:.80} sets nothing: write --set key=value.")
    if not value:
        return key, None
    kind = read_value(runtime, type_, key)
    if kind == "string":
        return key, value
    try:
        return key, loads(value)
    except JSONDecodeError:
        raise ValidationError.at(key, "wrong_type", f"{value!a:.80} is not of type {kind}: write it as JSON.") from None
