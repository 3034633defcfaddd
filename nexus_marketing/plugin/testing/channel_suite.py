"""The suite that every channel of ours passes, for a stranger's: a class to inherit from (pytest)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from nexus_marketing.core.contracts import (
    AddressKind,
    Channel,
    ChannelSession,
    CompensatingChannel,
    Content,
    Outcome,
    OutcomeKind,
    RenderingChannel,
    Retraction,
    Submission,
)
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.messages import EMAIL, TEXT, Link, OpenPixel, Variable, untracked, value_key
from nexus_marketing.core.templates import parse_message
from nexus_marketing.plugin.conformity import missing_parts
from nexus_marketing.plugin.examination import faults_of
from nexus_marketing.plugin.manifests import Capability

_LEFT = (OutcomeKind.ACCEPTED, OutcomeKind.UNKNOWN)
_PARTS = {
    EMAIL: {"subject": "For {{ first_name }}", "text": "Hello {{ first_name }}! Out: {{ unsubscribe_url }}"},
    TEXT: {"text": "Hello {{ first_name }}! Out: {{ unsubscribe_url }}"},
}
#: Nothing of a lead may be in what everybody reads.
_POST = {"text": "Hello everybody! More: https://shop.example/news"}
_ADDRESSES = {
    AddressKind.EMAIL: "person{number}@example.org",
    AddressKind.PHONE: "+4930123{number:04}",
    AddressKind.URL: "https://example.org/{number}",
    AddressKind.NONE: "",
    AddressKind.AUDIENCE: "",
}


class WatchingJournal:
    """A hand-over journal that remembers, and how many were on the wire at once."""

    def __init__(self) -> None:
        self.on_the_wire: set[int] = set()
        self.answered: dict[int, OutcomeKind] = {}
        self.left: list[int] = []
        self.most = 0

    def on_wire(self, ref: int) -> None:
        """It may leave from here on."""
        assert ref not in self.answered, f"message {ref} leaves after it was answered"
        assert ref not in self.left, f"message {ref} leaves twice"
        self.on_the_wire.add(ref)
        self.left.append(ref)
        self.most = max(self.most, len(self.on_the_wire))

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """It was answered."""
        assert ref not in self.answered, f"message {ref} is answered twice in the journal"
        self.on_the_wire.discard(ref)
        self.answered[ref] = OutcomeKind(kind)


def sample_content(channel: Channel) -> Content:
    """A small message of the kind that a channel carries."""
    kind = channel.capabilities.template_type
    is_public = channel.capabilities.address_kind is AddressKind.AUDIENCE
    sender = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}
    message = untracked(parse_message(_POST, {}, kind)) if is_public else parse_message(_PARTS[kind], {}, kind)
    return Content(message, sender, "<c1.t1.shop.example>", bulk=True)


def sample_batch(channel: Channel, content: Content, count: int, first: int = 0) -> list[Submission]:
    """So many messages of a content, each to another address."""
    pieces = {piece for part in content.message.parts.values() for piece in part if not isinstance(piece, str)}
    values = {value_key(piece): _sample(piece) for piece in pieces}
    values |= {"to_name": "Ann", "unsubscribe": "https://shop.example/u/x", "date": "Thu, 01 Jan 2026 00:00:00 +0000"}
    address = _ADDRESSES[channel.capabilities.address_kind]
    return [
        Submission(ref, address.format(number=first + ref), f"<r{first + ref}.s1.t1@shop.example>", values)
        for ref in range(count)
    ]


def _sample(piece: Variable | Link | OpenPixel) -> str:
    return "Ann" if isinstance(piece, Variable) else "token"


class ChannelConformance:
    """Holds a channel against what :class:`nexus_marketing.plugin.Channel` says.

    Needs a fixture ``channel`` whose provider takes every message of :func:`sample_batch`. ``settings`` may answer a
    tenant's settings, ``content`` another message, ``unreachable`` the same channel with a provider that is away.
    """

    #: Messages of a batch.
    count = 25

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """A tenant's settings."""
        return {}

    @pytest.fixture
    def content(self, channel: Channel) -> Content:
        """A message."""
        return sample_content(channel)

    @pytest.fixture
    def unreachable(self) -> Channel | None:
        """A channel of the kind whose provider is away."""
        return None

    @pytest.fixture
    def session(self, channel: Channel, settings: Mapping[str, Any], content: Content) -> Iterator[ChannelSession]:
        """An open session."""
        session = channel.open(settings, content)
        yield session
        session.close()

    def test_it_has_every_part_of_the_contract(self, channel: Channel, session: ChannelSession) -> None:
        assert missing_parts(Channel, channel) == []
        assert missing_parts(ChannelSession, session) == []
        assert faults_of(Capability.CHANNEL, channel) == []

    def test_it_takes_settings_that_are_right(self, channel: Channel, settings: Mapping[str, Any]) -> None:
        channel.validate(settings)

    def test_it_says_which_settings_are_wrong(self, channel: Channel, settings: Mapping[str, Any]) -> None:
        for name in settings:
            assert all(_places(channel, {**settings, name: "\x00\n"}))

    def test_every_message_has_one_outcome(self, channel: Channel, session: ChannelSession, content: Content) -> None:
        journal = WatchingJournal()
        outcomes = drained(session, sample_batch(channel, content, self.count), journal)
        assert sorted(outcome.ref for outcome in outcomes) == list(range(self.count))
        assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}

    def test_the_journal_knows_what_may_have_left(
        self, channel: Channel, session: ChannelSession, content: Content
    ) -> None:
        journal = WatchingJournal()
        outcomes = drained(session, sample_batch(channel, content, self.count), journal)
        assert sorted(journal.left) == sorted(each.ref for each in outcomes if each.kind in _LEFT)
        assert journal.answered == {each.ref: each.kind for each in outcomes}
        assert journal.on_the_wire == set()

    def test_no_more_are_on_the_wire_than_it_says(
        self, channel: Channel, session: ChannelSession, content: Content
    ) -> None:
        journal = WatchingJournal()
        drained(session, sample_batch(channel, content, self.count), journal)
        assert journal.most <= channel.capabilities.max_in_flight

    def test_a_batch_of_none_has_no_outcome(self, session: ChannelSession) -> None:
        assert drained(session, [], WatchingJournal()) == []

    def test_a_session_takes_one_batch_after_another(
        self, channel: Channel, session: ChannelSession, content: Content
    ) -> None:
        for first in (0, 100):
            outcomes = drained(session, sample_batch(channel, content, 3, first), WatchingJournal())
            assert [outcome.kind for outcome in outcomes] == [OutcomeKind.ACCEPTED] * 3

    def test_what_is_withdrawn_has_not_left(self, channel: Channel, session: ChannelSession, content: Content) -> None:
        journal = WatchingJournal()
        outcomes = session.submit(sample_batch(channel, content, self.count), journal)
        session.withdraw()
        found = [outcome for outcome in outcomes if outcome is not None]
        assert sorted(outcome.ref for outcome in found) == list(range(self.count))
        kept = {outcome.ref for outcome in found if outcome.kind is OutcomeKind.NOT_SENT}
        assert kept & set(journal.left) == set()

    def test_after_a_withdrawal_it_goes_on(self, channel: Channel, session: ChannelSession, content: Content) -> None:
        outcomes = session.submit(sample_batch(channel, content, 3), WatchingJournal())
        session.withdraw()
        list(outcomes)
        again = drained(session, sample_batch(channel, content, 3, 100), WatchingJournal())
        assert [outcome.kind for outcome in again] == [OutcomeKind.ACCEPTED] * 3

    def test_it_closes_more_than_once(self, channel: Channel, settings: Mapping[str, Any], content: Content) -> None:
        session = channel.open(settings, content)
        drained(session, sample_batch(channel, content, 1), WatchingJournal())
        session.close()
        session.close()

    def test_a_provider_that_is_away_is_no_reason_to_raise(
        self, unreachable: Channel | None, settings: Mapping[str, Any], content: Content
    ) -> None:
        if unreachable is None:
            pytest.skip("the fixture unreachable says of none")
        journal = WatchingJournal()
        session = unreachable.open(settings, content)
        outcomes = drained(session, sample_batch(unreachable, content, 3), journal)
        session.close()
        assert sorted(outcome.ref for outcome in outcomes) == [0, 1, 2]
        assert {outcome.kind for outcome in outcomes} <= {OutcomeKind.TRANSIENT, OutcomeKind.NOT_SENT}
        assert journal.left == []

    def test_a_message_is_made_again_byte_for_byte(
        self, channel: Channel, settings: Mapping[str, Any], content: Content
    ) -> None:
        if not isinstance(channel, RenderingChannel):
            pytest.skip("it makes no messages again")
        (submission,) = sample_batch(channel, content, 1)
        first = channel.render(settings, content, submission)
        assert first == channel.render(settings, content, submission)
        assert first.content

    def test_taking_a_message_back_twice_is_answered_as_once(
        self, channel: Channel, settings: Mapping[str, Any], content: Content
    ) -> None:
        if not isinstance(channel, CompensatingChannel):
            pytest.skip("it takes nothing back")
        (submission,) = sample_batch(channel, content, 1)
        retraction = Retraction(submission.message_id, submission.address)
        first = channel.compensate(settings, retraction)
        assert isinstance(first, Outcome)
        assert channel.compensate(settings, retraction).kind is first.kind


def _places(channel: Channel, settings: Mapping[str, Any]) -> list[str]:
    """Where a channel sees what is wrong; anything but a ``ValidationError`` is a fault of its own."""
    try:
        channel.validate(settings)
    except ValidationError as error:
        return [problem.path for problem in error.problems] or [""]
    return []


def drained(session: ChannelSession, batch: Sequence[Submission], journal: WatchingJournal) -> list[Outcome]:
    """Every outcome of a batch."""
    return [outcome for outcome in session.submit(batch, journal) if outcome is not None]
