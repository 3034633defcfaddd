"""The e-mail channel over a real socket: when messages are rendered, and what becomes of those that never are."""

from collections import Counter
from collections.abc import Iterator

import pytest

from nexus_marketing.builtins.channels.email import EmailChannel, EmailSession
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import Content, Outcome, OutcomeKind, Submission
from nexus_marketing.core.templates import parse_message
from nexus_marketing.smtp.client import PoolSettings, TlsPolicy
from nexus_marketing.smtp.sink import Rule
from nexus_marketing.smtp.skeleton import Skeleton
from tests.common.servers import free_port
from tests.contract.smtp.servers import running_sink

pytestmark = pytest.mark.req("FR-P2-009")

CONNECTIONS = 2
SENDER = {"from_email": "news@shop.example"}


class Journal:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.wire: list[int] = []
        self.outcomes: dict[int, OutcomeKind] = {}

    def on_wire(self, ref: int) -> None:
        self.wire.append(ref)

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        self.outcomes[ref] = kind


def submissions(count: int, *, first: int = 0) -> list[Submission]:
    numbers = range(first, first + count)
    return [Submission(n, f"r{n}@inbox.example", f"<r{n}@shop.example>", {"to_name": ""}) for n in numbers]


@pytest.fixture
def channel_for() -> Iterator:
    opened: list[EmailChannel] = []

    def build(port: int, **changes) -> EmailSession:
        relay = PoolSettings(host="127.0.0.1", port=port, connections=CONNECTIONS, tls=TlsPolicy.NONE, **changes)
        channel = EmailChannel(relay, SystemClock())
        opened.append(channel)
        message = parse_message({"subject": "Hello", "text": "Hello"})
        return channel.open(SENDER, Content(message, SENDER, "<list.shop.example>", bulk=False))

    yield build
    for channel in opened:
        channel.close_thread()


@pytest.fixture
def finished(monkeypatch) -> list[bytes]:
    """Every message that was made whole."""
    made: list[bytes] = []
    joined = Skeleton.joined

    def watched(self, personal):
        made.append(joined(self, personal))
        return made[-1]

    monkeypatch.setattr(Skeleton, "joined", watched)
    return made


def heard(outcomes: Iterator[Outcome | None]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome is not None]


def test_several_open_batches_get_one_outcome_each(channel_for):
    journal = Journal()
    with running_sink() as sink:
        session = channel_for(sink.port)
        batches = [session.submit(submissions(200, first=first), journal) for first in (0, 200, 400)]
        answers = [heard(batch) for batch in batches]
        assert [{each.ref for each in batch} for batch in answers] == [
            set(range(first, first + 200)) for first in (0, 200, 400)
        ]
        assert {each.kind for batch in answers for each in batch} == {OutcomeKind.ACCEPTED}
        assert sink.accepted == len(journal.wire) == len(journal.outcomes) == 600


def test_messages_are_rendered_shortly_before_they_leave_and_the_rest_can_be_taken_back(channel_for, finished):
    slow = Rule(b"slow", "stall", seconds=30.0)
    with running_sink(rules=[slow]) as sink:
        session = channel_for(sink.port)
        assert {each.kind for each in heard(session.submit(submissions(10), Journal()))} == {OutcomeKind.ACCEPTED}
        finished.clear()
        stuck = [each._replace(address=f"slow{each.ref}@inbox.example") for each in submissions(500, first=10)]
        outcomes = session.submit(stuck, Journal())
        assert next(outcomes) is None
        assert 0 < len(finished) < 50
        session.withdraw()
        taken_back = [next(outcomes) for _ in range(500 - 2 * CONNECTIONS)]
        assert Counter(each and each.kind for each in taken_back) == {OutcomeKind.NOT_SENT: len(taken_back)}


def test_without_a_relay_all_are_given_up_together(channel_for, finished):
    session = channel_for(free_port(), give_up_seconds=0.3)
    outcomes = heard(session.submit(submissions(300), Journal()))
    assert Counter(each.kind for each in outcomes) == {OutcomeKind.NOT_SENT: 300}
    assert len(finished) == 300
