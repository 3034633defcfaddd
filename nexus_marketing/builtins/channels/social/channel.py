"""The channel of a social network: one post to everybody who follows an account (docs/adr/0021)."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus_marketing.builtins.channels.social.networks import Network, Post
from nexus_marketing.core.contracts import (
    AddressKind,
    Capabilities,
    Content,
    Outcome,
    OutcomeKind,
    Reaction,
    Rendered,
    Retraction,
    Submission,
)
from nexus_marketing.core.errors import HostRefused, Problem, ValidationError
from nexus_marketing.core.messages import PRODUCT_NAMES, Piece, Variable, plain_text
from nexus_marketing.plugin.exchanges import Answer, Http, NoAnswer, NotReached, Request
from nexus_marketing.plugin.http_sessions import HttpSession, Lanes

#: Who reads a post is nobody we could unsubscribe.
_PUBLIC_NAMES: Final = PRODUCT_NAMES - {"unsubscribe_url"}


class SocialChannel:
    """Reaches those who follow an account: one post, whoever it was planned for."""

    def __init__(self, network: Network, client: Http, *, origin: str = "") -> None:
        """Prepare; nothing is connected yet.

        Args:
            network: which one.
            client: the guarded way out.
            origin: where this installation is, so that the keys of two never meet at one account.
        """
        self.name = network.name
        self._network = network
        self._client = client
        self._origin = origin
        self._lanes = Lanes(1)
        self.capabilities = Capabilities(
            address_kind=AddressKind.AUDIENCE,
            max_in_flight=1,
            supports_idempotency=network.is_idempotent,
            secret_settings=frozenset({network.secret}),
            secret_destinations={network.secret: frozenset({"server"})},
            # Two accounts are two voices: none speaks in the place of the other.
            identity_settings=frozenset({"server", "handle"}),
        )

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Check an account's settings.

        Raises:
            ValidationError: names each one that is missing, unknown or wrong.
        """
        names = self._network.settings
        problems = [
            Problem(name, "unknown_setting", f"{name} is no setting of {self.name}: use {', '.join(names)}.")
            for name in sorted(settings.keys() - set(names))
        ]
        problems += self._network.problems(settings)
        if problems:
            raise ValidationError(problems=problems)

    def check_text(self, settings: Mapping[str, Any], text: str) -> None:
        """Whether a text can be a post.

        Raises:
            ValidationError: it is empty, or too long for the network.
        """
        said = self._unfit(settings, text.strip())
        if said:
            raise ValidationError.at("text", "not_a_post", f"{said}.")

    def open(self, settings: Mapping[str, Any], content: Content) -> HttpSession:
        """Look at the text; connections are made with the post.

        Raises:
            ValidationError: as for settings and text; or the text holds something of a lead.
        """
        self.validate(settings)
        pieces = content.message.parts["text"]
        personal = sorted({name for piece in pieces if (name := _personal(piece))})
        if personal:
            said = f"A post is read by everybody, and this one holds {', '.join(personal)}."
            raise ValidationError.at("text", "not_public", said)
        if all(isinstance(piece, str) for piece in pieces):
            self.check_text(settings, plain_text(pieces, {}))
        return HttpSession(self._client, self._lanes, _Posts(self, self._network, settings, pieces, self._origin))

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The text of the post."""
        del settings
        text = plain_text(content.message.parts["text"], submission.values).strip()
        return Rendered("text/plain; charset=utf-8", text.encode())

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Log in, and post nothing.

        Raises:
            Unavailable: the network cannot be reached now.
            HostRefused: its server is no address that we connect to.
            PermissionDenied: it refuses the account, or the account is another's.
        """
        self._network.probe(settings)

    def reactions(self, settings: Mapping[str, Any], code: str) -> Sequence[Reaction]:
        """Favourites, reposts and replies, each kind from the newest on, at most 400 of it.

        Raises:
            Unavailable: there is no answer now.
            HostRefused: its server is no address that we connect to.
            PermissionDenied: the network refuses the account, or the post is gone.
        """
        return self._network.reactions(settings, code)

    def compensate(self, settings: Mapping[str, Any], retraction: Retraction) -> Outcome:
        """Delete a post; one that is gone already is deleted."""
        post = Post.of(0, "", retraction.message_id, self._origin)
        try:
            return self._network.retract(settings, post, retraction.code)
        except HostRefused as error:
            return Outcome(0, OutcomeKind.PERMANENT_SENDER, error.code, error.message[:200])
        except NotReached as error:
            return Outcome(0, OutcomeKind.TRANSIENT, error.code, error.message[:200], error.retry_after_seconds)
        except NoAnswer as error:
            return Outcome(0, OutcomeKind.UNKNOWN, error.code, error.message[:200])

    def close_thread(self) -> None:
        """End this thread's part in sending."""
        self._lanes.close()

    def _unfit(self, settings: Mapping[str, Any], text: str) -> str:
        return self._network.too_long(settings, text) if text else "There is no text in it"


class _Posts:
    """One content, as requests of a network and what their answers mean."""

    def __init__(
        self,
        channel: SocialChannel,
        network: Network,
        settings: Mapping[str, Any],
        pieces: Sequence[Piece],
        origin: str,
    ) -> None:
        self._channel, self._network, self._settings = channel, network, settings
        self._pieces, self._origin = pieces, origin
        #: A thread has one post under way at a time: the answer is to that one.
        self._under_way = threading.local()

    def request(self, submission: Submission) -> Request | Outcome:
        """The post of a submission."""
        text = plain_text(self._pieces, submission.values).strip()
        post = self._under_way.post = Post.of(submission.ref, text, submission.message_id, self._origin)
        try:
            self._channel.check_text(self._settings, text)
        except ValidationError as error:
            return post.refused(error.message)
        return self._network.request(self._settings, post)

    def outcome(self, ref: int, answer: Answer) -> Outcome:
        """As the network says it."""
        post: Post = self._under_way.post
        return self._network.outcome(self._settings, post, answer)._replace(ref=ref)


def _personal(piece: Piece) -> str:
    """What of a lead a piece would show, tracked links included: a click would be said to be this lead's."""
    if isinstance(piece, str) or (isinstance(piece, Variable) and piece.path in _PUBLIC_NAMES):
        return ""
    return piece.path if isinstance(piece, Variable) else "a tracked link"
