"""A worker that may open no more files, or take no more memory: it says so, and nothing is lost or doubled (R25)."""

import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.chaos.outages import terminate_backends
from tests.chaos.stage import Stage, launch, open_stage
from tests.chaos.verdicts import (
    Plan,
    Servers,
    Verdict,
    Watch,
    pass_judgement,
    play_to_the_end,
    seconds_to_progress,
    settled,
    status_of,
    wait_until,
)

_FILES: Final = 64
_CGROUP_BYTES: Final = 2 * 1024 * 1024
_CGROUPS: Final = next(
    (each for each in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if each.exists()), Path("/none")
)
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CONNECTIONS: Final = 4
#: What the workers of a round may send before they stand still, the one with many connections most of it.
_SENT_IN_A_ROUND: Final = 1_500
#: With --small so many are left at least for the healthy worker.
_FEW: Final = 100
_STANDS_STILL_SECONDS: Final = 2.0
#: What a worker's log holds when it stands still.
_SAID: Final = (
    "Too many open files",
    "MemoryError",
    "worker_turn_failed",
    "worker_step_failed",
    "send_failed",
    "Error",
)


def out_of_files(servers: Servers, plan: Plan) -> Verdict:
    """Limits drawn around working workers; afterwards a healthy one is started, and everybody gets their message.

    One may open no further file, one take no further memory, one has a memory cgroup of two megabytes, just when the database
    parts from them. One, the last as it is the fastest, has 64 files and wants twice as many connections. A worker may
    go on with what it has, wait, or end; if it stands still it says why.
    """
    rounds = 1 if plan.small else max(2, plan.faults // 3)
    audience = rounds * _SENT_IN_A_ROUND + (_FEW if plan.small else plan.audience)
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=0.1) as stage:
        launch(stage)
        watch = Watch(stage.runtime)
        injected, silent = 0, []
        for _ in range(rounds):
            for limit in (_no_file, _no_memory, _small_cgroup, _few_files):
                silent += [] if _strike(servers, stage, limit) else [limit.__name__]
                injected += 1
        was_open = status_of(stage)
        begun = time.monotonic()
        stage.start_worker(smtp__connections=str(4 * _CONNECTIONS))
        seconds_to_progress(stage)
        recovered = time.monotonic() - begun
        play_to_the_end(stage)
        # Whoever cannot reach the database any more leaves what its two open windows hold; whoever drains leaves nothing.
        bound = 3 * rounds * 2 * _CONNECTIONS
        verdict = pass_judgement(
            stage, "out_of_files", injected, recovered=recovered, violations=watch.finish(), bound=bound
        )
        verdict.require(not silent, f"stood still without saying why: {silent}")
        verdict.require(was_open == "running", f"the send was {was_open} when the healthy worker came")
        return verdict


def _strike(servers: Servers, stage: Stage, limit: Callable[[int], None]) -> bool:
    """Whether a worker under this limit goes on, or says why it does not; it is asked to end afterwards."""
    wide = limit is _few_files
    victim = stage.start_worker(smtp__connections=str(2 * _FILES if wide else _CONNECTIONS))
    before = settled(stage)
    if wide:
        limit(victim.pid)
    wait_until(lambda: settled(stage) > before)
    before, said = settled(stage), len(stage.worker_log())
    if not wide:
        limit(victim.pid)
        terminate_backends(servers, stage)
    wait_until(lambda: bool(_reasons(stage.worker_log()[said:])), _STANDS_STILL_SECONDS)
    ended_by_kernel = victim.poll() == -signal.SIGKILL
    fine = ended_by_kernel or settled(stage) > before or bool(_reasons(stage.worker_log()[said:]))
    victim.send_signal(signal.SIGTERM)
    if not wait_until(lambda: victim.poll() is not None, 10.0):
        victim.kill()
    victim.wait()
    _leave_cgroup(victim.pid)
    return fine


def _few_files(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_FILES, _FILES))


def _no_file(pid: int) -> None:
    count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count - 8, count - 8))


def _no_memory(pid: int) -> None:
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * _PAGE
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))


def _small_cgroup(pid: int) -> None:
    """From now on so little memory of its own that the kernel may end it; where cgroups cannot be made, as without one."""
    folder = _CGROUPS / f"nexus-chaos-{pid}"
    try:
        folder.mkdir()
        limit = folder / ("memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes")
        limit.write_text(str(_CGROUP_BYTES))
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError:
        _leave_cgroup(pid)
        _no_memory(pid)


def _leave_cgroup(pid: int) -> None:
    with suppress(OSError):
        (_CGROUPS / f"nexus-chaos-{pid}").rmdir()


def _reasons(lines: list[str]) -> list[str]:
    return [line for line in lines if any(word in line for word in _SAID)]
