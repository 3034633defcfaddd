"""Postmark's webhooks (Postmark developer docs, "Webhooks overview").

They carry no signature: the operator puts a token into the address (``https://nexus:TOKEN@…``) or into a header of his own,
``X-Nexus-Token``. A message is known again by its metadata, which the e-mail channel sends along.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus_marketing.builtins.hooks.reading import document_of, moment_of, text_of
from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind

#: Postmark tells back, as ``Metadata``, what headers with this beginning say.
METADATA_HEADER: Final = "X-PM-Metadata-message"

_K = ProviderEventKind
_BOUNCES: Final[Mapping[str, ProviderEventKind]] = {
    "HardBounce": _K.BOUNCED_HARD,
    "BadEmailAddress": _K.BOUNCED_HARD,
    "ManuallyDeactivated": _K.BOUNCED_HARD,
    "SpamComplaint": _K.COMPLAINED,
    "Unsubscribe": _K.UNSUBSCRIBED,
    "Transient": _K.DEFERRED,
    "SoftBounce": _K.BOUNCED_SOFT,
    "DnsError": _K.BOUNCED_SOFT,
    "SpamNotification": _K.BOUNCED_SOFT,
    "Blocked": _K.BOUNCED_SOFT,
    "DMARCPolicy": _K.BOUNCED_SOFT,
    "SMTPApiError": _K.BOUNCED_SOFT,
    "TemplateRenderingFailed": _K.BOUNCED_SOFT,
    "Unknown": _K.BOUNCED_SOFT,
    "VirusNotification": _K.BOUNCED_SOFT,
}
_SUPPRESSED: Final[Mapping[str, ProviderEventKind]] = {
    "HardBounce": _K.BOUNCED_HARD,
    "SpamComplaint": _K.COMPLAINED,
    "ManualSuppression": _K.UNSUBSCRIBED,
}
#: By the type of the record: where the address and the moment stand.
_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "Delivery": ("Recipient", "DeliveredAt"),
    "Bounce": ("Email", "BouncedAt"),
    "SpamComplaint": ("Email", "BouncedAt"),
    "SubscriptionChange": ("Recipient", "ChangedAt"),
}


class PostmarkHook:
    """Reports that know one of the tokens; two while they change."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a token came along."""
        del body
        given = headers.get("x-nexus-token", "").encode(errors="replace") or _password(headers.get("authorization", ""))
        return any(hmac.compare_digest(token, given) for token in self._tokens)

    def parse_events(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """The one record, if it means something to us."""
        del headers
        told = document_of(body)
        kind = _kind(told)
        return () if kind is None else [_event(told, kind)]


def _password(authorization: str) -> bytes:
    """Of RFC 7617."""
    scheme, _, coded = authorization.partition(" ")
    try:
        found = base64.b64decode(coded.strip(), validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        return b""
    return found.partition(b":")[2]


def _kind(told: Any) -> ProviderEventKind | None:
    record = text_of(told, "RecordType")
    if record == "Bounce":
        return _BOUNCES.get(text_of(told, "Type"))
    if record == "SubscriptionChange":
        return _SUPPRESSED.get(text_of(told, "SuppressionReason")) if told.get("SuppressSending") is True else None
    return {"Delivery": _K.DELIVERED, "SpamComplaint": _K.COMPLAINED}.get(record)


def _event(told: Any, kind: ProviderEventKind) -> ProviderEvent:
    record = text_of(told, "RecordType")
    address, at = _FIELDS[record]
    number = text_of(told, "ID") or f"{text_of(told, 'MessageID')}:{text_of(told, address)}:{text_of(told, at)}"
    return ProviderEvent(
        kind,
        f"{record}:{number}",
        message_id=text_of(told, "Metadata", "message"),
        code=text_of(told, "MessageID"),
        address=text_of(told, address),
        at=moment_of(text_of(told, at)),
        detail=text_of(told, "Details") or text_of(told, "Description"),
    )
