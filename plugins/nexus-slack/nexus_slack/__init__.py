"""The channel slack for nexus-marketing: a message is a post in a Slack channel."""

from typing import Any

from nexus_marketing.plugin import API_VERSION, Capability, Manifest
from nexus_slack.channels import SlackChannel

__all__ = ["MANIFEST", "SlackChannel", "includeme"]

MANIFEST = Manifest(
    name="nexus-slack",
    version="1.0.0.dev0",
    api=API_VERSION,
    capabilities=frozenset({Capability.CHANNEL}),
    settings={
        "channel": {"type": "string", "maxlength": 80},
        "webhook": {"type": "string", "maxlength": 40},
        "username": {"type": "string", "maxlength": 80},
    },
    hosts=("slack.com", "hooks.slack.com"),
)


def includeme(config: Any) -> None:
    """Called once by every process that names nexus_slack in nexus.includes."""
    ctx = config.add_marketing_plugin(MANIFEST)
    config.add_marketing_channel(SlackChannel(ctx.http, ctx.clock, ctx.settings.get("api", SlackChannel.API)))
