"""The built-in channels that go out by HTTP, as far as the operator set them up."""

from collections.abc import Mapping

from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider
from nexus_marketing.builtins.channels.webhook import WebhookChannel
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import Channel
from nexus_marketing.core.errors import ConfigurationError, HostRefused, ValidationError
from nexus_marketing.plugin.http import HttpClient, HttpLimits
from nexus_marketing.settings import Settings


def http_channels(settings: Settings, clock: Clock) -> Mapping[str, Channel]:
    """The channels by name, over one client.

    Raises:
        ConfigurationError: names the setting that is wrong.
    """
    client = HttpClient(HttpLimits(allow_hosts=settings.http.allow_hosts))
    found: dict[str, Channel] = {}
    try:
        if settings.sms.url:
            found["sms"] = SmsChannel(_provider(settings), client, clock)
    except HostRefused as error:
        raise ConfigurationError(f"nexus.sms.url: {error.message}.") from error
    hook = settings.webhook
    try:
        if hook.secrets:
            found["webhook"] = WebhookChannel(
                client, clock, secrets=hook.secrets, connections=hook.connections, origin=settings.public_url
            )
    except ValidationError as error:
        raise ConfigurationError(f"nexus.webhook.{error.message}") from error
    return found


def _provider(settings: Settings) -> SmsProvider:
    sms = settings.sms
    return SmsProvider(sms.url, sms.account, sms.token, sms.sender, sms.price_minor, sms.connections, sms.max_segments)
