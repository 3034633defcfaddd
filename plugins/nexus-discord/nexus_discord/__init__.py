"""The channel discord for nexus-marketing: a message is a post by a webhook of a Discord channel."""

from typing import Any

from nexus_discord.channels import DiscordChannel
from nexus_marketing.plugin import API_VERSION, Capability, Manifest

__all__ = ["MANIFEST", "DiscordChannel", "includeme"]

MANIFEST = Manifest(
    name="nexus-discord",
    version="1.0.0.dev0",
    api=API_VERSION,
    capabilities=frozenset({Capability.CHANNEL}),
    settings={
        "webhook": {"type": "string", "required": True, "maxlength": 40},
        "username": {"type": "string", "maxlength": 80},
    },
    hosts=("discord.com",),
)


def includeme(config: Any) -> None:
    """Called once by every process that names nexus_discord in nexus.includes."""
    ctx = config.add_marketing_plugin(MANIFEST)
    config.add_marketing_channel(DiscordChannel(ctx.http, ctx.clock))
