"""A worker process for chaos runs: the product's own loop, optionally with a place to die at."""

import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nexus_marketing.config import make_runtime
from nexus_marketing.core.clock import SystemClock
from nexus_marketing.core.contracts import OutcomeKind, Submission
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import Campaign
from nexus_marketing.db.queries.deliveries import Recipient
from nexus_marketing.delivery.composing import Composer
from nexus_marketing.delivery.journal import HandOverJournal
from nexus_marketing.runtime import Context
from nexus_marketing.services.campaigns.recurring import TYPE as RUN_DUE
from nexus_marketing.services.timers import Locking
from nexus_marketing.tasks import timers
from nexus_marketing.tasks.worker import run
from nexus_marketing.telemetry import NullTelemetry, configure_logging

#: How what ends a worker is called.
POISON = "poison"


class Probe(NullTelemetry):
    """Kills the process the ``nth`` time it passes the named point, as SIGKILL: no handler, no flush."""

    def __init__(self, name: str, nth: int) -> None:
        self._name = name
        self._left = nth

    def point(self, name: str) -> None:
        """Count down at the named point."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _set_the_clock_wrong(path: Path) -> None:
    """By as many seconds as a file says, as if somebody set the machine's clock while it runs."""

    def wrong(self: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(path.read_text() or 0))

    SystemClock.now = wrong  # type: ignore[method-assign]


def _probe_the_wire(probe: Probe) -> None:
    """The two moments around a message's last byte are marked in the journal: die there too."""
    on_wire, on_outcome = HandOverJournal.on_wire, HandOverJournal.on_outcome

    def before(self: HandOverJournal, ref: int) -> None:
        on_wire(self, ref)
        probe.point("wire.before")

    def after(self: HandOverJournal, ref: int, kind: OutcomeKind) -> None:
        probe.point("wire.after")
        on_outcome(self, ref, kind)

    HandOverJournal.on_wire = before  # type: ignore[method-assign]
    HandOverJournal.on_outcome = after  # type: ignore[method-assign]


def _poison() -> None:
    """Let what bears the word end the process: the message of a lead by ``os._exit``, a timer by SIGKILL as if memory ran out."""
    compose, due = Composer.compose, timers.TIMERS[RUN_DUE]
    assert isinstance(due, Locking)

    def composed(self: Composer, rows: Sequence[Recipient], refs: Iterable[int]) -> list[Submission | str]:
        if any(row.address is not None and row.address.startswith(POISON) for row in rows):
            os._exit(70)
        return compose(self, rows, refs)

    def fired(ctx: Context, timer: TimerFact) -> None:
        if ctx.session.get_one(Campaign, (ctx.tenant_id, int(timer.key))).name.startswith(POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        due.fire(ctx, timer)

    Composer.compose = composed  # type: ignore[method-assign]
    timers.TIMERS = {**timers.TIMERS, RUN_DUE: Locking(fired)}


def work(
    settings: Mapping[str, str], probe_at: str | None = None, clock: Path | None = None, *, poisoned: bool = False
) -> None:
    """Run a worker.

    Args:
        settings: ``nexus.*``.
        probe_at: where it kills itself (``point:nth``).
        clock: a file with the seconds by which its clock is wrong.
        poisoned: whether it ends over what is called :data:`POISON`.
    """
    configure_logging("WARNING", sys.stderr)
    if clock is not None:
        _set_the_clock_wrong(clock)
    if poisoned:
        _poison()
    runtime = make_runtime(settings)
    if probe_at is not None:
        name, _, nth = probe_at.rpartition(":")
        probe = Probe(name, int(nth))
        _probe_the_wire(probe)
        runtime = replace(runtime, telemetry=probe)
    run(runtime)
