"""Posts by Slack's Web API (``chat.postMessage``) or by an incoming webhook, whichever the tenant's settings name.

The bot's token and the webhooks' addresses are the operator's secrets: they stand in the requests as ``{secret:…}`` and
are filled in on the way out. Neither way has a key against repetitions, so that a post without an answer stays unknown.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

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

#: Slack cuts longer texts off.
MAX_CHARACTERS: Final = 40_000
_SETTINGS: Final = ("channel", "webhook", "username")
_CHANNEL: Final = re.compile(r"#?[^\s#@<>&\x00-\x1f]{1,80}").fullmatch
_SECRET_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
#: What Slack says of the message itself: nobody can get it.
_UNSENDABLE: Final = frozenset({"msg_too_long", "no_text", "invalid_payload", "invalid_blocks", "too_many_attachments"})
_PATIENCE: Final = frozenset({"ratelimited", "rate_limited", "service_unavailable", "message_limit_exceeded"})
#: "It is possible that some aspect of the operation succeeded before the error" (Slack's reference of the method).
_UNCLEAR: Final = frozenset({"fatal_error", "internal_error", "request_timeout", "rollup_error"})


class SlackChannel:
    """Reaches a Slack channel: one post for each lead."""

    API: ClassVar[str] = "https://slack.com/api"
    name = "slack"
    # Slack takes about one post a second in a channel: more at once would only be throttled.
    capabilities = Capabilities(address_kind=AddressKind.NONE, max_in_flight=1, max_message_bytes=4 * MAX_CHARACTERS)

    def __init__(self, http: Http, clock: Clock, api: str = API) -> None:
        self._http, self._clock, self._api = http, clock, api.rstrip("/")
        self._lanes = Lanes(1)

    def validate(self, settings: Mapping[str, Any]) -> None:
        """``channel`` (posted to by the bot) or ``webhook`` (the name of the operator's secret), and not both."""
        channel, webhook = str(settings.get("channel", "")), str(settings.get("webhook", ""))
        problems = []
        if channel and not _CHANNEL(channel):
            said = "Write a channel as #news, or its id such as C024BE91L."
            problems.append(Problem("channel", "not_a_channel", said))
        if webhook and not _SECRET_NAME(webhook):
            said = "Write the name of the secret that holds the webhook's address, such as webhook_shop."
            problems.append(Problem("webhook", "not_a_name", said))
        if bool(channel) == bool(webhook):
            said = "Write channel to post as the bot, or webhook to post by an incoming webhook: one of them."
            problems.append(Problem("channel", "required", said))
        if not str(settings.get("username", "")).isprintable():
            problems.append(Problem("username", "control_character", "The name is one line of text."))
        if problems:
            raise ValidationError(problems=problems)

    def open(self, settings: Mapping[str, Any], content: Content) -> HttpSession:
        """Connections are the host's."""
        self.validate(settings)
        if settings.get("webhook"):
            posts = _Posts(f"{{secret:{settings['webhook']}}}", {}, {}, content, self._clock)
        else:
            known = {"channel": settings["channel"], "unfurl_links": False}
            known |= {"username": settings["username"]} if settings.get("username") else {}
            login = {"Authorization": "Bearer {secret:token}"}
            posts = _Posts(f"{self._api}/chat.postMessage", login, known, content, self._clock)
        return HttpSession(self._http, self._lanes, posts)

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._lanes.close()


class _Posts:
    """One content, as requests and what their answers mean."""

    def __init__(
        self, url: str, login: Mapping[str, str], known: Mapping[str, Any], content: Content, clock: Clock
    ) -> None:
        self._url, self._known, self._clock = url, known, clock
        self._headers = {"Content-Type": "application/json; charset=utf-8", **login}
        self._pieces = content.message.parts["text"]

    def request(self, submission: Submission) -> Request | Outcome:
        """A post of the text, in which a person's values mean nothing to Slack."""
        text = plain_text(self._pieces, submission.values, escaped)
        if not 0 < len(text.strip()) <= len(text) <= MAX_CHARACTERS:
            said = f"{len(text)} characters: a post has at least one and at most {MAX_CHARACTERS}"
            return Outcome(submission.ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, said)
        return Request("POST", self._url, self._headers, json.dumps({**self._known, "text": text}).encode())

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """Slack's own word of what went wrong; the Web API says it in a document with the status 200."""
        after = answer.retry_after_seconds(self._clock.now())
        if answer.status == 429:
            return Outcome(ref, OutcomeKind.THROTTLED, "429", retry_after_seconds=after)
        word, code = _said(answer)
        if 200 <= answer.status < 300 and word == "ok":
            return Outcome(ref, OutcomeKind.ACCEPTED, code)
        if word in _UNSENDABLE:
            return Outcome(ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, word)
        if word in _PATIENCE or answer.status == 503:
            return Outcome(ref, OutcomeKind.THROTTLED, word or "503", retry_after_seconds=after)
        if word in _UNCLEAR or answer.status >= 500 or not word:
            return Outcome(ref, OutcomeKind.UNKNOWN, word or str(answer.status), "nobody knows whether it was posted")
        # A login, a channel or a right that is missing: the next post would fare the same.
        return Outcome(ref, OutcomeKind.PERMANENT_SENDER, word[:64], f"Slack refuses posts: {word[:150]}")


def escaped(text: str) -> str:
    """Text in which ``<!channel>`` calls nobody ("Formatting text for app surfaces", Slack).

    >>> escaped("<!channel> & co")
    '&lt;!channel&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _said(answer: Answer) -> tuple[str, str]:
    """``ok`` or what went wrong, and what the post is called; nothing where it is not Slack's form."""
    text = answer.body.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return (text if re.fullmatch(r"[a-z_]{2,100}", text) else ""), ""
    try:
        document = json.loads(text)
    except ValueError:
        return "", ""
    if document.get("ok") is True:
        return "ok", str(document.get("ts", ""))[:64]
    error = document.get("error")
    return (error if isinstance(error, str) else ""), ""
