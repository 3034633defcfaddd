"""What a sandboxed channel can take back, and what becomes of a message over which it falls meanwhile (FR-P3-004, S17)."""

from collections.abc import Iterator
from typing import Any

import pytest

from nexus_marketing.core.contracts import (
    CompensatingChannel,
    HearingChannel,
    OutcomeKind,
    RenderingChannel,
    Retraction,
)
from nexus_marketing.plugin.circuits import FAILURES
from nexus_marketing.plugin.testing import ChannelConformance
from tests.common.sandboxes import needs_namespaces, sandboxes
from tests.contract.sandbox.test_malice import CHANNEL

pytestmark = [pytest.mark.req("FR-P3-004", "SR-004", "S17"), needs_namespaces]

COMPENSATING = CHANNEL.replace(
    "    def open(",
    """    def compensate(self, settings, retraction):
        names = dict(globals(), retraction=retraction)
        exec(settings.get("undo", ""), names)
        return names.get("answer") or Outcome(0, OutcomeKind.ACCEPTED, "", retraction.code)
    def open(""",
)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all: each start costs a process."""
    with sandboxes(tmp_path_factory.mktemp("strange")) as start:
        yield start(COMPENSATING, **{"nexus.plugins.call_seconds": 0.5}).channels["strange"]


@pytest.fixture
def channel(started: Any) -> Any:
    started._pool.circuit.succeeded()
    return started


class TestSuite(ChannelConformance):
    """The suite that every channel is held against."""

    count = 5


def taken_back(channel: Any, undo: str = "") -> Any:
    return channel.compensate({"undo": undo}, Retraction("<r1.s1.t1@shop.example>", "", "p-7"))


def test_it_can_do_what_its_plugin_can_and_no_more(channel: Any) -> None:
    assert isinstance(channel, CompensatingChannel)
    assert not isinstance(channel, RenderingChannel | HearingChannel)
    assert taken_back(channel)[1:4] == (OutcomeKind.ACCEPTED, "", "p-7")


@pytest.mark.parametrize(
    ("undo", "kind", "said"),
    [
        ("while True: pass", OutcomeKind.UNKNOWN, "did not answer within 0.5 s"),
        ("os._exit(4)", OutcomeKind.UNKNOWN, "ended by itself with status 4"),
        ("raise KeyError('person@example.org')", OutcomeKind.UNKNOWN, "it raised KeyError"),
        ("answer = 'gone'", OutcomeKind.UNKNOWN, "answered what is none"),
        ("raise ValidationError.at('token', 'wrong', 'No token.')", OutcomeKind.PERMANENT_SENDER, "No token."),
        (
            "answer = Outcome(0, OutcomeKind.PERMANENT_RECIPIENT, '', 'x' * 9000)",
            OutcomeKind.PERMANENT_RECIPIENT,
            "xxx",
        ),
    ],
)
def test_what_it_falls_over_is_said_and_the_next_is_taken_back(
    channel: Any, undo: str, kind: OutcomeKind, said: str
) -> None:
    outcome = taken_back(channel, undo)
    assert (outcome.kind, said in outcome.detail, "person@" in outcome.detail) == (kind, True, False)
    assert len(outcome.detail) <= 4_000
    assert taken_back(channel).kind is OutcomeKind.ACCEPTED


def test_one_that_fails_again_and_again_is_left_alone_and_asked_later(channel: Any) -> None:
    for _ in range(FAILURES):
        assert taken_back(channel, "1 / 0").kind is OutcomeKind.UNKNOWN
    outcome = taken_back(channel)
    assert (outcome.kind, "left alone after 3 failures" in outcome.detail) == (OutcomeKind.TRANSIENT, True)
    assert (outcome.retry_after_seconds or 0) > 20
