"""Bluesky, by XRPC of the AT Protocol: a post is a record in the account's repository (atproto.com, "XRPC"; docs.bsky.app).

A record's key comes from the message, and the record is written only where there is none (``swapRecord`` is null): what is tried
again is the same record, however late.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from nexus_marketing.builtins.channels.answers import document_of, object_of, words_of
from nexus_marketing.builtins.channels.social.networks import (
    PAGE,
    PAGES,
    Post,
    moment,
    read_answer,
    required,
    said_of,
    server_problems,
    wait_seconds,
)
from nexus_marketing.builtins.channels.social.texts import facets, graphemes
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import Outcome, OutcomeKind, Reaction, ReactionKind
from nexus_marketing.core.errors import PermissionDenied, Problem, Unavailable
from nexus_marketing.plugin.exchanges import Answer, Http, NoAnswer, NotReached, Request

USUAL_SERVER: Final = "https://bsky.social"
_POST: Final = "app.bsky.feed.post"
_MOST_GRAPHEMES: Final = 300
_MOST_BYTES: Final = 3_000
_HANDLE: Final = re.compile(
    r"@?((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)", re.IGNORECASE
).fullmatch
_PASSWORD: Final = re.compile(r"[!-~]{8,500}").fullmatch
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*").fullmatch
_RECORD: Final = re.compile(r"at://[^/\s]+/[A-Za-z0-9.]+/([A-Za-z0-9._~:-]{1,64})").fullmatch
_SORTABLE: Final = "234567abcdefghijklmnopqrstuvwxyz"
#: Keys are those of a year that is over: one of a later moment than the post itself could be taken for a forgery.
_YEAR: Final = int(datetime(2023, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
_YEAR_LONG: Final = 365 * 86_400 * 1_000_000
#: Logins are few a day for an account, so that they are kept; so many at most, and none longer than this.
_MOST_LOGINS: Final = 500
_LOGIN_LASTS: Final = timedelta(hours=1)
_LEEWAY: Final = timedelta(seconds=60)
_STALE: Final = frozenset({"ExpiredToken", "InvalidToken"})
_UNFIT: Final = frozenset({"InvalidRequest", "InvalidRecord", "InvalidMimeType", "PayloadTooLarge"})


@dataclass(frozen=True, slots=True)
class _Login:
    """Who an account is, and what its requests are proved by."""

    did: str
    token: str = field(repr=False)
    until: datetime
    password: bytes = field(repr=False)


class _Refused(Exception):
    """A login that was not given, as the answer says it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Bluesky:
    """One account, by its handle and an app password."""

    name = "bluesky"
    settings: Sequence[str] = ("handle", "password", "server", "language")
    secret = "password"  # noqa: S105 - the name of it
    is_idempotent = True

    def __init__(self, client: Http, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._logins: dict[tuple[str, str], _Login] = {}
        self._lock = threading.Lock()

    def problems(self, settings: Mapping[str, Any]) -> list[Problem]:
        """``handle`` and ``password`` are needed; ``server`` is where the account lives, usually bsky.social."""
        found = required(settings, {"handle": "The handle of the account", "password": "An app password"})
        found += server_problems(self._client, _server(settings), USUAL_SERVER)
        handle, password = str(settings.get("handle") or ""), str(settings.get("password") or "")
        if handle and not _HANDLE(handle):
            found.append(Problem("handle", "not_a_handle", f"{handle[:60]!a} is no handle: write shop.bsky.social."))
        if password and not _PASSWORD(password):
            said = "An app password is a word such as abcd-efgh-ijkl-mnop: make one in the account's settings."
            found.append(Problem("password", "not_a_password", said))
        language = str(settings.get("language") or "en")
        if not _LANGUAGE(language):
            found.append(Problem("language", "not_a_language", f"{language[:40]!a} is no language: write en or pt-BR."))
        return found

    def too_long(self, settings: Mapping[str, Any], text: str) -> str:
        """300 graphemes and 3,000 bytes (``app.bsky.feed.post``)."""
        del settings
        count, size = graphemes(text), len(text.encode())
        if count > _MOST_GRAPHEMES:
            return f"{count} characters: a post has at most {_MOST_GRAPHEMES}"
        return f"{size} bytes: a post has at most {_MOST_BYTES}" if size > _MOST_BYTES else ""

    def request(self, settings: Mapping[str, Any], post: Post) -> Request | Outcome:
        """A record under the post's own key; logs in first where that is needed."""
        login = self._login_for(settings, post)
        if isinstance(login, Outcome):
            return login
        now = self._clock.now().astimezone(UTC)
        record: dict[str, Any] = {
            "$type": _POST,
            "text": post.text,
            "createdAt": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if found := facets(post.text):
            record["facets"] = found
        if settings.get("language"):
            record["langs"] = [settings["language"]]
        body = {"repo": login.did, "collection": _POST, "rkey": key_of(post.key), "swapRecord": None, "record": record}
        return _call(settings, "com.atproto.repo.putRecord", body, login.token)

    def outcome(self, settings: Mapping[str, Any], post: Post, answer: Answer) -> Outcome:
        """A record that is there already is this post: it was written at an earlier try."""
        key = key_of(post.key)
        found = document_of(answer.body)
        if 200 <= answer.status < 300:
            said = _RECORD(str(found.get("uri") or ""))
            if said and said.group(1) == key:
                return Outcome(post.ref, OutcomeKind.ACCEPTED, key)
            return Outcome(post.ref, OutcomeKind.UNKNOWN, str(answer.status), "the answer names no post, or another")
        if found.get("error") == "InvalidSwap":
            return Outcome(post.ref, OutcomeKind.ACCEPTED, key)
        return self._failed(settings, post, answer)

    def retract(self, settings: Mapping[str, Any], post: Post, code: str) -> Outcome:
        """``deleteRecord``, which ensures that there is none; its key is known whether it was written or not."""
        login = self._login_for(settings, post)
        if isinstance(login, Outcome):
            return login
        key = code or key_of(post.key)
        body = {"repo": login.did, "collection": _POST, "rkey": key}
        answer = self._client.send(_call(settings, "com.atproto.repo.deleteRecord", body, login.token))
        if 200 <= answer.status < 300:
            return Outcome(post.ref, OutcomeKind.ACCEPTED, key)
        return self._failed(settings, post, answer)

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Log in."""
        self._forget(settings)
        self._known(settings)

    def reactions(self, settings: Mapping[str, Any], code: str) -> list[Reaction]:
        """Who liked and reposted a post, and the answers to it."""
        uri = f"at://{self._known(settings).did}/{_POST}/{code}"
        found = []
        for each in self._pages(settings, "app.bsky.feed.getLikes", uri, "likes"):
            who = _actor(each.get("actor"))
            found.append(
                Reaction(ReactionKind.FAVOURITE, f"like:{code}:{who[0]}", who[1], moment(each.get("createdAt")))
            )
        for each in self._pages(settings, "app.bsky.feed.getRepostedBy", uri, "repostedBy"):
            who = _actor(each)
            found.append(Reaction(ReactionKind.REPOST, f"repost:{code}:{who[0]}", who[1]))
        about = urlencode({"uri": uri, "depth": 1, "parentHeight": 0})
        thread = document_of(self._read(settings, f"app.bsky.feed.getPostThread?{about}").body).get("thread")
        replies = object_of(thread).get("replies")
        for each in replies if isinstance(replies, list) else ():
            said = object_of(object_of(each).get("post"))
            if not said:
                continue
            record = object_of(said.get("record"))
            who, text = _actor(said.get("author")), words_of(record.get("text"), 2_000)
            at = moment(record.get("createdAt"))
            found.append(Reaction(ReactionKind.REPLY, f"reply:{words_of(said.get('uri'), 500)}", who[1], at, text))
        return found

    def _pages(self, settings: Mapping[str, Any], method: str, uri: str, name: str) -> Iterator[Mapping[str, Any]]:
        query: dict[str, Any] = {"uri": uri, "limit": PAGE}
        for _ in range(PAGES):
            found = document_of(self._read(settings, f"{method}?{urlencode(query)}").body)
            if not isinstance(found.get(name), list):
                raise Unavailable("The reactions to the post are not readable.")
            yield from (each for each in found[name] if isinstance(each, dict))
            if not found.get("cursor"):
                return
            query["cursor"] = words_of(found["cursor"], 1_000)

    def _read(self, settings: Mapping[str, Any], method: str) -> Answer:
        headers = {"Authorization": f"Bearer {self._known(settings).token}"}
        request = Request("GET", f"{_server(settings)}/xrpc/{method}", headers)
        return read_answer(self._client, request, self._clock, reset_of)

    def _known(self, settings: Mapping[str, Any]) -> _Login:
        """As who asks; refusals are errors.

        Raises:
            PermissionDenied: the login is refused.
            Unavailable: there is none now.
        """
        try:
            return self._login(settings)
        except _Refused as error:
            answer = error.answer
        said = f"Bluesky answers {answer.status} {said_of(answer)}".strip()
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"{said}.", retry_after_seconds=wait_seconds(answer, self._clock.now(), reset_of) or 60.0)
        if answer.status < 300:
            raise Unavailable("Whoever answers is no server of the AT Protocol: check the setting server.")
        raise PermissionDenied(f"{said}: check handle and app password.")

    def _login_for(self, settings: Mapping[str, Any], post: Post) -> _Login | Outcome:
        """As who a post is written or deleted; or what became of it because there is no login."""
        try:
            return self._login(settings)
        except _Refused as error:
            return self._fault(post, error.answer)
        except NoAnswer as error:
            # Of the login: of the post itself nothing has left.
            raise NotReached(error.message) from error

    def _login(self, settings: Mapping[str, Any]) -> _Login:
        place = (_server(settings), _handle(settings))
        password = hashlib.sha256(str(settings["password"]).encode()).digest()
        with self._lock:
            known = self._logins.get(place)
        if known is not None and known.password == password and known.until > self._clock.now():
            return known
        body = {"identifier": place[1], "password": settings["password"]}
        answer = self._client.send(_call(settings, "com.atproto.server.createSession", body))
        found = document_of(answer.body)
        did, token = found.get("did"), found.get("accessJwt")
        if not (200 <= answer.status < 300 and isinstance(did, str) and isinstance(token, str) and did and token):
            raise _Refused(answer)
        login = _Login(did, token, self._until(token), password)
        with self._lock:
            self._logins.pop(place, None)
            while len(self._logins) >= _MOST_LOGINS:
                self._logins.pop(next(iter(self._logins)))
            self._logins[place] = login
        return login

    def _until(self, token: str) -> datetime:
        """A login is used until shortly before it ends, as the token itself says."""
        latest = self._clock.now() + _LOGIN_LASTS
        part = f"{token}..".split(".")[1]
        try:
            ends = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"]
            return min(latest, datetime.fromtimestamp(ends, UTC) - _LEEWAY)
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
            return latest

    def _forget(self, settings: Mapping[str, Any]) -> None:
        with self._lock:
            self._logins.pop((_server(settings), _handle(settings)), None)

    def _failed(self, settings: Mapping[str, Any], post: Post, answer: Answer) -> Outcome:
        """What went wrong behind a login, which may be over."""
        if answer.status == 401 or document_of(answer.body).get("error") in _STALE:
            self._forget(settings)
        return self._fault(post, answer)

    def _fault(self, post: Post, answer: Answer) -> Outcome:
        """What went wrong, with the post or with the login before it."""
        said, word = said_of(answer), words_of(document_of(answer.body).get("error"), 64)
        if answer.status == 429 or answer.status in (502, 503, 504):
            seconds = wait_seconds(answer, self._clock.now(), reset_of)
            return Outcome(post.ref, OutcomeKind.THROTTLED, word or str(answer.status), said, seconds)
        if answer.status >= 500 or answer.status < 300 or word in _STALE:
            return Outcome(post.ref, OutcomeKind.TRANSIENT, word or str(answer.status), said)
        if answer.status == 413 or word in _UNFIT:
            return post.refused(f"{answer.status} {said}")
        return Outcome(post.ref, OutcomeKind.PERMANENT_SENDER, word or str(answer.status), said)


def key_of(digest: bytes) -> str:
    """A record key of the form that posts have (TID: 53 bits of microseconds, 10 of a clock), the same for the same digest.

    >>> key_of(bytes(32)), key_of(bytes([255] * 32))
    ('3jl7442uk2222', '3k2hq5dsjzzzz')
    """
    number = int.from_bytes(digest[:16])
    micros, clock = _YEAR + (number >> 10) % _YEAR_LONG, number & 0x3FF
    value = micros << 10 | clock
    return "".join(_SORTABLE[value >> shift & 31] for shift in range(60, -1, -5))


def reset_of(answer: Answer) -> datetime | None:
    """When the limit of requests starts anew: seconds since 1970."""
    text = answer.headers.get("ratelimit-reset", "")
    return datetime.fromtimestamp(int(text), UTC) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _call(settings: Mapping[str, Any], method: str, body: Mapping[str, Any], token: str = "") -> Request:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    return Request("POST", f"{_server(settings)}/xrpc/{method}", headers, json.dumps(body).encode())


def _server(settings: Mapping[str, Any]) -> str:
    return str(settings.get("server") or USUAL_SERVER).strip().rstrip("/")


def _handle(settings: Mapping[str, Any]) -> str:
    return str(settings["handle"]).removeprefix("@").lower()


def _actor(who: object) -> tuple[str, str]:
    """Somebody's identifier, and the handle that goes with it now."""
    about = object_of(who)
    return words_of(about.get("did"), 200), words_of(about.get("handle"), 253)
