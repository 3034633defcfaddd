"""What a channel is used with: the tenant's account of it, and over it what the tenant set for its plugin."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from nexus_marketing.core.contracts import Channel, ChannelSession
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.plugin.measured import MeasuredSession
from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def sender_of(
    runtime: Runtime, session: Session, channel: str, account: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The settings that a send of the session's tenant goes out with.

    A plugin's channel needs no account beside the plugin's settings; what is built in does.

    Returns:
        Nothing where there is no account that is needed, or the plugin is off.
    """
    settings = runtime.channel_settings(session, channel)
    if settings is None or (account is None and runtime.plugin_of(channel) is None):
        return None
    return {**(account or {}), **settings}


def watched(runtime: Runtime, channel: str, session: ChannelSession) -> ChannelSession:
    """A session as delivery uses it: a plugin's in our process is measured, one in the sandbox is held to its time there."""
    plugin = runtime.plugin_of(channel)
    if plugin is None or plugin.is_sandboxed:
        return session
    return MeasuredSession(session, runtime.plugins.host.circuit(plugin.name), runtime.settings.plugins.call_seconds)


def channel_problems(channel: Channel, sender: Mapping[str, Any], path: str) -> list[Problem]:
    """What a plugin's channel says about the settings that it would be used with."""
    try:
        channel.validate(sender)
    except ValidationError as error:
        return list(error.under(path).problems)
    except Exception as error:  # isolation boundary: a plugin's fault refuses this launch and nothing else
        log.exception("plugin_failed", channel=channel.name)
        said = f"The channel {channel.name} cannot look at its settings ({type(error).__name__}): tell its author."
        return [Problem(path, "plugin_failed", said)]
    return []
