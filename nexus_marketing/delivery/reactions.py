"""Asking networks what people did about a post; no transaction is open meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nexus_marketing.core.accounts import unspoken
from nexus_marketing.core.contracts import Reaction, WatchedChannel
from nexus_marketing.core.errors import NexusError
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """A post, and what its channel is asked with; ``settings`` hold the account's secrets."""

    send_id: int
    channel: str
    code: str
    settings: Mapping[str, Any] = field(repr=False)
    secrets: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found; ``error`` says why nothing could be, in a sentence for a person."""

    reactions: Sequence[Reaction]
    error: str = ""


def look_at(channel: WatchedChannel, post: Watched) -> Seen:
    """Everything that the network shows of a post now."""
    try:
        return Seen(channel.reactions(post.settings, post.code))
    except NexusError as error:
        return Seen((), unspoken(error.message[:300], post.secrets))
    except Exception as error:  # isolation boundary: a plugin's fault is this post's answer
        log.exception("plugin_failed", channel=post.channel)
        return Seen((), f"The channel {post.channel} failed ({type(error).__name__}): tell its author.")
