"""Posts by a webhook of Discord ("Execute Webhook" of its reference), at the rate that Discord's headers leave.

The webhook's address is the operator's secret: it stands in the requests as ``{secret:…}`` and is filled in on the way
out. There is no key against repetitions, so that a post without an answer stays unknown.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_marketing.plugin import (
    AddressKind,
    Answer,
    Capabilities,
    Clock,
    Content,
    Http,
    HttpSession,
    Lanes,
    Outcome,
    OutcomeKind,
    Problem,
    Request,
    SkipReason,
    Submission,
    ValidationError,
    plain_text,
)

MAX_CHARACTERS: Final = 2_000
_SECRET_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
_MARKUP: Final = re.compile(r"([\\*_~`|>#\[\]()<-])")
_LONGEST_SECONDS: Final = 24 * 3600.0
#: Discord refuses these two words in names of webhooks.
_FORBIDDEN: Final = ("discord", "clyde")


class DiscordChannel:
    """Reaches a Discord channel: one post for each lead."""

    name = "discord"
    # A webhook takes five posts in two seconds: more at once would only be throttled.
    capabilities = Capabilities(address_kind=AddressKind.NONE, max_in_flight=1, max_message_bytes=4 * MAX_CHARACTERS)

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http, self._clock = http, clock
        self._lanes = Lanes(1)

    def validate(self, settings: Mapping[str, Any]) -> None:
        """``webhook``: the name of the operator's secret that holds the address; ``username`` stands at the posts."""
        problems = []
        if not _SECRET_NAME(str(settings.get("webhook", ""))):
            said = "Write the name of the secret that holds the webhook's address, such as webhook_shop."
            problems.append(Problem("webhook", "not_a_name", said))
        name = str(settings.get("username", ""))
        if not name.isprintable() or len(name) > 80 or any(word in name.lower() for word in _FORBIDDEN):
            said = f"A name is one line of at most 80 characters, without the words {' and '.join(_FORBIDDEN)}."
            problems.append(Problem("username", "not_allowed", said))
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> HttpSession:
        """Connections are the host's."""
        self.validate(settings)
        return HttpSession(self._http, self._lanes, _Posts(settings, content, self._clock))

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._lanes.close()


class _Posts:
    """One content, as requests and what their answers mean; knows how long the webhook has no room."""

    def __init__(self, settings: Mapping[str, Any], content: Content, clock: Clock) -> None:
        # With wait Discord answers once the message is there, and not when it is taken in.
        self._url = f"{{secret:{settings['webhook']}}}?wait=true"
        self._known: dict[str, Any] = {"allowed_mentions": {"parse": []}}
        if settings.get("username"):
            self._known["username"] = settings["username"]
        self._pieces = content.message.parts["text"]
        self._clock = clock
        self._not_before: datetime | None = None

    def request(self, submission: Submission) -> Request | Outcome:
        """A post of the text, in which a person's values are no markup and nobody is called."""
        if self._not_before is not None and (left := (self._not_before - self._clock.now()).total_seconds()) > 0:
            return Outcome(submission.ref, OutcomeKind.THROTTLED, "bucket_empty", retry_after_seconds=left)
        text = plain_text(self._pieces, submission.values, escaped)
        if not 0 < len(text.strip()) <= len(text) <= MAX_CHARACTERS:
            said = f"{len(text)} characters: a post has at least one and at most {MAX_CHARACTERS}"
            return Outcome(submission.ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, said)
        body = json.dumps({**self._known, "content": text}).encode()
        return Request("POST", self._url, {"Content-Type": "application/json"}, body)

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """What Discord answers; its headers say how many posts the webhook has left."""
        self._note(answer)
        document = _document(answer)
        if 200 <= answer.status < 300:
            return Outcome(ref, OutcomeKind.ACCEPTED, str(document.get("id", ""))[:64])
        said = f"{document.get('code', answer.status)}"[:64]
        if answer.status == 429:
            after = _seconds(document.get("retry_after")) or answer.retry_after_seconds(self._clock.now())
            return Outcome(ref, OutcomeKind.THROTTLED, said, retry_after_seconds=after)
        if answer.status == 400:
            return Outcome(ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, str(document.get("message", said))[:200])
        if answer.status == 503:
            after = answer.retry_after_seconds(self._clock.now())
            return Outcome(ref, OutcomeKind.THROTTLED, said, retry_after_seconds=after)
        if answer.status >= 500:
            return Outcome(ref, OutcomeKind.UNKNOWN, said, "nobody knows whether it was posted")
        # The webhook is gone or may not post: the next would fare the same.
        reason = str(document.get("message", answer.status))[:150]
        return Outcome(ref, OutcomeKind.PERMANENT_SENDER, said, f"Discord refuses posts: {reason}")

    def _note(self, answer: Answer) -> None:
        after = _seconds(answer.headers.get("x-ratelimit-reset-after"))
        if answer.headers.get("x-ratelimit-remaining") == "0" and after:
            self._not_before = self._clock.now() + timedelta(seconds=after)


def escaped(text: str) -> str:
    r"""Text that Discord shows as it is.

    >>> print(escaped("*Ann* <@1>"))
    \*Ann\* \<@1\>
    """
    return _MARKUP.sub(r"\\\1", text)


def _document(answer: Answer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float | None:
    """A number of seconds as Discord writes it, at most a day; nothing where it is none."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return min(seconds, _LONGEST_SECONDS) if seconds > 0 else None
