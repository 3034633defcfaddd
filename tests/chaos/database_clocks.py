"""The clock of the database itself set forward and back, as by a time service that was off for long (SECURITY.md R14)."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.clocks import kill_holder, names_of
from tests.chaos.processes import Running
from tests.chaos.schedules import be_due, begun, recurring, require_once
from tests.chaos.stage import Stage, launch, make_segment, open_stage
from tests.chaos.verdicts import (
    Plan,
    Servers,
    Verdict,
    Watch,
    pass_judgement,
    play_to_the_end,
    seconds_to_progress,
    settled,
    wait_until,
)
from tests.common.servers import PostgresCluster, Run
from tests.common.servers.packages import find_clocks
from tests.common.servers.privileges import server_account
from tests.common.servers.run import signal_supervisor
from tests.common.servers.supervisor import Spec

FAULT: Final = "database_clock"
#: Back and right again, forward and right again, and a leap second twice.
_STEPS: Final = (-7_200, 0, 7_200, 0, 1, 0, -1, 0)
_AUDIENCE: Final = 1_000
_FEW: Final = 3
#: What is due by the first step forward, and less late after it than the grace.
_DUE: Final = 3
_DUE_IN: Final = timedelta(minutes=90)
_SLACK_SECONDS: Final = 8.0
#: With --small: the hours, which are what could do harm.
_FEW_STEPS: Final = 4
_LEASE_SECONDS: Final = 2.0
_WORKERS: Final = 2


def database_clock(servers: Servers, plan: Plan) -> Verdict:
    """Two workers send, each on a host of its own as far as their journals go, while the database's clock is set.

    Everything goes by that clock. Set forward it ends leases of the living: they lose at most what is on the wire. What
    becomes due by it is sent once, also when it is set back. Each time before that one worker is killed: what it held is
    taken over when a lease is over, not when the clock is again where it was. Needs libfaketime.
    """
    library = find_clocks()
    if library is None or servers.cluster.folder is None:
        print(f"{FAULT}: not possible here (it takes a server of its own and the package libfaketime)", file=sys.stderr)
        return Verdict(f"{FAULT}:not_possible_here")
    with _under_a_clock(servers.run, servers.cluster, library) as step:
        return _play(servers.cluster, plan, step)


def _play(cluster: PostgresCluster, plan: Plan, step: Callable[[int], None]) -> Verdict:
    rounds = 1 if plan.small else max(2, plan.faults // 2)
    steps = _STEPS[:_FEW_STEPS] if plan.small else _STEPS * rounds
    audience = _AUDIENCE * rounds
    with open_stage(cluster, audience=audience, reply_delay_seconds=0.08) as stage:
        stage.settings = {**stage.settings, "nexus.chunk_size": "50", "nexus.lease_seconds": str(_LEASE_SECONDS)}
        few = make_segment(stage, _FEW)
        launch(stage)
        due = [recurring(stage, f"due {number}", few) for number in range(_DUE)]
        be_due(stage, due, datetime.now(UTC) + _DUE_IN)
        watch = Watch(stage.runtime)
        workers = [_start(stage, number) for number in range(_WORKERS)]
        names = names_of(stage, workers[0])  # set forward, the database forgets who has not been heard of for long
        wait_until(lambda: settled(stage) > 0)
        slowest, struck, taken_over = 0.0, 0, list[float | None]()
        for number, seconds in enumerate(steps, start=1):
            struck += stage.send_status() == "running"
            share = audience * number / (len(steps) + 2)
            wait_until(lambda share=share: settled(stage) >= share)  # type: ignore[misc]
            if seconds == min(_STEPS):
                taken_over.append(kill_holder(stage, workers[0], names, partial(step, seconds)))
                workers[0] = _start(stage, number + _WORKERS)
                names = names_of(stage, workers[0])
            else:
                step(seconds)
            slowest = max(slowest, seconds_to_progress(stage))
            if seconds == max(_STEPS):
                wait_until(lambda: begun(stage, due) == len(due))
        play_to_the_end(stage)
        ended = sum(worker.poll() is not None for worker in workers)
        stage.audience += _FEW * len(due)
        forward = sum(later - before > _LEASE_SECONDS for before, later in pairwise((0, *steps)))
        windows = forward * _WORKERS + len(taken_over)
        verdict = pass_judgement(
            stage,
            FAULT,
            len(steps),
            recovered=max(slowest, *(each or 0.0 for each in taken_over)),
            violations=watch.finish(),
            bound=windows * 2 * stage.connections,
        )
        verdict.require(
            struck >= len(steps) / 2, f"only {struck} of {len(steps)} steps fell into the send: no evidence"
        )
        verdict.require(not ended, f"{ended} workers did not outlive it")
        require_once(stage, verdict, due, "completed")
        allowed = _LEASE_SECONDS + _SLACK_SECONDS
        slow = [each for each in taken_over if each is None or each > allowed]
        verdict.require(not slow, f"taken over after {slow} s, the lease is {_LEASE_SECONDS} s")
        return verdict


def _start(stage: Stage, number: int) -> Running:
    """A worker whose journal no other sees."""
    return stage.start_worker(state_dir=str(stage.folder / f"state{number}"))


@contextmanager
def _under_a_clock(run: Run, cluster: PostgresCluster, library: Path) -> Iterator[Callable[[int], None]]:
    """The same server, with a clock that can be set; as it was afterwards."""
    account, folder = server_account(), run.directory / "clock"
    argv = Path(f"/proc/{cluster.server_pid()}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    folder.mkdir(mode=0o755)
    # Where the server's account can read it.
    own, clock = folder / library.name, folder / "seconds"
    shutil.copyfile(library, own)
    own.chmod(0o755)

    def step(seconds: int) -> None:
        fresh = clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.chmod(0o644)
        fresh.replace(clock)

    step(0)
    environment = {
        "LD_PRELOAD": str(own),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), *argv]
    cluster.shut_down()
    run.supervise(
        Spec(str(folder), run.owner_pid, command, stop_signal=signal.SIGINT, uid=account.uid, gid=account.gid)
    )
    try:
        wait_until(lambda: _answers(cluster))
        yield step
    finally:
        signal_supervisor(folder, signal.SIGTERM)
        wait_until(lambda: not folder.exists())
        cluster.start()


def _answers(cluster: PostgresCluster) -> bool:
    with suppress(psycopg.OperationalError), cluster.connect():
        return True
    return False
