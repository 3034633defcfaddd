"""What an operator sees of plugins: installed, active, compatible, and on for whom."""

from typing import Any

from nexus_marketing.db.queries.plugins import tenants_by_plugin
from nexus_marketing.plugin.circuits import TROUBLES, troubles
from nexus_marketing.plugin.listing import Installed, installed_plugins
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Context

EVERYBODY = "all"


def plugin_rows(ctx: Context) -> list[dict[str, Any]]:
    """Every plugin that is installed, active or on for somebody, by name.

    Returns:
        ``name``, ``version``, ``api``, ``module``, ``installed`` (the distribution, or nothing), ``active``,
        ``compatible``, ``adds`` (kinds), ``tenants`` (slugs, or ``all`` for what is built in), ``sandboxed``, ``fault``
        (why it cannot be used), ``trouble`` (what it last failed at).
    """
    runtime = ctx.runtime
    installed = {each.name: each for each in installed_plugins(runtime.settings.plugins.untrusted)}
    active = runtime.plugins.plugins
    # A part with a circuit of its own stands behind the plugin's name.
    failing = {each.plugin.partition(" ")[0]: each.reason for each in troubles(runtime.settings.state_dir / TROUBLES)}
    refused = {module.partition(".")[0].replace("_", "-"): said for module, said in runtime.plugins.refused.items()}
    tenants = tenants_by_plugin(ctx.session)
    names = sorted({*installed, *active, *tenants, *refused})
    rows = [_row(name, installed.get(name), active.get(name), tenants.get(name, [])) for name in names]
    for row in rows:
        row["fault"] = refused.get(row["name"]) or row["fault"]
        row["compatible"] = not row["fault"]
        row["trouble"] = failing.get(row["name"], "")
    return rows


def _row(name: str, installed: Installed | None, plugin: Plugin | None, tenants: list[str]) -> dict[str, Any]:
    manifest = plugin.manifest if plugin is not None else installed.manifest if installed is not None else None
    gone = "" if manifest is not None or installed is not None else "It is neither installed nor active."
    fault = installed.fault if installed is not None and plugin is None else gone
    return {
        "name": name,
        "version": None if manifest is None else manifest.version,
        "api": None if manifest is None else manifest.api,
        "module": plugin.module if plugin is not None else installed.module if installed is not None else None,
        "installed": None if installed is None else installed.distribution,
        "active": plugin is not None,
        "compatible": not fault,
        "adds": [] if manifest is None else sorted(map(str, manifest.capabilities)),
        "tenants": EVERYBODY if plugin is not None and plugin.is_builtin else tenants,
        "sandboxed": plugin is not None and plugin.is_sandboxed,
        "fault": fault,
    }
