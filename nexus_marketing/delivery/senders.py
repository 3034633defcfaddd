"""What a channel is used with: the tenant's account of it, and over it what the tenant set for its plugin."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.core.accounts import Account, carrying, serving, unspoken
from nexus_marketing.core.contracts import Channel, ChannelSession
from nexus_marketing.core.errors import NexusError, Problem, ValidationError
from nexus_marketing.db.queries.accounts import accounts_of
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.plugin.measured import MeasuredSession
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


class NoAccount(NexusError):
    """The account that the send goes out by is off or gone, and no other may stand in for it."""

    code = "no_account"


@dataclass(frozen=True, slots=True)
class AskedWith:
    """What a channel is asked with about a message that it handed over; ``secrets`` are the values nobody may be shown."""

    account_id: int | None
    settings: Mapping[str, Any] = field(repr=False)
    secrets: Sequence[Any] = field(repr=False)


def sender_of(
    runtime: Runtime, session: Session, channel: str, account: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The settings that a send of the session's tenant pins: no secrets, which it reads when messages leave.

    A plugin's channel needs no account beside the plugin's settings; what is built in does.

    Returns:
        Nothing where there is no account that is needed, or the plugin is off.
    """
    settings = runtime.channel_settings(session, channel, secrets=False)
    if settings is None or (account is None and runtime.plugin_of(channel) is None):
        return None
    return {**(account or {}), **settings}


def accounts_for(channel: Channel, accounts: Sequence[Account], sender: Mapping[str, Any]) -> list[Account]:
    """Those of a channel's accounts that may carry what a send pinned as its sender; empty where it needs none.

    Raises:
        NoAccount: the send pinned a server of its own, and there is no such account any more.
    """
    about = channel.capabilities
    found = serving(accounts, about.identity_settings, sender)
    places = {place for places in about.secret_destinations.values() for place in places}
    if not found and any(sender.get(place) for place in places):
        raise NoAccount("Its channel account is off or gone: switch one with the same sender on, then try again.")
    return found


def carrying_accounts(
    runtime: Runtime, session: Session, channel: str, sender: Mapping[str, Any] | None
) -> list[Account]:
    """The accounts that would share a send of this sender now; empty where it needs none, or has none to leave by."""
    found = runtime.channels.get(channel)
    if found is None:
        return []
    try:
        return carrying(accounts_for(found, runtime.accounts.of(session).get(channel, ()), sender or {}))
    except NoAccount:
        return []


def asked_with(
    runtime: Runtime, session: Session, channel: Channel, accounts: Sequence[Account], sender: Mapping[str, Any]
) -> list[AskedWith]:
    """With what a channel is asked about what a send handed over: the settings of each account that may have carried it.

    Args:
        runtime: of the process.
        session: of the tenant.
        channel: the send's.
        accounts: the tenant's of this channel.
        sender: what the send pinned.

    Raises:
        NoAccount: see :func:`accounts_for`.
        SecretsUnreadable: the key of an account's secrets is gone.
    """
    of_plugin = runtime.channel_settings(session, channel.name) or {}
    shown = runtime.channel_settings(session, channel.name, secrets=False) or {}
    ways = []
    for each in accounts_for(channel, accounts, sender) or (None,):
        config = sender if each is None else each.config
        own = sender if each is None else runtime.account_settings(tenant_of(session), each)
        settings = {**own, **of_plugin}
        hidden = channel.capabilities.secret_settings | (settings.keys() - config.keys() - shown.keys())
        secrets = [settings[name] for name in settings.keys() & hidden]
        ways.append(AskedWith(None if each is None else each.id, settings, secrets))
    return ways


def watched(runtime: Runtime, channel: str, session: ChannelSession) -> ChannelSession:
    """A session as delivery uses it: a plugin's in our process is measured, one in the sandbox is held to its time there."""
    plugin = runtime.plugin_of(channel)
    if plugin is None or plugin.is_sandboxed:
        return session
    host = runtime.plugins.host
    return MeasuredSession(session, host.circuit(plugin.name), runtime.settings.plugins.call_seconds, host.overruns)


def launch_problems(runtime: Runtime, session: Session, channel: Channel, path: str) -> list[Problem]:
    """What a plugin's channel says of the settings that a launch would go out with, secrets among them."""
    account = next(iter(accounts_of(session).get(channel.name, ())), None)
    own = {} if account is None else runtime.account_settings(tenant_of(session), account)
    of_plugin = runtime.channel_settings(session, channel.name) or {}
    plain = {**({} if account is None else account.config), **(sender_of(runtime, session, channel.name, {}) or {})}
    settings = {**own, **of_plugin}
    hidden = [value for name, value in settings.items() if name not in plain]
    return channel_problems(channel, settings, path, hidden)


def channel_problems(
    channel: Channel, settings: Mapping[str, Any], path: str, hidden: Iterable[Any] = ()
) -> list[Problem]:
    """What a channel says about settings that it would be used with, below ``path``; nothing of what is ``hidden``."""
    secrets = list(hidden)
    try:
        channel.validate(settings)
    except ValidationError as error:
        return [Problem(each.path, each.code, unspoken(each.message, secrets)) for each in error.under(path).problems]
    except Exception as error:  # isolation boundary: a plugin's fault refuses these settings and nothing else
        log.exception("plugin_failed", channel=channel.name)
        said = f"The channel {channel.name} cannot look at its settings ({type(error).__name__}): tell its author."
        return [Problem(path, "plugin_failed", said)]
    return []
