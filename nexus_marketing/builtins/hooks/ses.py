"""Amazon SES through SNS (SNS Developer Guide, "Verifying the signatures of Amazon SNS messages"; SES Developer Guide,
"Amazon SNS notification contents").

Anybody with an account at Amazon can have SNS sign a message, so that a signature alone proves nothing: the topic must
be one that the operator named. The address of the certificate is the sender's word: it is asked for only at the host of
that topic's region.
"""

import base64
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from nexus_marketing.builtins.hooks.reading import address_of, document_of, items_of, member, moment_of, text_of
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import ProviderEvent, ProviderEventKind
from nexus_marketing.core.deliveries import read_message_id
from nexus_marketing.core.errors import HostRefused, Unavailable
from nexus_marketing.plugin.http import Answer, Request
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
#: Version 1 is what topics have unless somebody changed it. SHA-1 is broken for who chooses both texts; here Amazon does.
_DIGESTS: Final[Mapping[str, hashes.HashAlgorithm]] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303
_TOPIC = re.compile(r"arn:aws[a-z-]{0,10}:sns:([a-z0-9-]{3,30}):[0-9]{12}:[A-Za-z0-9_.-]{1,256}", re.ASCII).fullmatch
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{1,64}\.pem", re.ASCII).fullmatch
_KEPT: Final = timedelta(hours=6)
_REFUSED_KEPT: Final = timedelta(minutes=1)
_MOST_KEPT: Final = 32


def check_topic(arn: str) -> bool:
    """Whether this names a topic of SNS."""
    return _TOPIC(arn) is not None


class _Client(Protocol):
    """The guarded way out (:class:`nexus_marketing.plugin.http.HttpClient`)."""

    def send(self, request: Request) -> Answer: ...


class _Kept(NamedTuple):
    until: datetime
    key: RSAPublicKey | None


class SesHook:
    """Reports of the topics that the operator named."""

    def __init__(self, topics: Sequence[str], client: _Client, clock: Clock) -> None:
        self._topics = frozenset(topics)
        self._client = client
        self._clock = clock
        self._keys: dict[str, _Kept] = {}
        self._asking = threading.Lock()

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether SNS signed this for one of our topics."""
        del headers
        said = document_of(body)
        names = _SIGNED.get(text_of(said, "Type"), ())
        digest = _DIGESTS.get(text_of(said, "SignatureVersion"))
        topic = text_of(said, "TopicArn")
        if not names or digest is None or topic not in self._topics:
            return False
        url = text_of(said, "SigningCertURL")
        if not _is_at_amazon(url, topic) or not _CERTIFICATE(url.partition("amazonaws.com")[2].removeprefix(".cn")):
            return False
        key = self._key(url)
        lines = [f"{name}\n{said[name]}\n" for name in names if isinstance(said.get(name), str)]
        return key is not None and _is_signed(key, text_of(said, "Signature"), "".join(lines), digest)

    def parse_events(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        """What happened to each recipient; a new subscription is confirmed."""
        del headers
        said = document_of(body)
        if text_of(said, "Type") == "SubscriptionConfirmation":
            self._confirm(text_of(said, "SubscribeURL"), text_of(said, "TopicArn"))
            return ()
        told = document_of(text_of(said, "Message"))
        number = text_of(said, "MessageId")
        return [_event(told, each, f"{number}:{nth}") for nth, each in enumerate(_recipients(told))]

    def _confirm(self, url: str, topic: str) -> None:
        """Say that we listen.

        Raises:
            Unavailable: Amazon did not hear it; it asks again.
        """
        if not _is_at_amazon(url, topic):
            log.warning("subscription_elsewhere", topic=topic)
            return
        answer = self._ask(url)
        if answer is None or not 200 <= answer.status < 300:
            raise Unavailable("The subscription could not be confirmed.")
        log.info("subscription_confirmed", topic=topic)

    def _key(self, url: str) -> RSAPublicKey | None:
        """The key of a certificate, asked for once in a while by one request at a time; nothing where there is none.

        Raises:
            Unavailable: it is being asked for, or Amazon does not answer.
        """
        kept, now = self._keys.get(url), self._clock.now()
        if kept is not None and now < kept.until:
            return kept.key
        if not self._asking.acquire(blocking=False):
            raise Unavailable("The certificate of the signature is being asked for.")
        try:
            answer = self._ask(url)
            if answer is None or answer.status >= 500:
                # SNS gives up what was refused, and repeats what was not taken.
                raise Unavailable("The certificate of the signature could not be read.", retry_after_seconds=20.0)
            key = _key_of(answer, now)
            while len(self._keys) >= _MOST_KEPT:
                # Those that are none first: whoever makes up addresses must not push out the certificate that signs.
                refused = (each for each, known in self._keys.items() if known.key is None)
                del self._keys[next(refused, next(iter(self._keys)))]
            self._keys[url] = _Kept(now + (_REFUSED_KEPT if key is None else _KEPT), key)
        finally:
            self._asking.release()
        return key

    def _ask(self, url: str) -> Answer | None:
        try:
            return self._client.send(Request("GET", url))
        except (HostRefused, Unavailable) as error:
            log.warning("amazon_not_reached", error=type(error).__name__)
            return None


def _key_of(answer: Answer, now: datetime) -> RSAPublicKey | None:
    if answer.status != 200:
        return None
    try:
        certificate = load_pem_x509_certificate(answer.body)
        key = certificate.public_key()
    except Exception as error:  # noqa: BLE001 - the library has many words for what is no certificate
        log.warning("certificate_not_readable", error=type(error).__name__)
        return None
    is_valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    return key if is_valid and isinstance(key, RSAPublicKey) else None


def _is_at_amazon(url: str, topic: str) -> bool:
    """Whether an address is one of SNS in the topic's region."""
    found = _TOPIC(topic)
    try:
        parts = urlsplit(url)
        netloc = parts.netloc
    except ValueError:
        return False
    if found is None or parts.scheme != "https" or not url.isascii():
        return False
    domain = "amazonaws.com.cn" if found[1].startswith("cn-") else "amazonaws.com"
    return netloc == f"sns.{found[1]}.{domain}"


def _is_signed(key: RSAPublicKey, signature: str, text: str, digest: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text.encode(), padding.PKCS1v15(), digest)
    except (InvalidSignature, ValueError):
        return False
    return True


class _Recipient(NamedTuple):
    kind: ProviderEventKind
    address: str
    at: str
    detail: str


_K = ProviderEventKind


def _recipients(told: Any) -> list[_Recipient]:
    """Notifications say ``notificationType``, published events ``eventType``; what is not of this list is let go."""
    what = text_of(told, "eventType") or text_of(told, "notificationType")
    part = member(told, what[:1].lower() + what[1:])
    at = text_of(part, "timestamp")
    if what == "Bounce":
        kind = _K.BOUNCED_HARD if text_of(part, "bounceType") == "Permanent" else _K.BOUNCED_SOFT
        return [_listed(kind, each, at) for each in items_of(part, "bouncedRecipients")]
    if what == "Complaint" and text_of(part, "complaintFeedbackType") != "not-spam":
        return [_listed(_K.COMPLAINED, each, at) for each in items_of(part, "complainedRecipients")]
    if what == "DeliveryDelay":
        return [_listed(_K.DEFERRED, each, at) for each in items_of(part, "delayedRecipients")]
    if what == "Delivery":
        named = member(part, "recipients")
        found = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
        return [_Recipient(_K.DELIVERED, each, at, text_of(part, "smtpResponse")) for each in found]
    return []


def _listed(kind: ProviderEventKind, recipient: Any, at: str) -> _Recipient:
    return _Recipient(kind, text_of(recipient, "emailAddress"), at, text_of(recipient, "diagnosticCode"))


def _event(told: Any, of: _Recipient, event_id: str) -> ProviderEvent:
    return ProviderEvent(
        of.kind,
        event_id,
        message_id=_message_id(told),
        code=text_of(told, "mail", "messageId"),
        address=address_of(of.address),
        at=moment_of(of.at),
        detail=of.detail,
    )


def _message_id(told: Any) -> str:
    """Ours: SES gives a message an id of its own, and keeps what it was before among the original headers.

    Where these are not reported, the return path says it too (``bounce_domain``).
    """
    headers = items_of(told, "mail", "headers")
    found = [text_of(each, "value") for each in headers if text_of(each, "name").lower() == "message-id"]
    found += [text_of(told, "mail", "commonHeaders", "messageId"), address_of(text_of(told, "mail", "source"))]
    return next((each for each in found if read_message_id(each) is not None), "")
