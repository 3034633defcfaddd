"""What a channel is, said once, for our own and for a stranger's (DESIGN.md §6).

The product knows them only by these types. An implementation needs neither a base class
nor Pyramid; everything that crosses the border is a frozen dataclass, or a named tuple where there is one a message.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from nexus_marketing.core.messages import EMAIL, TEXT, Message


class AddressKind(StrEnum):
    """What a channel needs to reach somebody."""

    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    NONE = "none"
    #: Nobody in particular: one message to everybody who follows an account, whoever it was planned for. It holds nothing of
    #: a lead, and no lead's consent, suppression or cap is asked for it.
    AUDIENCE = "audience"


class OutcomeKind(StrEnum):
    """How one hand-over ended (BEHAVIOUR.md 5.2, Retry)."""

    ACCEPTED = "accepted"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    PERMANENT_RECIPIENT = "permanent_recipient"
    PERMANENT_SENDER = "permanent_sender"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"
    #: The channel could not make a message of it (``code`` is a skip reason); nothing left.
    REFUSED = "refused"


#: ``code`` of what was not sent because others use the account as much as its provider allows: nothing is wrong with it.
IN_USE: Final = "in_use"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a channel can promise; delivery plans windows, retries and recovery from it.

    ``max_in_flight`` is how many messages may be on the wire without an answer: the bound of
    what a killed worker leaves ``unknown`` where a hand-over journal survives. ``supports_idempotency``: a message with
    the same ``message_id`` reaches its recipient once however often it is handed over, so that what has no answer
    is handed over again.
    """

    address_kind: AddressKind
    max_in_flight: int
    supports_idempotency: bool = False
    cost_minor_per_message: int = 0
    #: On top, for each segment that a text takes on the air (:mod:`nexus_marketing.core.sms`).
    cost_minor_per_segment: int = 0
    max_message_bytes: int = 10_000_000
    #: Names of settings that are passwords: never stored in the clear, never shown.
    secret_settings: frozenset[str] = frozenset()
    #: For a secret that is sent to an address, the settings that say where: when they change it has to be given again,
    #: so that nobody who may not see it has it sent to himself.
    secret_destinations: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Settings that say who a message is from: accounts that differ in them do not stand in for each other.
    identity_settings: frozenset[str] = frozenset()
    #: Providers prove reports with keys of the installation: no tenant's settings are asked for.
    hears_for_all: bool = False

    @property
    def template_type(self) -> str:
        """Of the templates that go out by it: e-mail, or text alone."""
        return EMAIL if self.address_kind is AddressKind.EMAIL else TEXT


class Submission(NamedTuple):
    """One message ready to leave.

    ``ref`` numbers it within its batch and comes back in the outcome. ``message_id`` derives
    from the ledger row and is the same on every attempt.
    """

    ref: int
    address: str
    message_id: str
    values: Mapping[str, str]


class Outcome(NamedTuple):
    """The answer for one submission: ``code`` and ``detail`` are the provider's own words."""

    ref: int
    kind: OutcomeKind
    code: str = ""
    detail: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A published template version together with the tenant's sender settings.

    ``message`` is the parsed template; a submission's ``values`` hold the text of each of its gaps under
    :func:`nexus_marketing.core.messages.value_key`. ``bulk`` asks for the headers of marketing mail.
    """

    message: Message
    sender: Mapping[str, str]
    list_id: str
    bulk: bool


class Journal(Protocol):
    """The hand-over journal of a worker (BEHAVIOUR.md 5.2): survives SIGKILL of the process.

    A channel's own threads may call it, but no more for a message whose outcome was yielded.
    """

    def on_wire(self, ref: int) -> None:
        """Called before the byte that completes the message may leave."""
        ...

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """Called as soon as the answer is read."""
        ...


class ChannelSession(Protocol):
    """An open channel: connections made, content compiled."""

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Start handing over; the iterator drives I/O and yields each outcome as it is known.

        Every submission yields exactly one outcome. While nothing is known it yields ``None`` at least
        once a second, so that the caller can renew its lease. Several batches may be open at a time.
        """
        ...

    def withdraw(self) -> None:
        """Take back what has not begun to leave: each gets its ``not_sent``."""
        ...

    def close(self) -> None:
        """Let go of connections. What was never answered is the caller's ``unknown``."""
        ...


@runtime_checkable
class Channel(Protocol):
    """A way to reach people."""

    name: str
    capabilities: Capabilities

    def validate(self, settings: Mapping[str, Any]) -> None:
        """Raise ``ValidationError`` naming each setting that is missing or wrong."""
        ...

    def open(self, settings: Mapping[str, Any], content: Content) -> ChannelSession:
        """Prepare to send this content with these settings."""
        ...


@runtime_checkable
class ProbedChannel(Protocol):
    """A channel that can tell whether an account works without sending anything."""

    def probe(self, settings: Mapping[str, Any]) -> None:
        """Connect, log in, and part; within half a minute.

        Raises:
            Unavailable: it cannot be reached now.
            HostRefused: it is no address that we connect to.
            PermissionDenied: the provider refuses these settings.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message as it is handed over: its bytes, and what they are (``message/rfc822``, ``text/plain; charset=utf-8``)."""

    media_type: str
    content: bytes


@runtime_checkable
class RenderingChannel(Protocol):
    """A channel that can make a message again without sending it, byte for byte.

    All that differs from one time to another comes with the submission; ``values["date"]`` is when it was composed
    (RFC 5322).
    """

    def render(self, settings: Mapping[str, Any], content: Content, submission: Submission) -> Rendered:
        """The message that the submission leaves as."""
        ...


@runtime_checkable
class PostingChannel(Protocol):
    """A channel to an audience (:attr:`AddressKind.AUDIENCE`) that can say beforehand whether a text can be posted."""

    def check_text(self, settings: Mapping[str, Any], text: str) -> None:
        """Look at a text without its gaps.

        Raises:
            ValidationError: it cannot be posted, for instance because it is too long.
        """
        ...


class ReactionKind(StrEnum):
    """What somebody did about a post."""

    FAVOURITE = "favourite"
    REPOST = "repost"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Reaction:
    """One thing that somebody did about a post.

    ``id`` is the same however often it is read. ``actor`` is who, as the network names them (``@ann@mastodon.example``,
    ``ann.bsky.social``); ``at`` is when, where the network says it; ``text`` is what a reply says.
    """

    kind: ReactionKind
    id: str
    actor: str
    at: datetime | None = None
    text: str = field(default="", repr=False)


@runtime_checkable
class WatchedChannel(Protocol):
    """A channel whose network tells what became of a post when it is asked."""

    def reactions(self, settings: Mapping[str, Any], code: str) -> Sequence[Reaction]:
        """What people did about the post with this ``code`` (the one of its outcome), as far as the network shows it.

        Raises:
            Unavailable: there is no answer now.
            HostRefused: it is no address that we connect to.
            PermissionDenied: the network refuses the account, or the post is gone.
        """
        ...


class ProviderEventKind(StrEnum):
    """What a provider tells of a message, or of a person, after it has taken the message."""

    DELIVERED = "delivered"
    #: Given up, though the address may work again.
    BOUNCED_SOFT = "bounced_soft"
    BOUNCED_HARD = "bounced_hard"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    #: Not yet: the provider goes on trying.
    DEFERRED = "deferred"
    #: Somebody wrote to us; ``detail`` is the text.
    INBOUND_MESSAGE = "inbound_message"


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One thing that a provider tells, in our words.

    ``event_id`` is the same however often it is told. ``message_id`` is that of the submission, as it came back;
    ``code`` the one the provider gave with its outcome. ``at`` is when it happened (aware; nothing: just now).
    """

    kind: ProviderEventKind
    event_id: str
    message_id: str = ""
    code: str = ""
    address: str = ""
    at: datetime | None = None
    detail: str = field(default="", repr=False)


@runtime_checkable
class HearingChannel(Protocol):
    """A channel whose providers report back to ``POST /hooks/{tenant}/{channel}[/{provider}]``.

    Header names are in lower case. Two of them are no headers: ``:url`` is the address that was asked, as the provider
    knows it, and ``:provider`` the last part of its path, empty where there is none.
    """

    def verify(self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> bool:
        """Whether this comes from the provider. Nobody else has looked at it yet: it may be anything.

        ``settings`` are the tenant's for this channel, empty where the channel has no ``secret_settings``.

        Raises:
            Unavailable: that cannot be found out now; the provider is asked to come again.
        """
        ...

    def parse_events(
        self, settings: Mapping[str, Any], headers: Mapping[str, str], body: bytes
    ) -> Sequence[ProviderEvent]:
        """What it says. What is not understood is left out: a provider that repeats it helps nobody."""
        ...


#: Keeps what a provider tells for good, or raises: then the provider is asked to tell it again.
Hear = Callable[[Sequence[ProviderEvent]], None]


@dataclass(frozen=True, slots=True)
class LineState:
    """How a connection that is kept stands; ``is_refused`` says that only a change at the provider or the account helps.

    ``code`` is :data:`IN_USE` where somebody else has the only ones there may be; ``said`` is a sentence for a person.
    """

    is_open: bool
    is_refused: bool = False
    code: str = ""
    said: str = ""


class Line(Protocol):
    """A connection to a provider that is kept open and made again when it is lost."""

    def state(self) -> LineState:
        """How it stands now."""
        ...

    def close(self) -> None:
        """Part from the provider, unless messages leave by the same connection."""
        ...


@runtime_checkable
class ListeningChannel(Protocol):
    """A channel whose providers report over a connection of ours, which has to be open whether anything is sent or not."""

    def listen(self, settings: Mapping[str, Any], hear: Hear) -> Line | None:
        """Begin to hear; nothing where the provider of these settings reports in another way.

        ``hear`` is called by a thread of the channel's. The provider is told that we have an event once it has returned.
        """
        ...


class Retraction(NamedTuple):
    """A message that was handed over and is to be taken back, as far as its channel can.

    ``message_id`` is that of the submission; ``code`` the one that the provider gave with its outcome. ``address`` is the
    lead's own at this moment, empty where there is none any more.
    """

    message_id: str
    address: str
    code: str = ""


@runtime_checkable
class CompensatingChannel(Protocol):
    """A channel that can take back what a failed campaign has handed over (FR-P3-004)."""

    def compensate(self, settings: Mapping[str, Any], retraction: Retraction) -> Outcome:
        """Take a message back, at most once for a ``message_id``; the outcome's ``ref`` is not looked at.

        ``accepted`` is done; ``transient``, ``throttled``, ``permanent_sender`` and ``unknown`` are tried again;
        everything else means that it cannot be taken back.
        """
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a program: ``id`` is the same however often it is repeated. What it says is never shown."""

    id: str
    method: str
    url: str
    body: str = field(repr=False)


@runtime_checkable
class CallingChannel(Protocol):
    """A channel that can also call an address of its caller's choice, signed as its messages are."""

    def check_url(self, url: str) -> None:
        """Say what can be said of an address without asking anybody.

        Raises:
            HostRefused: it is not one that is connected to.
        """
        ...

    def call(self, settings: Mapping[str, Any], call: Call) -> Outcome:
        """Call it once; ``settings`` are the tenant's for this channel, empty where it has none."""
        ...


ChannelFactory = Callable[[Mapping[str, Any]], Channel]
