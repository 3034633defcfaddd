"""SendGrid's Signed Event Webhook (Twilio SendGrid docs, "Event Webhook Reference" and "Security Features")."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from nexus_marketing.builtins.hooks.reading import document_of, moment_of_seconds, text_of
from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind
from nexus_marketing.core.errors import ConfigurationError

_K = ProviderEventKind
_SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
_TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"
_KINDS: Final[Mapping[str, ProviderEventKind]] = {
    "delivered": _K.DELIVERED,
    "deferred": _K.DEFERRED,
    "bounce": _K.BOUNCED_HARD,
    "spamreport": _K.COMPLAINED,
    "unsubscribe": _K.UNSUBSCRIBED,
    "group_unsubscribe": _K.UNSUBSCRIBED,
}
#: Why it did not even try: what it knows of the address from before.
_DROPPED: Final[Mapping[str, ProviderEventKind]] = {
    "Bounced Address": _K.BOUNCED_HARD,
    "Invalid": _K.BOUNCED_HARD,
    "Spam Reporting Address": _K.COMPLAINED,
    "Unsubscribed Address": _K.UNSUBSCRIBED,
}


class SendGridHook:
    """Reports signed by the key that SendGrid shows beside the webhook; two while they change."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [_public_key(key) for key in keys]

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether one of the keys signed the timestamp and the body."""
        try:
            signature = base64.b64decode(headers.get(_SIGNATURE, ""), validate=True)
        except ValueError:
            return False
        signed = headers.get(_TIMESTAMP, "").encode() + body
        return any(_is_signed(key, signature, signed) for key in self._keys)

    def parse_events(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """One for each of the list that means something to us."""
        del headers
        listed = document_of(body)
        found = [(each, _kind(each)) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return [_event(each, kind) for each, kind in found if kind is not None and text_of(each, "sg_event_id")]


def _public_key(text: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigurationError(
            "nexus.email.hooks.sendgrid_keys: not the verification key that SendGrid shows beside the event webhook."
        )
    return key


def _is_signed(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _kind(event: Any) -> ProviderEventKind | None:
    name = text_of(event, "event")
    if name == "bounce" and text_of(event, "type") == "blocked":
        return _K.BOUNCED_SOFT
    return _DROPPED.get(text_of(event, "reason")) if name == "dropped" else _KINDS.get(name)


def _event(event: Any, kind: ProviderEventKind) -> ProviderEvent:
    return ProviderEvent(
        kind,
        text_of(event, "sg_event_id"),
        message_id=text_of(event, "smtp-id"),
        code=text_of(event, "sg_message_id"),
        address=text_of(event, "email"),
        at=moment_of_seconds(event.get("timestamp")),
        detail=text_of(event, "reason") or text_of(event, "response"),
    )
