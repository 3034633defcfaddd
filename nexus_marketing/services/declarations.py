"""Tenants as files: ``tenants/<slug>/tenant.toml`` says what a tenant is, and applying it makes it so.

Applying twice changes nothing. Keys in ``tenants/_defaults.toml`` hold for every tenant that does
not say otherwise. A key nobody knows is an error: a typo must not silently mean the default.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.audience import normalise_email_address
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.values import Canonical, canonical, canonical_text
from nexus_marketing.db.models import ChannelAccount
from nexus_marketing.db.queries.tenants import find_tenant
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.audit import record
from nexus_marketing.services.plugins.declarations import Declared, apply_plugins, plugin_problems, read_plugins
from nexus_marketing.services.tenant_settings import check_settings, unknown_keys
from nexus_marketing.services.tenants import change_tenant, create_tenant

DEFAULTS: Final = "_defaults.toml"
_TOP: Final = dict.fromkeys(("name", "settings", "email", "channels", "plugins"))
_EMAIL: Final = dict.fromkeys(("from_email", "from_name", "reply_to", "postal_address", "bounce_domain"))
_ADDRESSES: Final = ("from_email", "reply_to")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A tenant as its file says.

    ``email`` is the sender identity, empty where none is declared; ``channels`` are the settings of the other channels.
    """

    slug: str
    name: str
    settings: Mapping[str, Canonical]
    email: Mapping[str, str]
    channels: Mapping[str, Mapping[str, Canonical]]
    plugins: Declared


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying one declaration did: ``created``, ``changed`` or ``unchanged``."""

    slug: str
    tenant_id: int
    outcome: str


def apply_declarations(runtime: Runtime, directory: Path | str, *, actor: Actor = SYSTEM) -> list[Applied]:
    """Make tenants what the files under a directory say.

    Args:
        directory: holds ``<slug>/tenant.toml`` files and perhaps ``_defaults.toml``, or is the
            folder of one tenant.

    Raises:
        ValidationError: every fault of every file, before anything is changed.
    """
    declared = read_declarations(Path(directory))
    problems = [problem for each in declared for problem in _channel_problems(runtime, each)]
    problems += [problem for each in declared for problem in plugin_problems(runtime, each.slug, each.plugins)]
    if problems:
        raise ValidationError(problems=problems)
    return [_apply(runtime, declaration, actor) for declaration in declared]


def read_declarations(directory: Path) -> list[Declaration]:
    """All declarations under a directory, by slug.

    Raises:
        ValidationError: every fault of every file; the path names file and key.
    """
    is_one = (directory / "tenant.toml").is_file()
    folders = [directory] if is_one else sorted(path.parent for path in directory.glob("*/tenant.toml"))
    root = directory.parent if is_one else directory
    if not folders:
        raise ValidationError.at(str(directory), "no_declaration", "There is no <name>/tenant.toml in this folder.")
    defaults_file = root / DEFAULTS
    defaults = _load(defaults_file) if defaults_file.is_file() else {}
    found: list[Declaration] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            found.append(_declaration(folder.name, _load(folder / "tenant.toml"), defaults))
        except ValidationError as error:
            label = f"{folder.name}/tenant.toml"
            problems += [Problem(f"{label}: {p.path}", p.code, p.message) for p in error.problems]
    if problems:
        raise ValidationError(problems=problems)
    return found


def _load(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValidationError.at(path.name, "not_toml", f"{path.name} cannot be read: {error}.") from error


def _declaration(slug: str, own: Mapping[str, object], defaults: Mapping[str, object]) -> Declaration:
    problems = [*unknown_keys(own, _TOP, ""), *unknown_keys(defaults, _TOP, DEFAULTS)]
    settings: dict[str, Canonical] = {}
    email: dict[str, str] = {}
    try:
        settings = check_settings({**_table(defaults, "settings"), **_table(own, "settings")})
    except ValidationError as error:
        problems += error.problems
    try:
        email = _checked_email({**_table(defaults, "email"), **_table(own, "email")})
    except ValidationError as error:
        problems += error.problems
    channels: dict[str, Mapping[str, Canonical]] = {}
    try:
        channels = _checked_channels({**_table(defaults, "channels"), **_table(own, "channels")})
    except ValidationError as error:
        problems += error.problems
    plugins: Declared = {}
    try:
        plugins = read_plugins({**_table(defaults, "plugins"), **_table(own, "plugins")})
    except ValidationError as error:
        problems += error.problems
    if problems:
        raise ValidationError(problems=problems)
    return Declaration(slug, str(own.get("name") or slug), settings, email, channels, plugins)


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise ValidationError.at(name, "not_a_table", f"{name} is a table: write [{name}] on a line of its own.")
    return table


def _checked_email(table: Mapping[str, object]) -> dict[str, str]:
    """The sender identity; marketing mail must carry a postal address (CAN-SPAM, 15 USC 7704)."""
    if not table:
        return {}
    problems = unknown_keys(table, _EMAIL, "email")
    for required, what in (("from_email", "the address mail comes from"), ("postal_address", "the sender's address")):
        if not str(table.get(required) or "").strip():
            problems.append(Problem(f"email.{required}", "required", f"{required} is missing: write {what}."))
    checked: dict[str, str] = {}
    for name in table.keys() & _EMAIL.keys():
        try:
            checked[name] = _checked_entry(name, table[name])
        except ValidationError as error:
            problems += [Problem(f"email.{name}", each.code, each.message) for each in error.problems]
    if problems:
        raise ValidationError(problems=problems)
    return checked


def _checked_entry(name: str, value: object) -> str:
    text = canonical_text(str(value).strip(), name)
    if name in _ADDRESSES and text:
        return normalise_email_address(text)
    # A postal address may have several lines; everything else ends up in a header.
    if name != "postal_address" and not text.isprintable():
        raise ValidationError.at(name, "control_character", f"{name} has a line break or control character: remove it.")
    return text


def _checked_channels(tables: Mapping[str, object]) -> dict[str, Mapping[str, Canonical]]:
    """Their form; what they mean is each channel's."""
    if "email" in tables:
        raise ValidationError.at("channels.email", "unknown_key", "E-mail is declared as [email], not among channels.")
    return {
        name: {key: canonical(value, f"channels.{name}.{key}") for key, value in _table(tables, name).items()}
        for name in tables
    }


def _channel_problems(runtime: Runtime, declared: Declaration) -> list[Problem]:
    """What the channels themselves say about their settings. Passwords would lie in the database as they are written."""
    problems: list[Problem] = []
    for name, settings in declared.channels.items():
        path = f"{declared.slug}/tenant.toml: channels.{name}"
        channel = runtime.channels.get(name)
        if channel is None:
            said = f"There is no channel {name!r} here: the operator sets it up first, known are {', '.join(runtime.channels)}."
            problems.append(Problem(path, "unknown_channel", said))
            continue
        for key in sorted(settings.keys() & channel.capabilities.secret_settings):
            said = f"{key} is a secret: set it with nexus-marketing channels change, or the operator does (nexus.{name}.{key})."
            problems.append(Problem(f"{path}.{key}", "secret", said))
        try:
            channel.validate(settings)
        except ValidationError as error:
            problems += error.under(path).problems
    return problems


def _apply(runtime: Runtime, declared: Declaration, actor: Actor) -> Applied:
    with runtime.work(None, actor, mode="read", role="owner") as ctx:
        known = find_tenant(ctx.session, declared.slug)
        tenant_id = None if known is None else known.id
    if tenant_id is None:
        tenant_id = create_tenant(runtime, declared.slug, declared.name, declared.settings, actor=actor)
        outcome = "created"
    else:
        is_changed = change_tenant(runtime, declared.slug, declared.name, declared.settings, actor=actor)
        outcome = "changed" if is_changed else "unchanged"
    accounts = {"email": dict(declared.email)} if declared.email else {}
    with runtime.work(tenant_id, actor) as ctx:
        applied = [_apply_account(ctx, *each) for each in {**accounts, **declared.channels}.items()]
        applied.append(apply_plugins(ctx, declared.plugins))
    outcome = "changed" if any(applied) and outcome == "unchanged" else outcome
    return Applied(declared.slug, tenant_id, outcome)


def _apply_account(ctx: Context, channel: str, config: Mapping[str, Canonical]) -> bool:
    wanted = (ChannelAccount.type == channel, ChannelAccount.name == "default")
    account = ctx.session.scalars(select(ChannelAccount).where(*wanted)).one_or_none()
    if account is not None and account.config == config:
        return False
    before = None if account is None else account.config
    if account is None:
        account = ChannelAccount(type=channel, name="default", config={}, enabled=True, created_at=ctx.now)
        ctx.session.add(account)
    else:
        account.version += 1
    account.config, account.updated_at = dict(config), ctx.now
    ctx.session.flush()
    tenant_id, accounts = account.tenant_id, ctx.runtime.accounts
    ctx.after_commit(lambda: accounts.forget(tenant_id))
    record(ctx, "channel.declared", "channel", account.id, {"config": (before, config)}, personal=("config",))
    return True
