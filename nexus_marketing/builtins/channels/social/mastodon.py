"""Mastodon's API, which others speak too (Pleroma, GoToSocial): ``POST /api/v1/statuses`` (docs.joinmastodon.org, "Statuses").

A server remembers an ``Idempotency-Key`` for an hour. What is tried within it is posted once; a post without an answer is not
tried again by itself, because nobody says when that would be.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from nexus_marketing.builtins.channels.answers import document_of, json_of, object_of, words_of
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
from nexus_marketing.builtins.channels.social.texts import LINK, graphemes
from nexus_marketing.core.clock import Clock
from nexus_marketing.core.contracts import Outcome, OutcomeKind, Reaction, ReactionKind
from nexus_marketing.core.errors import PermissionDenied, Problem, Unavailable
from nexus_marketing.plugin.exchanges import Answer, Http, Request

#: Direct messages are none to an audience.
VISIBILITIES: Final = ("public", "unlisted", "private")
_USUAL_CHARACTERS: Final = 500
_MOST_CHARACTERS: Final = 100_000
#: However long a link is; of a person of another server the name alone counts.
_LINK: Final = "x" * 23
_MENTION: Final = re.compile(r"(?<![\w/])@(\w+)@[\w.-]+\w")
_HANDLE: Final = re.compile(r"@?([A-Za-z0-9_]+(?:[.-]+[A-Za-z0-9_]+)*)@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)").fullmatch
_TOKEN: Final = re.compile(r"[!-~]{8,2000}").fullmatch
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}").fullmatch
_NEXT: Final = re.compile(r'<([^<>]*)>\s*;\s*rel="next"')
_TAGS: Final = re.compile(r"<[^<>]*>")


class Mastodon:
    """One account on one server, by an access token with the scopes ``write:statuses`` and ``read``."""

    name = "mastodon"
    settings: Sequence[str] = ("server", "handle", "token", "visibility", "language", "max_characters")
    secret = "token"  # noqa: S105 - the name of it
    is_idempotent = False

    def __init__(self, client: Http, clock: Clock) -> None:
        self._client, self._clock = client, clock

    def problems(self, settings: Mapping[str, Any]) -> list[Problem]:
        """``server``, ``handle`` and ``token`` are needed; the others have a usual value."""
        wanted = {"server": "The server of the account", "handle": "Who posts, as @shop@mastodon.social,"}
        found = required(settings, {**wanted, "token": "An access token of the account"})
        found += server_problems(self._client, _server(settings), "https://mastodon.social")
        handle, token = str(settings.get("handle") or ""), str(settings.get("token") or "")
        if handle and not _HANDLE(handle):
            found.append(
                Problem("handle", "not_a_handle", f"{handle[:60]!a} is no account: write @shop@mastodon.social.")
            )
        if token and not _TOKEN(token):
            found.append(Problem("token", "not_a_token", "A token is a word of at least 8 characters, without spaces."))
        visibility, language = settings.get("visibility", "public"), str(settings.get("language") or "en")
        if visibility not in VISIBILITIES:
            said = f"{str(visibility)[:40]!a} is no visibility: write {', '.join(VISIBILITIES)}."
            found.append(Problem("visibility", "unknown_value", said))
        if not _LANGUAGE(language):
            found.append(Problem("language", "not_a_language", f"{language[:40]!a} is no language: write en or de."))
        most = settings.get("max_characters", _USUAL_CHARACTERS)
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= _MOST_CHARACTERS:
            said = f"{str(most)[:40]!a} is no number of characters: write what the server allows, usually 500."
            found.append(Problem("max_characters", "out_of_bounds", said))
        return found

    def too_long(self, settings: Mapping[str, Any], text: str) -> str:
        """As a server counts: links as 23 characters, people of other servers without them."""
        most = int(settings.get("max_characters", _USUAL_CHARACTERS))
        count = graphemes(_MENTION.sub(r"@\1", LINK.sub(_LINK, text)))
        return f"{count} characters: a post has at most {most} on this server" if count > most else ""

    def request(self, settings: Mapping[str, Any], post: Post) -> Request:
        """A status of the account."""
        status = {"status": post.text, "visibility": settings.get("visibility", "public")}
        if settings.get("language"):
            status["language"] = settings["language"]
        headers = {**_login(settings), "Content-Type": "application/json", "Idempotency-Key": post.key.hex()}
        return Request("POST", f"{_server(settings)}/api/v1/statuses", headers, json.dumps(status).encode())

    def outcome(self, settings: Mapping[str, Any], post: Post, answer: Answer) -> Outcome:
        """A success names its status; of a fault nobody knows whether it was posted before."""
        del settings
        status, said = answer.status, said_of(answer)
        if 200 <= status < 300:
            code = words_of(document_of(answer.body).get("id"), 64)
            if code:
                return Outcome(post.ref, OutcomeKind.ACCEPTED, code)
            return Outcome(post.ref, OutcomeKind.UNKNOWN, str(status), "the answer names no post")
        if status in (413, 422):
            return post.refused(f"{status} {said}")
        if status in (429, 503):
            seconds = wait_seconds(answer, self._clock.now(), reset_of)
            return Outcome(post.ref, OutcomeKind.THROTTLED, str(status), said, seconds)
        kind = OutcomeKind.UNKNOWN if status >= 500 else OutcomeKind.PERMANENT_SENDER
        return Outcome(post.ref, kind, str(status), said)

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Whose token it is (``verify_credentials``)."""
        found = document_of(self._read(settings, "accounts/verify_credentials").body)
        said, wanted = words_of(found.get("acct"), 200), _names(settings)[0]
        if not said:
            raise Unavailable("Whoever answers is no Mastodon server: check the setting server.")
        if said.lower() != wanted.lower():
            raise PermissionDenied(f"The token belongs to {said[:60]!a}, not to {wanted!a}: check handle and token.")

    def retract(self, settings: Mapping[str, Any], post: Post, code: str) -> Outcome:
        """``DELETE /api/v1/statuses/:id``; of one that is not found it is asked whether it is somebody else's."""
        if not code:
            said = "nobody knows whether it was posted: look at the profile, and delete it there"
            return Outcome(post.ref, OutcomeKind.PERMANENT_RECIPIENT, "", said)
        url = f"{_server(settings)}/api/v1/statuses/{quote(code, safe='')}"
        answer = self._client.send(Request("DELETE", url, _login(settings)))
        status = answer.status
        if 200 <= status < 300:
            if words_of(document_of(answer.body).get("id"), 64) == code:
                return Outcome(post.ref, OutcomeKind.ACCEPTED, code)
            return Outcome(post.ref, OutcomeKind.UNKNOWN, str(status), "the answer names no post, or another")
        if status in (404, 410):
            still = self._client.send(Request("GET", url, _login(settings))).status
            if still in (404, 410):
                return Outcome(post.ref, OutcomeKind.ACCEPTED, code, "it was gone already")
            status = 403 if 200 <= still < 300 else still
        said = said_of(answer)
        if status in (429, 503):
            seconds = wait_seconds(answer, self._clock.now(), reset_of)
            return Outcome(post.ref, OutcomeKind.THROTTLED, str(status), said, seconds)
        if status >= 500:
            return Outcome(post.ref, OutcomeKind.TRANSIENT, str(status), said)
        # The token, its scopes or the account: a person can mend that.
        said = f"the post cannot be deleted with this account: check handle and token ({said})"
        return Outcome(post.ref, OutcomeKind.PERMANENT_SENDER, str(status), said)

    def reactions(self, settings: Mapping[str, Any], code: str) -> list[Reaction]:
        """Who favourited and boosted a status, and the public answers to it."""
        at, domain = f"statuses/{quote(code, safe='')}", _names(settings)[1]
        found = []
        for kind, path in ((ReactionKind.FAVOURITE, "favourited_by"), (ReactionKind.REPOST, "reblogged_by")):
            people = self._pages(settings, f"{at}/{path}")
            found += [
                Reaction(kind, f"{kind}:{code}:{words_of(who.get('id'), 64)}", _actor(who, domain)) for who in people
            ]
        context = document_of(self._read(settings, f"{at}/context").body).get("descendants")
        if not isinstance(context, list):
            raise Unavailable("The answers to the post are not readable, or too many.")
        for each in context:
            if isinstance(each, dict) and str(each.get("in_reply_to_id")) == code:
                who = object_of(each.get("account"))
                text = plain(words_of(each.get("content"), 20_000))
                at_ = moment(each.get("created_at"))
                found.append(
                    Reaction(
                        ReactionKind.REPLY, f"reply:{words_of(each.get('id'), 64)}", _actor(who, domain), at_, text
                    )
                )
        return found

    def _pages(self, settings: Mapping[str, Any], path: str) -> Iterator[Mapping[str, Any]]:
        """Accounts, page by page: the next one begins where the header ``Link`` says."""
        query = f"limit={PAGE}"
        for _ in range(PAGES):
            answer = self._read(settings, f"{path}?{query}")
            people = json_of(answer.body)
            if not isinstance(people, list):
                raise Unavailable("The reactions to the post are not readable.")
            yield from (each for each in people if isinstance(each, dict))
            link = _NEXT.search(answer.headers.get("link", ""))
            # The server's own address is asked again, wherever the link leads.
            after = parse_qs(urlsplit(link.group(1)).query).get("max_id") if link else None
            if not after:
                return
            query = f"limit={PAGE}&max_id={quote(after[0], safe='')}"

    def _read(self, settings: Mapping[str, Any], path: str) -> Answer:
        request = Request("GET", f"{_server(settings)}/api/v1/{path}", _login(settings))
        return read_answer(self._client, request, self._clock, reset_of)


def reset_of(answer: Answer) -> datetime | None:
    """When the limit of requests starts anew."""
    return moment(answer.headers.get("x-ratelimit-reset"))


def plain(content: str) -> str:
    """The text of a status, which is HTML.

    >>> plain("<p>Nice &amp; good<br>thing</p>")
    'Nice & good thing'
    """
    return " ".join(html.unescape(_TAGS.sub(" ", content)).split())[:2_000]


def _server(settings: Mapping[str, Any]) -> str:
    return str(settings.get("server") or "").strip().rstrip("/")


def _login(settings: Mapping[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings['token']}"}


def _names(settings: Mapping[str, Any]) -> tuple[str, str]:
    """The name of the account, and the domain that it is of."""
    found = _HANDLE(str(settings["handle"]))
    return (found.group(1), found.group(2)) if found else ("", "")


def _actor(who: Mapping[str, Any], domain: str) -> str:
    acct = words_of(who.get("acct"), 200)
    return f"@{acct}" if "@" in acct else f"@{acct}@{domain}"
