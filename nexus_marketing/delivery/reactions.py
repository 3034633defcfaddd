"""Asking networks what people did about a post; no transaction is open meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from nexus_marketing.core.accounts import unspoken
from nexus_marketing.core.contracts import Reaction, WatchedChannel
from nexus_marketing.core.errors import NexusError, Unavailable
from nexus_marketing.delivery.senders import AskedWith
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found; ``error`` says why nothing could be, in a sentence for a person.

    ``is_away``: whoever asks for another post of the same account now hears the same.
    """

    reactions: Sequence[Reaction]
    error: str = ""
    is_away: bool = False


def look_at(channel: WatchedChannel, name: str, code: str, way: AskedWith) -> Seen:
    """Everything that the network shows of a post now.

    Args:
        channel: whose post it is.
        name: of the channel.
        code: the network's name of the post.
        way: what the channel is asked with.
    """
    try:
        return Seen(channel.reactions(way.settings, code))
    except NexusError as error:
        return Seen((), unspoken(error.message[:300], way.secrets), isinstance(error, Unavailable))
    except Exception as error:  # isolation boundary: a plugin's fault is this post's answer
        log.exception("plugin_failed", channel=name)
        return Seen((), f"The channel {name} failed ({type(error).__name__}): tell its author.")
