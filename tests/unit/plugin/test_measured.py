"""A trusted plugin that is slow, wordy or broken is measured, counted and left alone for a while."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexus_marketing.core.contracts import Outcome, OutcomeKind, Submission
from nexus_marketing.plugin.circuits import FAILURES, Circuit
from nexus_marketing.plugin.measured import MAX_WORDS, MeasuredSession, Overruns
from nexus_marketing.plugin.testing import WatchingJournal
from tests.common.databases import NOW

pytestmark = pytest.mark.req("SR-004", "S17")


class Slow:
    """A session that takes so long for each outcome."""

    def __init__(self, tick: Any, *details: str) -> None:
        self.tick, self.details = tick, details

    def submit(self, batch: Any, journal: Any) -> Iterator[Outcome | None]:
        for each, detail in zip(batch, self.details, strict=False):
            self.tick()
            yield Outcome(each.ref, OutcomeKind.ACCEPTED, "", detail)

    def withdraw(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


def test_a_trusted_plugin_is_measured_and_left_alone_when_it_is_slow(tmp_path: Path) -> None:
    now = [0.0]

    def tick() -> None:
        now[0] += 11.0

    circuit = Circuit("nexus-slow", lambda: now[0], lambda: NOW, tmp_path)
    session = MeasuredSession(Slow(tick, *"abcd"), circuit, 10.0, now_seconds=lambda: now[0])
    batch = [Submission(ref, "", f"<r{ref}>", {}) for ref in range(4)]
    assert [each.kind for each in session.submit(batch[:FAILURES], WatchingJournal()) if each] == ["accepted"] * 3
    outcomes = [each for each in session.submit(batch, WatchingJournal()) if each]
    assert {each.kind for each in outcomes} == {OutcomeKind.NOT_SENT}
    assert "took 11.0 s for one answer, more than 10 s" in outcomes[0].detail
    assert outcomes[0].retry_after_seconds == 30.0
    now[0] += 31
    quick = MeasuredSession(Slow(lambda: None, "x" * 100_000), circuit, 10.0, now_seconds=lambda: now[0])
    (outcome,) = [each for each in quick.submit(batch[:1], WatchingJournal()) if each]
    assert len(outcome.detail) == MAX_WORDS
    assert list(tmp_path.iterdir()) == []


def test_a_batch_begins_when_it_is_handed_over_and_what_raises_then_is_told_with_its_outcomes() -> None:
    circuit, begun = Circuit("nexus-eager", lambda: 0.0, lambda: NOW), []

    class Eager(Slow):
        def submit(self, batch: Any, journal: Any) -> Iterator[Outcome | None]:
            begun.append(batch)
            if len(begun) > 1:
                raise OSError("no port is left")
            return super().submit(batch, journal)

    session = MeasuredSession(Eager(lambda: None, "a"), circuit, 10.0)
    batch = [Submission(0, "", "<r0>", {})]
    outcomes = session.submit(batch, WatchingJournal())
    assert begun == [batch]
    assert len(list(outcomes)) == 1
    later = session.submit(batch, WatchingJournal())
    with pytest.raises(OSError, match="no port"):
        list(later)
    assert circuit.failures == 1


def test_a_call_that_does_not_come_back_is_seen_from_another_thread() -> None:
    now, overruns = [0.0], Overruns()
    seen: list[str] = []

    def tick() -> None:
        now[0] += 29.0
        seen.append(overruns.overdue(3.0))
        now[0] += 2.0
        seen.append(overruns.overdue(3.0))

    circuit = Circuit("nexus-lost", lambda: now[0], lambda: NOW)
    session = MeasuredSession(Slow(tick, "a"), circuit, 10.0, overruns, lambda: now[0])
    assert list(session.submit([Submission(0, "", "<r0>", {})], WatchingJournal()))
    assert seen == ["", "nexus-lost"]
    assert (overruns.overdue(0.0), overruns.plugin) == ("", "nexus-lost")
