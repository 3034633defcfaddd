"""What a channel account may be set to: the schema of its channel's plugin, then the channel's own look at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import unspoken
from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import NotFound, Problem, ValidationError, hint
from nexus_marketing.core.schemas import check
from nexus_marketing.core.values import canonical
from nexus_marketing.delivery.senders import channel_problems
from nexus_marketing.plugin.manifests import Capability, Manifest
from nexus_marketing.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of an account, its secrets apart."""

    plain: dict[str, Any]
    secrets: dict[str, Any] = field(repr=False)


def find_channel(runtime: Runtime, type_: str) -> Channel:
    """The channel that accounts of a type are for.

    Raises:
        ValidationError: there is none of this name here.
    """
    channel = runtime.channels.get(type_)
    if channel is None:
        said = f"There is no channel {type_!a:.60} here{hint(type_, runtime.channels)}."
        raise ValidationError.at("type", "unknown_channel", said)
    return channel


def secrets_of_type(runtime: Runtime, type_: str) -> frozenset[str]:
    """The settings of a channel that are secrets, by its own word or its manifest's."""
    channel, manifest = runtime.channels.get(type_), _manifest(runtime, type_)
    named = frozenset[str]() if channel is None else channel.capabilities.secret_settings
    return named if manifest is None else named | manifest.secrets


def channel_types(runtime: Runtime) -> list[dict[str, Any]]:
    """The channels that accounts may be made for, by name.

    Returns:
        ``type``, ``address`` (what reaches people by it), ``settings``: of each setting its ``name``, whether it is a
        ``secret`` and ``required``, and the ``type`` of its value where the plugin says it.
    """
    return [_type_document(runtime, name) for name in sorted(runtime.channels)]


def read_config(
    runtime: Runtime, session: Session, type_: str, given: Mapping[str, Any], known: Config | None = None
) -> Config:
    """An account's settings in the form in which they are stored.

    Args:
        runtime: with the channels.
        session: of the tenant: a plugin's own settings count with the account's.
        type_: the channel.
        given: by name; nothing (``None``) takes a setting out.
        known: what is stored: stays where ``given`` says nothing of it.

    Raises:
        ValidationError: every setting that is unknown, missing or wrong (below ``config``); or a secret that has to be
            given again, because where it is sent has changed. No message repeats a secret.
    """
    channel, names, manifest = find_channel(runtime, type_), secrets_of_type(runtime, type_), _manifest(runtime, type_)
    checked: dict[str, Any] = canonical(dict(given), "config")
    before = known or Config({}, {})
    wanted = {**before.plain, **before.secrets, **checked}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    secrets = {name: wanted[name] for name in sorted(wanted.keys() & names)}
    plain = {name: value for name, value in wanted.items() if name not in names}
    problems = _moved(channel, before, plain, checked)
    if manifest is not None and manifest.settings:
        problems += _said(lambda: check(wanted, manifest.settings, path="config"))
    if not problems:
        of_plugin = runtime.channel_settings(session, type_) or {}
        hidden = [value for name, value in {**wanted, **of_plugin}.items() if name in names]
        problems += channel_problems(channel, {**wanted, **of_plugin}, "config", hidden)
    if problems:
        told = [*secrets.values(), *before.secrets.values()]
        raise ValidationError(problems=[Problem(p.path, p.code, unspoken(p.message, told)) for p in problems])
    return Config(plain, secrets)


def _moved(channel: Channel, before: Config, plain: Mapping[str, Any], given: Mapping[str, Any]) -> list[Problem]:
    """Stored secrets that would be sent elsewhere now."""
    found = []
    for name, places in channel.capabilities.secret_destinations.items():
        moved = sorted(place for place in places if before.plain.get(place) != plain.get(place))
        if moved and name in before.secrets and name not in given:
            said = f"{', '.join(moved)} changed, so that it would be sent elsewhere: give {name} again, or null."
            found.append(Problem(f"config.{name}", "required_again", said))
    return found


def _said(step: Callable[[], None]) -> list[Problem]:
    try:
        step()
    except ValidationError as error:
        return list(error.problems)
    return []


def _manifest(runtime: Runtime, type_: str) -> Manifest | None:
    plugin = runtime.plugins.owner_of(Capability.CHANNEL, type_)
    return None if plugin is None else plugin.manifest


def _type_document(runtime: Runtime, name: str) -> dict[str, Any]:
    manifest, secrets = _manifest(runtime, name), secrets_of_type(runtime, name)
    rules = {} if manifest is None else manifest.settings
    settings = [
        {
            "name": each,
            "secret": each in secrets,
            "required": bool(rules.get(each, {}).get("required")),
            "type": rules.get(each, {}).get("type"),
        }
        for each in sorted({*rules, *secrets})
    ]
    kind = find_channel(runtime, name).capabilities.address_kind
    return {"type": name, "address": str(kind), "settings": settings}


def read_value(runtime: Runtime, type_: str, name: str) -> str:
    """The type of a setting's value as a command line has to read it; text where nobody says.

    Raises:
        NotFound: the plugin says its settings, and this is none.
    """
    manifest = _manifest(runtime, type_)
    rules = {} if manifest is None else manifest.settings
    if rules and name not in rules:
        raise NotFound(f"{type_} has no setting {name!a:.60}{hint(name, rules)}.")
    found = rules.get(name, {}).get("type", "string")
    return found if isinstance(found, str) else "string"
