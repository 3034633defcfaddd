"""The built-in channels that go out by HTTP, each included as far as the operator set it up; else nothing of it is loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator

from nexus_marketing.core.errors import ConfigurationError, HostRefused, ValidationError
from nexus_marketing.plugin.manifests import API_VERSION, Capability, Manifest
from nexus_marketing.version import __version__

if TYPE_CHECKING:
    from nexus_marketing.builtins.channels.sms import SmsChannel
    from nexus_marketing.plugin.http import HttpClient


def sms(config: Configurator) -> None:
    """Text messages, where ``nexus.sms.url`` names a provider or ``nexus.smpp.enabled`` lets accounts have one.

    Raises:
        ConfigurationError: names the setting that is wrong.
    """
    settings = config.registry["nexus.runtime"].settings
    if settings.smpp.enabled:
        _with_smpp(config, _twilio(config) if settings.sms.url else None)
    elif settings.sms.url:
        _announce(config, "sms")
        config.add_marketing_channel(_twilio(config))


def _twilio(config: Configurator) -> "SmsChannel":
    from nexus_marketing.builtins.channels.sms import SmsChannel, SmsProvider  # noqa: PLC0415 - loads the HTTP client

    runtime = config.registry["nexus.runtime"]
    mine = runtime.settings.sms
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
    try:
        return SmsChannel(provider, _client(config), runtime.clock)
    except HostRefused as error:
        raise ConfigurationError(f"nexus.sms.url: {error.message}.") from error


def _with_smpp(config: Configurator, http: "SmsChannel | None") -> None:
    try:
        from nexus_marketing.builtins.channels.smpp import SmppLimits, SmppWay  # noqa: PLC0415 - an extra
        from nexus_marketing.builtins.channels.smpp_accounts import ALLOW_SETTING, PORTS, SCHEMA  # noqa: PLC0415 - an extra
        from nexus_marketing.builtins.channels.sms_ways import SmsByAccount  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            f"nexus.smpp.enabled needs {error.name}: pip install 'nexus-marketing[smpp]'."
        ) from error
    from nexus_marketing.plugin.sockets import Dialer  # noqa: PLC0415 - what is not the channel's own

    settings = config.registry["nexus.runtime"].settings
    limits = SmppLimits(settings.sms.sender, settings.sms.max_segments, settings.smpp.window)
    way = SmppWay(limits, Dialer(ALLOW_SETTING, settings.smpp.allow_hosts, PORTS))
    _announce(config, "sms", {**_SCHEMAS["sms"], **SCHEMA})
    config.add_marketing_channel(SmsByAccount(way, settings.sms.price_minor, http))


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

    given = {"secrets": mine.secrets, "connections": mine.connections, "origin": runtime.settings.public_url}
    _announce(config, "webhook")
    try:
        config.add_marketing_channel(WebhookChannel(_client(config), runtime.clock, **given))
    except ValidationError as error:
        raise ConfigurationError(f"nexus.webhook.{error.message}") from error


def mastodon(config: Configurator) -> None:
    """Posts on Mastodon, where ``nexus.social.networks`` names it."""
    _social(config, "mastodon")


def bluesky(config: Configurator) -> None:
    """Posts on Bluesky, where ``nexus.social.networks`` names it."""
    _social(config, "bluesky")


def _social(config: Configurator, name: str) -> None:
    runtime = config.registry["nexus.runtime"]
    if name not in runtime.settings.social.networks:
        return
    from nexus_marketing.builtins.channels.social.bluesky import Bluesky  # noqa: PLC0415 - loaded where it is used
    from nexus_marketing.builtins.channels.social.channel import SocialChannel  # noqa: PLC0415 - see above
    from nexus_marketing.builtins.channels.social.mastodon import Mastodon  # noqa: PLC0415 - see above

    client = _client(config, max_response_bytes=_LARGE_ANSWER)
    network = (Mastodon if name == "mastodon" else Bluesky)(client, runtime.clock)
    _announce(config, name)
    config.add_marketing_channel(SocialChannel(network, client, origin=runtime.settings.public_url))


def _client(config: Configurator, **limits: Any) -> "HttpClient":
    """A way out of the channel's own, whose connections are let go of with the process's parts."""
    from nexus_marketing.plugin.http import HttpClient, HttpLimits  # noqa: PLC0415 - loads the HTTP client

    made = HttpClient(HttpLimits(allow_hosts=config.registry["nexus.runtime"].settings.http.allow_hosts, **limits))
    config.registry["nexus.plugins"].at_end(made.close)
    return made


def _announce(config: Configurator, name: str, settings: Mapping[str, Any] | None = None) -> None:
    kinds, settings = frozenset({Capability.CHANNEL}), settings or _SCHEMAS[name]
    config.add_marketing_plugin(Manifest(name, __version__, API_VERSION, kinds, settings=settings))


#: Pages of reactions hold the profiles of those who reacted.
_LARGE_ANSWER = 2_000_000
_TEXT: Mapping[str, Any] = {"type": "string", "maxlength": 2_000}
_SECRET = {**_TEXT, "meta": {"secret": True}}
#: What accounts can be set to; the channels themselves look at what a schema cannot say.
_SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sms": {"from": _TEXT, "account": _TEXT, "token": _SECRET},
    "mastodon": {
        "server": {**_TEXT, "required": True},
        "handle": {**_TEXT, "required": True},
        "token": _SECRET,
        "visibility": _TEXT,
        "language": _TEXT,
        "max_characters": {"type": "integer"},
    },
    "bluesky": {"handle": {**_TEXT, "required": True}, "password": _SECRET, "server": _TEXT, "language": _TEXT},
    "webhook": {"url": {**_TEXT, "required": True}, "secrets": _SECRET},
}
