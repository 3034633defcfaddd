"""The SMS channel: Twilio's HTTP API, which many providers speak (POST …/Messages.json).

Which provider, account and price is the operator's; a tenant says who its messages come from, and may have an account of
its own. There is no key against repetitions in this API, so that a message without an answer stays ``unknown``.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from nexus_marketing.builtins.channels.answers import document_of
from nexus_marketing.builtins.channels.sms_texts import SENDERS, is_sender, text_of, unfit
from nexus_marketing.builtins.hooks.twilio import MESSAGE, events_of, is_signed
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import (
    AddressKind,
    Capabilities,
    Content,
    Outcome,
    OutcomeKind,
    ProviderEvent,
    Rendered,
    Submission,
)
from nexus_marketing.core.errors import Problem, ValidationError
from nexus_marketing.core.messages import Piece
from nexus_marketing.plugin.http import Answer, HttpClient, Request
from nexus_marketing.plugin.http_sessions import HttpSession, Lanes

_SETTINGS: Final = ("from", "account", "token")
#: Numbers at the provider, which chooses among them.
_POOL = re.compile(r"MG[0-9a-f]{32}").fullmatch

_RECIPIENT, _SENDER, _THROTTLED = OutcomeKind.PERMANENT_RECIPIENT, OutcomeKind.PERMANENT_SENDER, OutcomeKind.THROTTLED
#: Codes of Twilio's error dictionary, where they say more than the status does. Every other 400 is the recipient's: not a
#: number (21211), not a mobile one (21614), has said STOP to the provider (21610).
_CODES: Final[Mapping[int, OutcomeKind]] = {
    14107: _THROTTLED,  # rate limit of the sender
    20003: _SENDER,  # login
    20005: _SENDER,  # account not active
    20404: _SENDER,  # no such account
    20429: _THROTTLED,
    21211: _RECIPIENT,
    21212: _SENDER,  # not a number that can send
    21603: _SENDER,  # no sender
    21606: _SENDER,  # not a sender of this account
    21610: _RECIPIENT,
    21611: _THROTTLED,  # the sender's queue is full
    21614: _RECIPIENT,
    21659: _SENDER,  # not a number of this account
    21660: _SENDER,  # a number of another account
}
_DEAD: Final = ("failed", "undelivered", "canceled")


@dataclass(frozen=True, slots=True)
class SmsProvider:
    """The operator's provider; ``url`` is what stands before ``/Accounts`` in its API.

    ``price_minor`` is what a segment costs, in the minor unit of the budget's currency. ``callback_url`` is where the provider
    says what became of a message; empty: it is not asked to.
    """

    url: str
    account: str = ""
    token: str = field(default="", repr=False)
    sender: str = ""
    price_minor: int = 0
    connections: int = 8
    max_segments: int = 10
    callback_url: str = ""


class SmsChannel:
    """Reaches people by text message through one provider."""

    name = "sms"

    def __init__(self, provider: SmsProvider, client: HttpClient, clock: Clock) -> None:
        client.check(provider.url)
        self._provider = provider
        self._client = client
        self._clock = clock
        self._lanes = Lanes(provider.connections)
        self.capabilities = Capabilities(
            address_kind=AddressKind.PHONE,
            max_in_flight=provider.connections,
            cost_minor_per_segment=provider.price_minor,
            secret_settings=frozenset({"token"}),
        )

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check a tenant's settings: ``from``, and ``account`` with ``token`` where it has its own.

        Raises:
            ValidationError: names each one that is missing, unknown or wrong.
        """
        problems = [
            Problem(name, "unknown_setting", f"{name} is no setting of SMS: use {', '.join(_SETTINGS)}.")
            for name in sorted(settings.keys() - set(_SETTINGS))
        ]
        account, token, sender = self._account(settings)
        if not sender:
            problems.append(Problem("from", "required", "The number or name that messages come from is required."))
        elif not (is_sender(sender) or _POOL(sender)):
            said = f"{sender[:40]!r} is no sender: use {SENDERS}, or MG…"
            problems.append(Problem("from", "not_a_sender", said))
        if not account or not token:
            said = (
                "No account at the provider: set account and token, or the operator sets nexus.sms.account and .token."
            )
            problems.append(Problem("token" if account else "account", "required", said))
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> HttpSession:
        """Prepare requests; connections are made with the first message."""
        self.validate(settings)
        account, token, sender = self._account(settings)
        dialect = _Texts(
            f"{self._provider.url}/Accounts/{quote(account, safe='')}/Messages.json",
            f"Basic {b64encode(f'{account}:{token}'.encode()).decode()}",
            sender,
            content.message.parts["text"],
            self._provider.max_segments,
            self._clock,
            # Callbacks of all tenants come to one address, where they are proved by the operator's token alone.
            self._provider.callback_url if account == self._provider.account else "",
        )
        return HttpSession(self._client, self._lanes, dialect)

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The text alone: who it is from and to, the provider is told beside it."""
        del settings
        return Rendered("text/plain; charset=utf-8", text_of(content.message.parts["text"], submission).encode())

    def verify(self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the token of the tenant's account, else of the operator's, signed this."""
        return is_signed(self._account(settings)[1], headers, body)

    def parse_events(
        self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Sequence[ProviderEvent]:
        """What became of a message, or what somebody wrote."""
        del settings
        return events_of(headers, body)

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._lanes.close()

    def _account(self, settings: Mapping[str, Any]) -> tuple[str, str, str]:
        """The tenant's account, else the operator's, never halves of both; and the sender."""
        own, provider = settings.get, self._provider
        sender = str(own("from") or provider.sender)
        if own("account") or own("token"):
            return str(own("account") or ""), str(own("token") or ""), sender
        return provider.account, provider.token, sender


@dataclass(frozen=True, slots=True)
class _Texts:
    """One content, as requests and answers of the API."""

    url: str
    login: str
    sender: str
    pieces: Sequence[Piece]
    max_segments: int
    clock: Clock
    callback_url: str = ""

    def request(self, submission: Submission) -> Request | Outcome:
        """The form of one message; its text has no more segments than the operator pays for."""
        text = text_of(self.pieces, submission)
        refused = unfit(submission, text, self.max_segments)
        if refused is not None:
            return refused
        source = "MessagingServiceSid" if _POOL(self.sender) else "From"
        form = {"To": submission.address, source: self.sender, "Body": text}
        if self.callback_url:
            ours = submission.message_id.strip("<>").partition("@")[0]
            form["StatusCallback"] = f"{self.callback_url}?{urlencode({MESSAGE: ours})}"
        headers = {"Authorization": self.login, "Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", self.url, headers, urlencode(form).encode())

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """By the provider's own code where it has one of ours, else by the status."""
        status, document = answer.status, document_of(answer.body)
        after = answer.retry_after_seconds(self.clock.now())
        if 200 <= status < 300:
            return _taken(ref, status, document)
        code = _code(document.get("code"))
        detail = str(document.get("message") or "")[:200]
        kind = OutcomeKind.PERMANENT_SENDER if status in (401, 403) else _CODES.get(code, _by_status(status))
        return Outcome(ref, kind, str(code or status), detail, after)


def _taken(ref: int, status: int, document: Mapping[str, Any]) -> Outcome:
    """A success that names its message. One that does not may come from anybody between us and the provider."""
    sid = str(document.get("sid") or "")
    if not sid:
        return Outcome(ref, OutcomeKind.UNKNOWN, str(status), "the answer names no message")
    error = _code(document.get("error_code"))
    if not error and document.get("status") not in _DEAD:
        return Outcome(ref, OutcomeKind.ACCEPTED, sid[:64])
    kind = _CODES.get(error, OutcomeKind.PERMANENT_RECIPIENT)
    return Outcome(ref, kind, str(error or document["status"]), str(document.get("error_message") or "")[:200])


def _by_status(status: int) -> OutcomeKind:
    if status == 429:
        return OutcomeKind.THROTTLED
    if status >= 500:
        return OutcomeKind.TRANSIENT
    # A redirect or an address that is not there: the operator's, not the recipient's.
    return OutcomeKind.PERMANENT_SENDER if status in (404, 405) or status < 400 else OutcomeKind.PERMANENT_RECIPIENT


def _code(value: Any) -> int:
    text = str(value or 0)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
