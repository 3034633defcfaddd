"""The SMS channel where accounts say which way their messages go: by the operator's HTTP provider, or by SMPP."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nexus_marketing.builtins.channels.smpp import SmppWay
from nexus_marketing.builtins.channels.smpp_accounts import DESTINATIONS, SECRETS, SMPP
from nexus_marketing.builtins.channels.sms import SmsChannel
from nexus_marketing.builtins.channels.sms_texts import text_of
from nexus_marketing.core.contracts import (
    AddressKind,
    Capabilities,
    ChannelSession,
    Content,
    Hear,
    Line,
    ProviderEvent,
    Rendered,
    Submission,
)
from nexus_marketing.core.errors import Conflict, ValidationError

_PROVIDER = "provider"
_TWILIO = "twilio"


class SmsByAccount:
    """Reaches people by text message, each account in its own way: ``provider`` is ``smpp``, else it is the HTTP one's.

    Args:
        smpp: the way of those.
        price_minor: what a segment costs.
        http: the way of the others, if the operator has a provider.
    """

    name = "sms"

    def __init__(self, smpp: SmppWay, price_minor: int, http: SmsChannel | None) -> None:
        self._smpp = smpp
        self._http = http
        about = Capabilities(
            address_kind=AddressKind.PHONE,
            max_in_flight=smpp.limits.window,
            cost_minor_per_segment=price_minor,
            secret_settings=SECRETS,
            secret_destinations=DESTINATIONS,
        )
        if http is not None:
            theirs = http.capabilities
            most = max(about.max_in_flight, theirs.max_in_flight)
            secrets = about.secret_settings | theirs.secret_settings
            about = replace(about, max_in_flight=most, secret_settings=secrets)
        self.capabilities = about

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check an account in its own way.

        Raises:
            ValidationError: names each setting that is missing, unknown or wrong.
        """
        if _is_smpp(settings):
            self._smpp.validate(settings)
        else:
            self._by_http(settings).validate(_of_http(settings))

    def open(self, settings: Mapping[str, Any], content: Content) -> ChannelSession:
        """Prepare to send in the account's way."""
        if _is_smpp(settings):
            return self._smpp.open(settings, content)
        return self._by_http(settings).open(_of_http(settings), content)

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Bind and part.

        Raises:
            Conflict: the account is none of SMPP.
            Unavailable: it cannot be reached now.
            HostRefused: it is no address that we connect to.
            PermissionDenied: the centre refuses the bind.
        """
        if not _is_smpp(settings):
            raise Conflict("sms by HTTP cannot be looked at without sending: send a test message instead.")
        self._smpp.probe(settings)

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The text alone: who it is from and to, the provider is told beside it."""
        del settings
        return Rendered("text/plain; charset=utf-8", text_of(content.message.parts["text"], submission).encode())

    def listen(self, settings: Mapping[str, Any], hear: Hear) -> Line | None:
        """Hear what a centre delivers; providers by HTTP call an address of ours."""
        return self._smpp.listen(settings, hear) if _is_smpp(settings) else None

    def verify(self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this comes from the HTTP provider: a centre calls nobody."""
        return self._http is not None and not _is_smpp(settings) and self._http.verify(settings, headers, body)

    def parse_events(
        self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Sequence[ProviderEvent]:
        """What the HTTP provider says."""
        return () if self._http is None else self._http.parse_events(settings, headers, body)

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._smpp.close_thread()
        if self._http is not None:
            self._http.close_thread()

    def _by_http(self, settings: Mapping[str, Any]) -> SmsChannel:
        named = settings.get(_PROVIDER)
        if named not in (None, "", _TWILIO):
            said = f"{str(named)[:40]!r} is no provider of text messages: use {SMPP} or {_TWILIO}."
            raise ValidationError.at(_PROVIDER, "not_allowed", said)
        if self._http is None:
            said = (
                f"There is no HTTP provider here (nexus.sms.url): say provider = {SMPP}, and host, system_id, password."
            )
            raise ValidationError.at(_PROVIDER, "required", said)
        return self._http


def _is_smpp(settings: Mapping[str, Any]) -> bool:
    return settings.get(_PROVIDER) == SMPP


def _of_http(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the HTTP way knows: not the setting that chose it."""
    return {name: value for name, value in settings.items() if name != _PROVIDER}
