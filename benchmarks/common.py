"""What a benchmark answers, and how ours and the reference are timed against each other.

A module of this package exposes ``BENCHMARKS: dict[str, Callable[[Options], Result]]``. A benchmark
runs the production code path and asserts that the work was done.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.common.servers import PostgresCluster, RedisServer, Run, start_postgres, start_redis

#: One run of one side: either timed from outside, or it answers the seconds that count.
Side = Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark is given: its size, a folder of its own, and servers that write durably."""

    small: bool
    run: Run
    folder: Path
    seed: int = 1

    @property
    def cluster(self) -> PostgresCluster:
        """The PostgreSQL cluster, started at first use."""
        return start_postgres(self.run)

    @property
    def redis(self) -> RedisServer:
        """The Redis server, started at first use."""
        return start_redis(self.run)

    def size(self, full: int, small: int) -> int:
        """How many rows, leads or calls: the full number, or the one for ``--small``."""
        return small if self.small else full

    def rng(self) -> random.Random:
        """Randomness that is the same in every run with one seed."""
        return random.Random(self.seed)


@dataclass(frozen=True, slots=True)
class Paired:
    """Medians of interleaved runs, in seconds."""

    ours_seconds: float
    reference_seconds: float
    repetitions: int
    ours_runs: tuple[float, ...] = ()
    reference_runs: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """Ours as a multiple of the reference: below 1 we are faster."""
        return self.ours_seconds / self.reference_seconds

    def result(self, name: str, target: float, *, per: int = 1, unit: str = "s", notes: str = "") -> "Result":
        """The result for the report; times are divided by ``per`` items and given in ``unit``."""
        scale = UNITS[unit] / per
        return Result(
            name, self.ours_seconds * scale, self.reference_seconds * scale, unit, target, self.repetitions, notes
        )


UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. ``ours`` and ``reference`` are times: lower is better, and so is ``ratio``."""

    name: str
    ours: float
    reference: float
    unit: str
    target: float
    repetitions: int
    notes: str = ""
    #: Sentences about bounds other than the ratio that do not hold, for example "180 ms, more than 100 ms (PR-001)".
    missed: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> float:
        """Ours as a multiple of the reference."""
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        """Whether the target and every other bound hold."""
        return self.ratio <= self.target and not self.missed

    def row(self) -> dict[str, str | float | int | bool]:
        """The object of the JSON report."""
        return {
            "name": self.name,
            "ours": self.ours,
            "reference": self.reference,
            "unit": self.unit,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
            "repetitions": self.repetitions,
            "notes": "; ".join([*self.missed, *([self.notes] if self.notes else [])]),
        }


def paired(ours: Side, reference: Side, repetitions: int = 7, *, warm_up: int = 1) -> Paired:
    """Run both sides in turn and take the medians.

    In turn, because a machine that is shared drifts by a factor of two within the hour, and in
    changing order, because the second of two runs finds warm caches.
    """
    for _ in range(warm_up):
        ours()
        reference()
    times: dict[str, list[float]] = {"ours": [], "reference": []}
    for number in range(repetitions):
        pair = [("ours", ours), ("reference", reference)]
        for name, side in pair if number % 2 == 0 else reversed(pair):
            times[name].append(timed(side))
    return Paired(
        statistics.median(times["ours"]),
        statistics.median(times["reference"]),
        repetitions,
        tuple(times["ours"]),
        tuple(times["reference"]),
    )


def timed(side: Side) -> float:
    """The seconds one run took, garbage of earlier runs not included."""
    gc.collect()
    # A process that serves holds no million rows of a benchmark's own data: a collection must not walk through them.
    gc.freeze()
    try:
        begun = time.perf_counter()
        answered = side()
        taken = time.perf_counter() - begun
    finally:
        gc.unfreeze()
    return taken if answered is None else answered
