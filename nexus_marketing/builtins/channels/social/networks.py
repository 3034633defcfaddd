"""What a social network is to us: the seam for others beside those that are built in.

A network says how a post becomes a request and what an answer means; :class:`.channel.SocialChannel` does the rest.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from nexus_marketing.builtins.channels.answers import document_of, words_of
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import Outcome, OutcomeKind, Reaction
from nexus_marketing.core.deliveries import SkipReason
from nexus_marketing.core.errors import HostRefused, PermissionDenied, Problem, Unavailable
from nexus_marketing.plugin.exchanges import Answer, Http, Request

#: Pages that are read of each kind of reaction, and how many of them a page holds.
PAGES: Final = 10
PAGE: Final = 40
_LONGEST_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Post:
    """A text that is to be posted; ``key`` is the same however often it is tried, and nobody else's."""

    ref: int
    text: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, ref: int, text: str, message_id: str, origin: str) -> "Post":
        """With a key of the message and of the installation."""
        return cls(ref, text, hashlib.sha256(f"{origin}\n{message_id}".encode()).digest())

    def refused(self, detail: str) -> Outcome:
        """No such post can be made."""
        return Outcome(self.ref, OutcomeKind.REFUSED, SkipReason.RENDER_ERROR, detail[:200])


class Network(Protocol):
    """One social network."""

    name: str
    #: Settings of an account, and the one among them that is a password.
    settings: Sequence[str]
    secret: str
    #: Whether a post with the same key is made once, however late it is tried again.
    is_idempotent: bool

    def problems(self, settings: Mapping[str, Any]) -> list[Problem]:
        """Whatever is wrong with an account's settings; unknown ones were found already."""
        ...

    def too_long(self, settings: Mapping[str, Any], text: str) -> str:
        """Why a text is too long for a post; empty where it is not."""
        ...

    def request(self, settings: Mapping[str, Any], post: Post) -> Request | Outcome:
        """The request that makes a post, or why there can be none. May log in first.

        Raises:
            NotReached: the network is away; nothing has left.
            HostRefused: it is no address that we connect to.
        """
        ...

    def outcome(self, settings: Mapping[str, Any], post: Post, answer: Answer) -> Outcome:
        """What the answer says; ``code`` is the network's name of the post."""
        ...

    def probe(self, settings: Mapping[str, Any]) -> None:
        """As :meth:`nexus_marketing.core.contracts.ProbedChannel.probe`."""
        ...

    def retract(self, settings: Mapping[str, Any], post: Post, code: str) -> Outcome:
        """Delete a post for good; one that is not there is deleted. May log in first.

        Args:
            settings: of the account.
            post: with its key; nobody knows its text any more.
            code: the network's name of it, empty where nobody knows whether it was posted.

        Raises:
            NotReached: the network is away.
            NoAnswer: nobody knows whether it was deleted.
            HostRefused: it is no address that we connect to.
        """
        ...

    def reactions(self, settings: Mapping[str, Any], code: str) -> list[Reaction]:
        """As :meth:`nexus_marketing.core.contracts.WatchedChannel.reactions`."""
        ...


def required(settings: Mapping[str, Any], wanted: Mapping[str, str]) -> list[Problem]:
    """A fault for each of these settings that is missing; ``wanted`` says what each is.

    >>> [each.path for each in required({"handle": "@a@b.example"}, {"handle": "Who posts", "token": "The login"})]
    ['token']
    """
    return [
        Problem(name, "required", f"{what} is required.")
        for name, what in wanted.items()
        if not str(settings.get(name) or "").strip()
    ]


def server_problems(client: Http, server: str, example: str) -> list[Problem]:
    """Whether a server may be connected to; ``server`` is an origin without a path."""
    if not server:
        return []
    try:
        client.check(server)
    except HostRefused as error:
        return [Problem("server", HostRefused.code, error.message)]
    if server.count("/") != 2 or "@" in server or "?" in server or "#" in server:
        return [Problem("server", "not_a_server", f"Write the server alone, such as {example}.")]
    return []


def moment(text: object) -> datetime | None:
    """A moment as networks write it; nothing where it is none.

    >>> moment("2026-11-28T12:00:00.000Z").isoformat()
    '2026-11-28T12:00:00+00:00'
    """
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def wait_seconds(answer: Answer, now: datetime, reset: Callable[[Answer], datetime | None]) -> float | None:
    """How long a network asks for patience: ``Retry-After``, else until its limit starts anew; at most a day."""
    after = answer.retry_after_seconds(now)
    if after is not None:
        return after
    begins = reset(answer)
    return None if begins is None else min(max((begins - now).total_seconds(), 1.0), _LONGEST_SECONDS)


def said_of(answer: Answer) -> str:
    """What a network says went wrong, in its own words."""
    found = document_of(answer.body)
    words = (words_of(found.get(name), 200) for name in ("error", "message", "error_description"))
    return ": ".join(filter(None, words))[:200]


def read_answer(client: Http, request: Request, clock: Clock, reset: Callable[[Answer], datetime | None]) -> Answer:
    """The answer to a question that changes nothing.

    Raises:
        Unavailable: there is no answer now, or it asks for patience.
        PermissionDenied: the network refuses the account.
        HostRefused: it is no address that we connect to.
    """
    answer = client.send(request)
    if 200 <= answer.status < 300:
        return answer
    said = f"{answer.status} {said_of(answer)}".strip()
    if answer.status == 429 or answer.status >= 500:
        seconds = wait_seconds(answer, clock.now(), reset)
        raise Unavailable(f"The network answers {said}.", retry_after_seconds=seconds or 60.0)
    raise PermissionDenied(f"The network answers {said}: check the account.")
