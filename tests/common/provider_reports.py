"""What providers send, as their documentation shows it, and signed as they sign: for every test that plays one."""

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from nexus_marketing.core.errors import Unavailable
from nexus_marketing.plugin.http import Answer, Request
from tests.common.databases import NOW

TOPIC = "arn:aws:sns:eu-west-1:123456789012:nexus-reports"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01d088a6f77103d0fe307c0069e40ed6.pem"
CONFIRM_URL = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
MAILGUN_KEY = "mailgun-signing-key-0123456789"
POSTMARK_TOKEN = "postmark-token-0123456789"
TWILIO_TOKEN = "twilio-t0ken"
AT = (NOW - timedelta(minutes=1)).astimezone(UTC)
ISO = AT.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass(frozen=True)
class Call:
    """A request of a provider."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


# --- Amazon ---------------------------------------------------------------------------------------------------


@cache
def amazon_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def certificate(key: rsa.RSAPrivateKey | None = None, *, expired: bool = False) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    own = key or amazon_key()
    last = NOW - timedelta(days=1) if expired else NOW + timedelta(days=300)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(last)
        .sign(own, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@dataclass
class Amazon:
    """What lies behind the guarded way out: answers by address, where it is not away."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    def send(self, request: Request) -> Answer:
        self.asked.append(request.url)
        if self.is_away:
            raise Unavailable
        return self.answers.get(request.url, Answer(404, {}, b""))


def amazon() -> Amazon:
    return Amazon({CERTIFICATE_URL: Answer(200, {}, certificate()), CONFIRM_URL: Answer(200, {}, b"<ok/>")})


def sns(message: Any, *, number: str = "m-1", version: str = "1", **changes: str) -> Call:
    """A notification, signed; ``changes`` are made before that."""
    envelope = {
        "Type": "Notification",
        "MessageId": number,
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": ISO,
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
        **changes,
    }
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if envelope["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope).encode()
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    signature = amazon_key().sign(signed, padding.PKCS1v15(), digest)
    return Call(json.dumps({**envelope, "Signature": base64.b64encode(signature).decode()}).encode())


def confirmation(**changes: str) -> Call:
    said = "You have chosen to subscribe to the topic. To confirm the subscription, visit the SubscribeURL."
    about = {"Type": "SubscriptionConfirmation", "Token": "2336412f37", "SubscribeURL": CONFIRM_URL}
    return sns(said, **{**about, **changes})


def ses(what: str, *, message_id: str = "", address: str = "jane@example.org", **part: Any) -> dict[str, Any]:
    """A published event, as "Contents of event data that Amazon SES publishes to Amazon SNS" shows it."""
    parts: dict[str, Any] = {
        "Bounce": {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "bouncedRecipients": [
                {"emailAddress": address, "action": "failed", "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1"}
            ],
            "feedbackId": "01000157c44f053b",
            "reportingMTA": "dsn; mta.example.com",
        },
        "Complaint": {
            "complainedRecipients": [{"emailAddress": address}],
            "feedbackId": "01000157c44f053b",
            "complaintFeedbackType": "abuse",
            "userAgent": "ExampleCorp Feedback Loop (V0.01)",
        },
        "Delivery": {
            "processingTimeMillis": 546,
            "recipients": [address],
            "smtpResponse": "250 ok:  Message 64111812 accepted",
            "reportingMTA": "a8-70.smtp-out.amazonses.com",
        },
        "DeliveryDelay": {
            "delayType": "TransientCommunicationFailure",
            "delayedRecipients": [{"emailAddress": address}],
        },
    }
    headers = [{"name": "From", "value": "News <news@example.com>"}, {"name": "Message-ID", "value": message_id}]
    return {
        "eventType": what,
        what[:1].lower() + what[1:]: {"timestamp": ISO, **parts.get(what, {}), **part},
        "mail": {
            "timestamp": ISO,
            "source": "news@example.com",
            "sendingAccountId": "123456789012",
            "messageId": "EXAMPLE7c191be45-e9aedb9a-02f9-4d12-a87d-dd0099a07f8a-000000",
            "destination": [address],
            "headersTruncated": False,
            "headers": headers if message_id else [],
            "commonHeaders": {"from": ["News <news@example.com>"], "messageId": "EXAMPLE7c191be45"},
            "tags": {"ses:configuration-set": ["ConfigSet"]},
        },
    }


# --- SendGrid -------------------------------------------------------------------------------------------------


@cache
def sendgrid_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sendgrid_public() -> str:
    public = sendgrid_key().public_key()
    return base64.b64encode(
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode()


def sendgrid(*events: Mapping[str, Any], raw: bytes | None = None) -> Call:
    body = json.dumps(list(events)).encode() if raw is None else raw
    timestamp = str(int(AT.timestamp()))
    signature = sendgrid_key().sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return Call(
        body,
        {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        },
    )


def sendgrid_event(event: str, *, message_id: str = "", number: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "email": "jane@example.org",
        "timestamp": int(AT.timestamp()),
        "smtp-id": message_id,
        "event": event,
        "category": ["cat facts"],
        "sg_event_id": f"{event}-{number}",
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
        **more,
    }


# --- Mailgun --------------------------------------------------------------------------------------------------


def mailgun(event: str, *, message_id: str = "", token: str = "t" * 50, at: datetime = AT, **more: Any) -> Call:
    timestamp = str(int(at.timestamp()))
    signature = hmac.digest(MAILGUN_KEY.encode(), (timestamp + token).encode(), "sha256").hex()
    told = {
        "id": "CPgfbmQMTCKtHW6uIWtuVe",
        "timestamp": at.timestamp(),
        "log-level": "info",
        "event": event,
        "recipient": "jane@example.org",
        "recipient-domain": "example.org",
        "message": {"headers": {"to": "jane@example.org", "message-id": message_id.strip("<>"), "from": "news"}},
        **more,
    }
    body = {"signature": {"timestamp": timestamp, "token": token, "signature": signature}, "event-data": told}
    return Call(json.dumps(body).encode())


# --- Postmark -------------------------------------------------------------------------------------------------


def postmark(record: str, *, message: str = "", **more: Any) -> Call:
    shared = {
        "RecordType": record,
        "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
        "Metadata": {"message": message},
    }
    told: dict[str, dict[str, Any]] = {
        "Delivery": {"Recipient": "jane@example.org", "DeliveredAt": ISO, "Details": "Test delivery webhook details"},
        "Bounce": {"ID": 4323372036854775807, "Type": "HardBounce", "Email": "jane@example.org", "BouncedAt": ISO},
        "SpamComplaint": {"ID": 42, "Type": "SpamComplaint", "Email": "jane@example.org", "BouncedAt": ISO},
        "SubscriptionChange": {
            "Recipient": "jane@example.org",
            "ChangedAt": ISO,
            "Origin": "Recipient",
            "SuppressSending": True,
            "SuppressionReason": "ManualSuppression",
        },
    }
    login = base64.b64encode(f"nexus:{POSTMARK_TOKEN}".encode()).decode()
    return Call(json.dumps({**shared, **told.get(record, {}), **more}).encode(), {"Authorization": f"Basic {login}"})


# --- Twilio ---------------------------------------------------------------------------------------------------


def twilio(url: str, fields: Mapping[str, str] | Sequence[tuple[str, str]], *, token: str = TWILIO_TOKEN) -> Call:
    pairs = list(fields.items()) if isinstance(fields, Mapping) else list(fields)
    signed = url + "".join(name + value for name, value in sorted(pairs))
    signature = base64.b64encode(hmac.digest(token.encode(), signed.encode(), "sha1")).decode()
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    return Call(urlencode(pairs).encode(), headers)


def text_status(status: str, *, sid: str = "SM1", to: str = "+4930123456", **more: str) -> dict[str, str]:
    return {
        "MessageSid": sid,
        "SmsSid": sid,
        "MessageStatus": status,
        "SmsStatus": status,
        "To": to,
        "From": "+1500",
        **more,
    }


def text_received(text: str, *, sid: str = "SM2", sender: str = "+4930123456", **more: str) -> dict[str, str]:
    return {
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "From": sender,
        "To": "+1500",
        "Body": text,
        **more,
    }
