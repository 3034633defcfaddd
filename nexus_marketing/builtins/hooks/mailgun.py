"""Mailgun's webhooks (Mailgun documentation, "Securing webhooks" and "Event structure").

The signature covers a moment and a token, not the event. So that nobody who saw one can say something else with it, the
token is the event's id: what comes with a token that was used before is a repetition.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.builtins.hooks.reading import document_of, member, moment_of_seconds, text_of
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind

_K = ProviderEventKind
#: Mailgun repeats for eight hours what nobody took.
_OLDEST: Final = timedelta(hours=12)
_AHEAD: Final = timedelta(minutes=5)
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII).fullmatch
_KINDS: Final[Mapping[str, ProviderEventKind]] = {
    "delivered": _K.DELIVERED,
    "complained": _K.COMPLAINED,
    "unsubscribed": _K.UNSUBSCRIBED,
}
#: Of failures for good, those that say something of the address; the others say that this message was not taken.
_REASONS: Final[Mapping[str, ProviderEventKind]] = {
    "bounce": _K.BOUNCED_HARD,
    "hardfail": _K.BOUNCED_HARD,
    "suppress-bounce": _K.BOUNCED_HARD,
    "suppress-complaint": _K.COMPLAINED,
    "suppress-unsubscribe": _K.UNSUBSCRIBED,
}


class MailgunHook:
    """Reports signed with the account's webhook signing key; two while they change."""

    def __init__(self, keys: Sequence[str], clock: Clock) -> None:
        self._keys = [key.encode() for key in keys]
        self._clock = clock

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the token is Mailgun's and of these hours."""
        del headers
        signature = member(document_of(body), "signature")
        timestamp, token = text_of(signature, "timestamp"), text_of(signature, "token")
        at = moment_of_seconds(timestamp) if _SECONDS(timestamp) else None
        now = self._clock.now()
        if at is None or not token or not now - _OLDEST <= at <= now + _AHEAD:
            return False
        given = text_of(signature, "signature").encode(errors="replace")
        signed = (timestamp + token).encode(errors="replace")
        return any(hmac.compare_digest(hmac.digest(key, signed, "sha256").hex().encode(), given) for key in self._keys)

    def parse_events(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """The one event, if it means something to us."""
        del headers
        said = document_of(body)
        told = member(said, "event-data")
        kind = _kind(told)
        return () if kind is None else [_event(told, kind, text_of(said, "signature", "token"))]


def _kind(told: Any) -> ProviderEventKind | None:
    name = text_of(told, "event")
    if name != "failed":
        return _KINDS.get(name)
    if text_of(told, "severity") != "permanent":
        return _K.DEFERRED
    return _REASONS.get(text_of(told, "reason"), _K.BOUNCED_SOFT)


def _event(told: Any, kind: ProviderEventKind, token: str) -> ProviderEvent:
    return ProviderEvent(
        kind,
        token,
        message_id=text_of(told, "message", "headers", "message-id"),
        address=text_of(told, "recipient"),
        at=moment_of_seconds(member(told, "timestamp")),
        detail=text_of(told, "delivery-status", "message") or text_of(told, "delivery-status", "description"),
    )
