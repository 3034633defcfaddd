"""Channels against the suite that a stranger's channel is held against: ours, those of the tests, and broken ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.builtins.channels.email import EmailChannel
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import AddressKind, Capabilities, Outcome, OutcomeKind, Submission
from nexus_marketing.plugin import SerialSession
from nexus_marketing.plugin.testing import (
    ChannelConformance,
    RecordingChannel,
    RecordingServer,
    SocketChannel,
    WatchingJournal,
    sample_batch,
    sample_content,
)
from nexus_marketing.smtp.catcher import Catcher
from nexus_marketing.smtp.client import PoolSettings

pytestmark = pytest.mark.req("FR-EXT-001", "US-018")


class TestEmail(ChannelConformance):
    @pytest.fixture
    def channel(self, tmp_path: Path, clock: FakeClock) -> Iterator[EmailChannel]:
        with Catcher(tmp_path / "mail") as catcher:
            channel = EmailChannel(PoolSettings(host="127.0.0.1", port=catcher.port, connections=3), clock)
            yield channel
            channel.close_thread()

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street"}

    @pytest.fixture
    def unreachable(self, free_port: int, clock: FakeClock) -> Iterator[EmailChannel]:
        channel = EmailChannel(PoolSettings(host="127.0.0.1", port=free_port, connections=1), clock)
        yield channel
        channel.close_thread()


class TestRecordingChannel(ChannelConformance):
    @pytest.fixture
    def channel(self) -> RecordingChannel:
        return RecordingChannel(max_in_flight=1)


class TestRecordingChannelOfText(TestRecordingChannel):
    @pytest.fixture
    def channel(self) -> RecordingChannel:
        return RecordingChannel(name="sms", address_kind=AddressKind.PHONE)


class TestSocketChannel(ChannelConformance):
    @pytest.fixture
    def channel(self) -> SocketChannel:
        return SocketChannel("push")

    @pytest.fixture
    def settings(self) -> Iterator[dict[str, int]]:
        with RecordingServer() as server:
            yield {"port": server.port}


class SerialChannel:
    """What an author writes: one function that hands over a message."""

    name = "serial"
    capabilities = Capabilities(AddressKind.NONE, max_in_flight=1)

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.raises: dict[str, str] = {}

    def validate(self, settings: Any) -> None:
        """Needs none."""

    def open(self, settings: Any, content: Any) -> SerialSession:
        del settings, content
        return SerialSession(self.hand_over)

    def hand_over(self, submission: Submission, leaving: Any) -> Outcome:
        if self.raises.get(submission.message_id) == "before":
            raise OSError("no way")
        leaving()
        if self.raises.get(submission.message_id) == "after":
            raise OSError("hung up")
        self.sent.append(submission.message_id)
        return Outcome(submission.ref, OutcomeKind.ACCEPTED)


class TestSerialSession(ChannelConformance):
    @pytest.fixture
    def channel(self) -> SerialChannel:
        return SerialChannel()

    def test_what_raises_is_transient_before_it_left_and_unknown_after(self, channel: SerialChannel) -> None:
        batch, journal = sample_batch(channel, sample_content(channel), 3), WatchingJournal()
        channel.raises = {batch[0].message_id: "before", batch[1].message_id: "after"}
        outcomes = list(channel.open({}, None).submit(batch, journal))
        assert [each.kind for each in outcomes if each] == ["transient", "unknown", "accepted"]
        assert journal.answered == {1: OutcomeKind.UNKNOWN, 2: OutcomeKind.ACCEPTED}

    def test_what_is_withdrawn_was_not_begun(self, channel: SerialChannel) -> None:
        session, journal = channel.open({}, None), WatchingJournal()
        outcomes = session.submit(sample_batch(channel, sample_content(channel), 3), journal)
        assert next(outcomes).kind is OutcomeKind.ACCEPTED  # type: ignore[union-attr]
        session.withdraw()
        assert [each.kind for each in outcomes if each] == [OutcomeKind.NOT_SENT] * 2
        assert journal.left == [0]


class Faulty(SerialChannel):
    """Breaks the contract in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def open(self, settings: Any, content: Any) -> Any:
        return FaultySession(self, super().open(settings, content))


class FaultySession:
    def __init__(self, channel: Faulty, inner: SerialSession) -> None:
        self.channel, self.inner = channel, inner
        self.withdraw, self.close = inner.withdraw, inner.close

    def submit(self, batch: Any, journal: Any) -> Any:
        fault = self.channel.fault
        outcomes = list(self.inner.submit(batch, Mute(journal, fault)))
        if fault == "loses one":
            return iter(outcomes[1:])
        if fault == "answers twice":
            return iter([*outcomes, *outcomes[:1]])
        if fault == "says not_sent of what left":
            return iter([replace_kind(each) for each in outcomes])
        return iter(outcomes)


def replace_kind(outcome: Outcome | None) -> Outcome | None:
    return None if outcome is None else outcome._replace(kind=OutcomeKind.NOT_SENT)


class Mute:
    def __init__(self, journal: WatchingJournal, fault: str) -> None:
        self.journal, self.fault = journal, fault

    def on_wire(self, ref: int) -> None:
        if self.fault != "keeps no journal":
            self.journal.on_wire(ref)

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        if self.fault not in ("keeps no journal", "journals no answers"):
            self.journal.on_outcome(ref, kind)


CAUGHT = {
    "loses one": "test_every_message_has_one_outcome",
    "answers twice": "test_every_message_has_one_outcome",
    "says not_sent of what left": "test_what_is_withdrawn_has_not_left",
    "keeps no journal": "test_the_journal_knows_what_may_have_left",
    "journals no answers": "test_the_journal_knows_what_may_have_left",
}


@pytest.mark.parametrize(("fault", "test"), CAUGHT.items(), ids=CAUGHT)
def test_the_suite_sees_what_a_channel_does_wrong(fault: str, test: str) -> None:
    channel = Faulty(fault)
    content = sample_content(channel)
    with pytest.raises(AssertionError):
        getattr(ChannelConformance(), test)(channel, channel.open({}, content), content)


def test_the_suite_sees_more_on_the_wire_than_there_may_be() -> None:
    channel = Faulty("journals no answers")
    content = sample_content(channel)
    with pytest.raises(AssertionError):
        suite = ChannelConformance()
        suite.test_no_more_are_on_the_wire_than_it_says(channel, channel.open({}, content), content)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"cost_minor_per_message": -1}, "cost_minor"),
    ],
)
def test_capabilities_that_cannot_be_are_seen(about: dict[str, int], said: str) -> None:
    channel = SerialChannel()
    channel.capabilities = replace(channel.capabilities, **about)  # type: ignore[arg-type]
    session = channel.open({}, None)
    with pytest.raises(AssertionError, match=said):
        ChannelConformance().test_it_has_every_part_of_the_contract(channel, session)
