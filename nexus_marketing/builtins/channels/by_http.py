"""The built-in channels that go out by HTTP, each included as far as the operator set it up; else nothing of it is loaded."""

from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator

from nexus_marketing.core.errors import ConfigurationError, HostRefused, ValidationError
from nexus_marketing.plugin.manifests import API_VERSION, Capability, Manifest
from nexus_marketing.version import __version__


def sms(config: Configurator) -> None:
    """Text messages, where ``nexus.sms.url`` names a provider.

    Raises:
        ConfigurationError: names the setting that is wrong.
    """
    runtime = config.registry["nexus.runtime"]
    mine = runtime.settings.sms
    if not mine.url:
        return
    from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider  # noqa: PLC0415 - loads the HTTP client
    from nexus_marketing.plugin.http import HttpClient, HttpLimits  # noqa: PLC0415 - see above

    provider = SmsProvider(
        mine.url,
        mine.account,
        mine.token,
        mine.sender,
        mine.price_minor,
        mine.connections,
        mine.max_segments,
        f"{runtime.settings.public_url}/hooks/-/sms" if mine.callbacks else "",
    )
    client = HttpClient(HttpLimits(allow_hosts=runtime.settings.http.allow_hosts))
    _announce(config, "sms")
    try:
        config.add_marketing_channel(SmsChannel(provider, client, runtime.clock))
    except HostRefused as error:
        raise ConfigurationError(f"nexus.sms.url: {error.message}.") from error


def webhook(config: Configurator) -> None:
    """Messages posted to programs, where ``nexus.webhook.secrets`` sign them.

    Raises:
        ConfigurationError: names the setting that is wrong.
    """
    runtime = config.registry["nexus.runtime"]
    mine = runtime.settings.webhook
    if not mine.secrets:
        return
    from nexus_marketing.builtins.channels.webhook import WebhookChannel  # noqa: PLC0415 - loads the HTTP client
    from nexus_marketing.plugin.http import HttpClient, HttpLimits  # noqa: PLC0415 - see above

    client = HttpClient(HttpLimits(allow_hosts=runtime.settings.http.allow_hosts))
    given = {"secrets": mine.secrets, "connections": mine.connections, "origin": runtime.settings.public_url}
    _announce(config, "webhook")
    try:
        config.add_marketing_channel(WebhookChannel(client, runtime.clock, **given))
    except ValidationError as error:
        raise ConfigurationError(f"nexus.webhook.{error.message}") from error


def _announce(config: Configurator, name: str) -> None:
    kinds = frozenset({Capability.CHANNEL})
    config.add_marketing_plugin(Manifest(name, __version__, API_VERSION, kinds, settings=_SCHEMAS[name]))


_TEXT: Mapping[str, Any] = {"type": "string", "maxlength": 2_000}
_SECRET = {**_TEXT, "meta": {"secret": True}}
#: What accounts can be set to; the channels themselves look at what a schema cannot say.
_SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sms": {"from": _TEXT, "account": _TEXT, "token": _SECRET},
    "webhook": {"url": {**_TEXT, "required": True}, "secrets": _SECRET},
}
