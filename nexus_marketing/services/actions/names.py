"""Which actions a tenant can name: our own, and those of the plugins that it has on."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.actions import OwnAction
from nexus_marketing.core.definitions import named_actions
from nexus_marketing.core.errors import Problem, hint
from nexus_marketing.db.models import Tenant
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Context


def known_actions(ctx: Context) -> frozenset[str]:
    """Every action that the tenant can have taken for a campaign."""
    return frozenset({*(str(each) for each in OwnAction), *plugin_actions(ctx)})


def plugin_actions(ctx: Context) -> frozenset[str]:
    """Those of plugins that the tenant has on: all that can be taken for a lead."""
    return frozenset(
        name for name in ctx.runtime.plugins.of(Capability.ACTION) if action_settings(ctx, name) is not None
    )


def action_settings(ctx: Context, name: str) -> Mapping[str, Any] | None:
    """What the tenant set for the plugin of an action; nothing where the plugin is gone, or off for the tenant."""
    runtime = ctx.runtime
    if name not in runtime.plugins.of(Capability.ACTION):
        return None
    return runtime.settings_of(ctx.session, runtime.plugin_of(name, Capability.ACTION))


def action_problem(ctx: Context, name: str, path: str, *, for_lead: bool = False) -> Problem | None:
    """Why an action cannot be named here, with the remedy; nothing where it can.

    Args:
        ctx: the unit of work.
        name: as the document spells it.
        path: where it stands.
        for_lead: whether it is about one lead, of which our own know nothing.
    """
    known = plugin_actions(ctx) if for_lead else known_actions(ctx)
    if name in known:
        return None
    plugin = ctx.runtime.plugin_of(name, Capability.ACTION)
    if plugin is None:
        said = f"There is no action {name!a}{hint(name, known)}: a plugin adds one with config.add_marketing_action."
        return Problem(path, "unknown_action", said)
    return off_problem(ctx, name, plugin, path)


def off_problem(ctx: Context, name: str, plugin: Plugin, path: str) -> Problem:
    """What a plugin adds cannot be named, since the tenant has the plugin off: with the command that puts it on."""
    slug = ctx.session.scalar(select(Tenant.slug).where(Tenant.id == ctx.tenant_id))
    remedy = f"nexus-marketing plugins enable {plugin.name} --tenant {slug}"
    return Problem(path, "plugin_off", f"{name} belongs to the plugin {plugin.name}, which is off: {remedy}.")


def action_problems(ctx: Context, document: Mapping[str, Any], path: str = "") -> list[Problem]:
    """Every action of a definition's document that the tenant cannot have taken; ``path`` is where the document lies."""
    found = [action_problem(ctx, name, f"{path}.{at}" if path else at) for at, name in named_actions(document)]
    return [each for each in found if each is not None]
