"""``nexus-marketing plugins``: what is installed and active, what is wrong with it, and for whom it is on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from nexus_marketing.cli.session import OPERATOR, AsJson, Cli, TenantName, answer, table, tenant_id_of
from nexus_marketing.core.errors import NotFound, ValidationError
from nexus_marketing.plugin.examination import faults_of
from nexus_marketing.plugin.listing import installed_plugins
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.registry import PluginRegistry
from nexus_marketing.plugin.scaffold import KINDS, write_plugin
from nexus_marketing.services.plugins.enabling import read_setting, switch_off, switch_on
from nexus_marketing.services.plugins.listing import plugin_rows
from nexus_marketing.settings import plugin_settings

app = typer.Typer(no_args_is_help=True, help="Plugins: channels and other parts that others wrote.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the plugin, as `plugins list` shows it.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the tenant; repeat it.")
]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="KEY", help="A secret setting, asked for and not shown; repeat it."),
]


@app.command("list")
def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show what is installed, what is active (nexus.includes), whether it fits, and for which tenants it is on."""
    with context.obj.runtime() as runtime, runtime.work(None, OPERATOR, mode="read", role="owner") as ctx:
        rows = plugin_rows(ctx)
    columns = ("plugin", "api", "state", "tenants", "finding")
    answer({"data": rows}, table("Plugins", columns, [_shown(row) for row in rows]), as_json=as_json)


def _shown(row: dict[str, Any]) -> list[object]:
    states = {
        "sandboxed": row["sandboxed"],
        "active": row["active"],
        "unusable": row["installed"] and row["fault"],
        "installed": row["installed"],
    }
    state = next((name for name, holds in states.items() if holds), "gone")
    tenants = row["tenants"] if isinstance(row["tenants"], str) else ", ".join(row["tenants"])
    label = f"{row['name']} {row['version'] or ''}".strip()
    return [label, row["api"], state, tenants, row["fault"] or row["trouble"] or f"adds {', '.join(row['adds'])}"]


@app.command()
def check(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Hold a plugin against its contracts, whether it is active or not; exit 1 if it would stop the boot or misbehave."""
    rows = [{"part": part, "fault": fault} for part, fault in _findings(context.obj, name)]
    shown = table(f"Plugin {name}", ("part", "finding"), [[row["part"], row["fault"] or "ok"] for row in rows])
    answer({"plugin": name, "checks": rows}, shown, as_json=as_json)
    if any(row["fault"] for row in rows):
        raise typer.Exit(1)


def _findings(cli: Cli, name: str) -> Iterator[tuple[str, str]]:
    from nexus_marketing.config import rehearse

    installed = list(installed_plugins(plugin_settings(cli.settings()).untrusted))
    found = next((each for each in installed if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in installed) or "none is"
        raise NotFound(f"No plugin {name!a:.80} is installed: pip install it first (installed: {known}).")
    yield "manifest", found.fault
    if found.fault:
        return
    try:
        registry = rehearse(cli.settings(), found.module)
    except Exception as error:  # noqa: BLE001 - isolation boundary: whatever its include raises stops the boot
        yield f"include {found.module}", f"{type(error).__name__}: {error}"
        return
    yield f"include {found.module}", registry.refused.get(found.module, "")
    if found.module not in registry.refused:
        yield from _parts(registry, name)
    registry.close()


def _parts(registry: PluginRegistry, name: str) -> Iterator[tuple[str, str]]:
    manifest = registry.plugins[name].manifest if name in registry.plugins else None
    added = list(registry.added_by(name))
    for entry in added:
        yield f"{entry.kind} {entry.name}", " ".join(faults_of(entry.kind, entry.thing))
    announced = set() if manifest is None else set(manifest.capabilities)
    for kind in sorted(announced - {entry.kind for entry in added}):
        yield str(kind), "The manifest announces it, and the include adds none."


@app.command()
def enable(
    context: typer.Context,
    name: Name,
    tenant: TenantName,
    settings: Settings = None,
    secrets: Secrets = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Switch a plugin on for a tenant; settings that are not named stay."""
    with context.obj.runtime() as runtime:
        given = {key: read_setting(runtime, name, key, text) for key, text in map(_pair, settings or ())}
        for key in secrets or ():
            given[key] = read_setting(runtime, name, key, typer.prompt(key, hide_input=True, err=True))
        with runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
            changed = switch_on(ctx, name, given)
    done = "is on now" if changed else "was on already"
    answer({"plugin": name, "tenant": tenant, "changed": changed}, f"{name} {done} for {tenant}.", as_json=as_json)


@app.command()
def disable(context: typer.Context, name: Name, tenant: TenantName, *, as_json: AsJson = False) -> None:
    """Switch a plugin off for a tenant: launches through it are refused, sends under way are paused."""
    with context.obj.runtime() as runtime, runtime.work(tenant_id_of(runtime, tenant), OPERATOR) as ctx:
        changed = switch_off(ctx, name)
    done = "is off now" if changed else "was off already"
    answer({"plugin": name, "tenant": tenant, "changed": changed}, f"{name} {done} for {tenant}.", as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValidationError.at("set", "not_well_formed", f"{text!a:.80} sets nothing: write --set key=value.")
    return key, value


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="2 to 40 of a-z, 0-9 and -, a letter first.")],
    kind: Annotated[str, typer.Option(help=f"What it adds: {', '.join(KINDS)}.")] = str(Capability.CHANNEL),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the folder is made.")] = Path(),
    *,
    as_json: AsJson = False,
) -> None:
    """Write a distribution with a working part, its tests and a README, to begin from."""
    folder = write_plugin(out, name, kind)
    files = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    answer({"folder": str(folder), "files": files}, f"Written to {folder}: see its README.md.", as_json=as_json)
