"""The webhook channel: a message is a signed POST of JSON to an address of the tenant (Standard Webhooks 1.0).

``webhook-id`` is the same on every attempt, so that a receiver that keeps the ids it has seen takes a message once.
"""

import hashlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from standardwebhooks import Webhook

from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import (
    AddressKind,
    Call,
    Capabilities,
    Content,
    Outcome,
    OutcomeKind,
    Rendered,
    Submission,
)
from nexus_marketing.core.errors import HostRefused, Problem, ValidationError
from nexus_marketing.core.json_text import JsonText, json_text
from nexus_marketing.plugin.http import Answer, HttpClient, NoAnswer, NotReached, Request
from nexus_marketing.plugin.http_sessions import HttpSession, Lanes

_SETTINGS: Final = ("url", "secrets")
_MAX_SECRETS: Final = 2
#: Bytes of a secret (Standard Webhooks, "Signature scheme").
_SECRET_BYTES: Final = range(24, 65)
_THROTTLED: Final = (429, 502, 503, 504)


class WebhookChannel:
    """Reaches programs: one POST for each lead."""

    name = "webhook"

    def __init__(
        self, client: HttpClient, clock: Clock, *, secrets: Sequence[str] = (), connections: int = 8, origin: str = ""
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            client: the guarded way out.
            clock: of the signatures.
            secrets: ``whsec_…``, newest first, of tenants that have none of their own.
            connections: requests in flight at once, for each worker thread.
            origin: where this installation is, so that the ids of two never meet at one receiver.

        Raises:
            ValidationError: a secret is none.
        """
        self._client = client
        self._clock = clock
        self._secrets = tuple(secrets)
        if secrets and (problems := _secret_problems(self._secrets)):
            raise ValidationError(problems=problems)
        self._lanes = Lanes(connections)
        self._origin = hashlib.sha256(origin.encode()).hexdigest()[:8]
        self.capabilities = Capabilities(
            address_kind=AddressKind.NONE,
            max_in_flight=connections,
            supports_idempotency=True,
            secret_settings=frozenset({"secrets"}),
        )

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check a tenant's settings: ``url``, and ``secrets`` (separated by spaces) where it has its own.

        Raises:
            ValidationError: names each one that is missing, unknown or wrong.
        """
        problems = [
            Problem(name, "unknown_setting", f"{name} is no setting of webhooks: use {', '.join(_SETTINGS)}.")
            for name in sorted(settings.keys() - set(_SETTINGS))
        ]
        problems += self._url_problems(str(settings.get("url") or ""))
        problems += _secret_problems(self._chosen(settings))
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> HttpSession:
        """Read the text as JSON; connections are made with the first message."""
        self.validate(settings)
        signers = tuple(Webhook(each) for each in self._chosen(settings))
        body = json_text(content.message.parts["text"])
        posts = _Posts(str(settings["url"]), body, signers, self._origin, self._clock)
        return HttpSession(self._client, self._lanes, posts)

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The body; its signature is of the moment.

        Raises:
            ValidationError: the text is no JSON.
        """
        del settings
        return Rendered("application/json", json_text(content.message.parts["text"]).fill(submission.values).encode())

    def check_url(self, url: str) -> None:
        """Whether an address is one that is connected to, as far as can be said without asking.

        Raises:
            HostRefused: it is not.
        """
        self._client.check(url)

    def call(self, settings: Mapping[str, Any], call: Call) -> Outcome:
        """Call an address once, signed; what may have arrived may be repeated under the same id."""
        signers = tuple(Webhook(each) for each in self._chosen(settings))
        posts = _Posts(call.url, JsonText((call.body,)), signers, self._origin, self._clock)
        request = replace(posts.request(Submission(0, "", call.id, {})), method=call.method)
        try:
            return posts.outcome(0, self._client.send(request))
        except HostRefused as error:
            return Outcome(0, OutcomeKind.PERMANENT_SENDER, HostRefused.code, error.message)
        except (NotReached, NoAnswer) as error:
            return Outcome(0, OutcomeKind.TRANSIENT, error.code)

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._lanes.close()

    def _chosen(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(settings.get("secrets") or "").split()) or self._secrets

    def _url_problems(self, url: str) -> list[Problem]:
        if not url:
            return [Problem("url", "required", "The address that messages are posted to is required.")]
        try:
            self._client.check(url)
        except HostRefused as error:
            return [Problem("url", HostRefused.code, error.message)]
        return []


@dataclass(frozen=True, slots=True)
class _Posts:
    """One content, as signed requests and what their answers mean."""

    url: str
    body: JsonText
    signers: Sequence[Webhook]
    origin: str
    clock: Clock

    def request(self, submission: Submission) -> Request:
        """Signed anew on each attempt, under the same id."""
        body = self.body.fill(submission.values)
        id_, now = self._id(submission.message_id), self.clock.now()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(each.sign(id_, now, body) for each in self.signers),
        }
        return Request("POST", self.url, headers, body.encode())

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """Only 2xx is success; a redirect is not followed and is none (BEHAVIOUR.md 5.6)."""
        status, after = answer.status, answer.retry_after_seconds(self.clock.now())
        if 200 <= status < 300:
            return Outcome(ref, OutcomeKind.ACCEPTED, str(status))
        if status == 410:
            return Outcome(ref, OutcomeKind.PERMANENT_SENDER, "410", "the receiver wants no more")
        kind = OutcomeKind.THROTTLED if status in _THROTTLED else OutcomeKind.TRANSIENT
        return Outcome(ref, kind, str(status), retry_after_seconds=after)

    def _id(self, message_id: str) -> str:
        """A message's own part of its id, and whose it is; without a full stop, which separates what is signed."""
        own = message_id.strip("<>").partition("@")[0].replace(".", "_")
        return f"{own}_{self.origin}"


def _secret_problems(secrets: Sequence[str]) -> list[Problem]:
    if not 1 <= len(secrets) <= _MAX_SECRETS:
        said = f"{len(secrets)} secrets: one signs, two while they change; the operator's are nexus.webhook.secrets."
        return [Problem("secrets", "required" if not secrets else "too_many", said)]
    if all(map(_is_secret, secrets)):
        return []
    said = "A secret is whsec_ and 24 to 64 random bytes as base64; the old one may stand behind the new one."
    return [Problem("secrets", "not_a_secret", said)]


def _is_secret(text: str) -> bool:
    encoded = text.removeprefix("whsec_")
    try:
        return encoded != text and len(b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)) in _SECRET_BYTES
    except ValueError:
        return False
