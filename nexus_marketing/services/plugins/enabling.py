"""Which plugins a tenant has on, and with what settings."""

from collections.abc import Mapping
from json import JSONDecodeError, loads
from typing import Any

from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, NotFound, Problem, ValidationError
from nexus_marketing.core.schemas import check
from nexus_marketing.core.values import canonical
from nexus_marketing.db.models import TenantPlugin
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Context, Runtime, plugin_place
from nexus_marketing.services.audit import record
from nexus_marketing.services.plugins.conditions import look_again


def switch_on(ctx: Context, name: str, settings: Mapping[str, Any] = {}, *, keep: bool = True) -> bool:
    """Let the tenant use a plugin; whether that changed anything.

    Args:
        ctx: the unit of work.
        name: of an active plugin.
        settings: as its manifest's schema takes them.
        keep: what was set before stays where ``settings`` says nothing of it; secrets do in any case.

    Raises:
        NotFound: no such plugin is active.
        ValidationError: every setting that is missing, unknown or wrong.
    """
    row, names = _row(ctx, name), secret_names(ctx.runtime, name)
    known = {} if row is None else _secrets_of(ctx, row)
    wanted = {**(row.settings if row is not None and keep else {}), **known, **settings}
    wanted = check_plugin_settings(ctx.runtime, name, wanted)
    secrets = {key: wanted.pop(key) for key in sorted(wanted.keys() & names)}
    before = None if row is None else {"enabled": row.enabled, "settings": row.settings}
    after = {"enabled": True, "settings": wanted}
    if before == after and known == secrets:
        return False
    if row is None:
        row = TenantPlugin(name=name, created_at=ctx.now)
        ctx.session.add(row)
    row.enabled, row.settings, row.updated_at = True, wanted, ctx.now
    ctx.session.flush()
    if known != secrets:
        row.secrets = ctx.runtime.keys.vault.seal(secrets, plugin_place(row.tenant_id, row.id))
        changed = [key for key, value in secrets.items() if known.get(key) != value]
        after, before = {**after, "secrets": changed}, {**(before or {}), "secrets": []}
    _note(ctx, "plugin.enabled", name, before, after)
    look_again(ctx, name)
    return True


def switch_off(ctx: Context, name: str) -> bool:
    """Take a plugin from the tenant; whether it had it. What was set stays; sends by its channels are paused, and segments
    whose rules ask it keep their members.

    Raises:
        NotFound: nobody knows this plugin.
        Conflict: it is built in.
    """
    row = _row(ctx, name)
    if row is None:
        find_plugin(ctx.runtime, name)
    if row is None or not row.enabled:
        return False
    row.enabled, row.updated_at = False, ctx.now
    _note(ctx, "plugin.disabled", name, {"enabled": True}, {"enabled": False})
    look_again(ctx, name)
    return True


def find_plugin(runtime: Runtime, name: str) -> Plugin:
    """An active plugin that a tenant may have on or off.

    Raises:
        NotFound: there is none of this name; names the remedy.
        Conflict: it is built in.
    """
    plugin = runtime.plugins.plugins.get(name)
    if plugin is None:
        known = ", ".join(each.name for each in runtime.plugins.plugins.values() if not each.is_builtin)
        remedy = f"active are {known}" if known else "none is active"
        raise NotFound(f"There is no plugin {name!a:.80} here: name its module in nexus.includes ({remedy}).")
    if plugin.is_builtin:
        raise Conflict(f"{name} is built in: it is on for every tenant.")
    return plugin


def check_plugin_settings(runtime: Runtime, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A tenant's settings of a plugin in canonical form, secrets among them.

    Raises:
        NotFound: no such plugin is active.
        ValidationError: every setting that is missing, unknown or wrong.
    """
    checked: dict[str, Any] = canonical(dict(settings), "")
    check(checked, find_plugin(runtime, name).manifest.settings)
    return checked


def secret_names(runtime: Runtime, name: str) -> frozenset[str]:
    """The settings of a plugin that its manifest, or a channel of it, calls secrets."""
    channels = [entry.thing for entry in runtime.plugins.added_by(name) if entry.kind is Capability.CHANNEL]
    found = {key for channel in channels for key in channel.capabilities.secret_settings}
    plugin = runtime.plugins.plugins.get(name)
    return frozenset(found) | (plugin.manifest.secrets if plugin is not None else frozenset())


def declared_problems(runtime: Runtime, name: str, settings: Mapping[str, Any]) -> list[Problem]:
    """What a file must not say of a plugin: secrets would lie in it as they are written.

    Raises:
        NotFound: no such plugin is active.
        ValidationError: every other setting that is unknown or wrong.
    """
    secrets = secret_names(runtime, name)
    said = f"This is a secret, and does not belong into a file: nexus-marketing plugins enable {name} --secret"
    problems = [Problem(key, "secret", f"{said} {key}.") for key in sorted(settings.keys() & secrets)]
    rules = {key: rule for key, rule in find_plugin(runtime, name).manifest.settings.items() if key not in secrets}
    check(canonical({key: value for key, value in settings.items() if key not in secrets}, ""), rules)
    return problems


def _secrets_of(ctx: Context, row: TenantPlugin) -> dict[str, Any]:
    return ctx.runtime.keys.vault.open(row.secrets, plugin_place(row.tenant_id, row.id))


def read_setting(runtime: Runtime, name: str, key: str, text: str) -> Any:
    """A setting as it is written on a command line: text where the schema wants text, else JSON.

    Raises:
        ValidationError: it is no JSON.
    """
    kind = find_plugin(runtime, name).manifest.settings.get(key, {}).get("type", "string")
    if kind == "string":
        return text
    try:
        return loads(text)
    except JSONDecodeError:
        raise ValidationError.at(key, "wrong_type", f"{text!a:.80} is not of type {kind}: write it as JSON.") from None


def _row(ctx: Context, name: str) -> TenantPlugin | None:
    return ctx.session.scalars(select(TenantPlugin).where(TenantPlugin.name == name).with_for_update()).one_or_none()


def _note(ctx: Context, action: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
    ctx.session.flush()
    record(ctx, action, "plugin", name, {key: ((before or {}).get(key), value) for key, value in after.items()})
    tenant_id, switches = tenant_of(ctx.session), ctx.runtime.switches
    ctx.after_commit(lambda: switches.forget(tenant_id))
