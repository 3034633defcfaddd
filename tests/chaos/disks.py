"""A disk without room for the journal, and for the database itself: said, survived, gone on with (SECURITY.md R25)."""

import errno
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos.judge import query
from tests.chaos.stage import Stage, launch, open_stage
from tests.chaos.verdicts import (
    Plan,
    Servers,
    Verdict,
    Watch,
    merge,
    pass_judgement,
    play_to_the_end,
    settled,
    status_of,
    wait_until,
)

FILLER: Final = "filler"
_JOURNAL_DISK: Final = 256 * 1024
_SMALLER_THAN_A_JOURNAL: Final = 8 * 1024
_DATABASE_DISK: Final = 24 * 1024 * 1024
_STANDS_STILL_SECONDS: Final = 1.5
#: What a worker says whose disk is full.
_SAID: Final = (
    "No space left on device",
    "File too large",
    "database or disk is full",
    "worker_turn_failed",
    "worker_step_failed",
    "commit_waits_for_the_database",
)


def disk_full(servers: Servers, plan: Plan) -> Verdict:
    """A small disk (tmpfs) is filled to the last byte under a worker, and later emptied again.

    On PostgreSQL it holds the journal only: a worker that cannot have one begins nothing and says so. In the embedded mode it
    holds the database too: no commit has room. Either way the same process goes on when there is room, no send is to blame,
    nothing is lost or doubled, and the file is whole. Who may mount nothing plays the first of them, with a limit on the size
    of the worker's files.
    """
    total = Verdict("disk_full")
    with small_disk(_JOURNAL_DISK) as disk:
        merge(total, _without_journal(servers, plan, disk))
    with small_disk(_DATABASE_DISK) as disk:
        if disk is not None:
            merge(total, _without_commits(plan, disk))
    return total


def _without_journal(servers: Servers, plan: Plan, disk: Path | None) -> Verdict:
    audience = min(plan.audience, 600)
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=0.0, disk=disk) as stage:
        watch = Watch(stage.runtime)
        worker = stage.start_worker()
        wait_until(lambda: bool(query(stage.dsn, "SELECT 1 FROM marketing_workers")))
        make_room = fill(disk).unlink if disk is not None else _limit_files(worker.pid)
        launch(stage)
        said = wait_until(lambda: says_full(stage))
        early = len(stage.arrivals())
        was = status_of(stage)
        make_room()
        begun = time.monotonic()
        play_to_the_end(stage)
        recovered = time.monotonic() - begun
        outlived = worker.poll() is None
        verdict = pass_judgement(stage, "disk_full:journal", 1, recovered=recovered, violations=watch.finish(), bound=0)
        verdict.require(said, "it did not say that the disk is full")
        verdict.require(was in ("running", "planning"), f"the send was {was} because of the disk")
        verdict.require(early == 0, f"{early} were sent without a journal")
        verdict.require(outlived, "the worker ended")
        return verdict


def _without_commits(plan: Plan, disk: Path) -> Verdict:
    audience = min(plan.audience, 1_000)
    rounds = 1 if plan.small else 5
    with open_stage(None, audience=audience, reply_delay_seconds=0.04 * rounds, disk=disk) as stage:
        launch(stage)
        watch = Watch(stage.runtime)
        worker = stage.start_worker()
        recovered, said = 0.0, True
        for number in range(rounds):
            wait_until(lambda share=(number + 1) / (rounds + 2): settled(stage) >= share * audience)  # type: ignore[misc]
            lines = len(stage.worker_log())
            # So that the next commit needs room, whatever the log of commits had taken before.
            wait_until(lambda: query(stage.dsn, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0, 10.0)
            filler = fill(disk)
            said &= wait_until(lambda lines=lines: says_full(stage, lines), 15.0)  # type: ignore[misc]
            time.sleep(_STANDS_STILL_SECONDS)
            before = settled(stage)
            filler.unlink()
            begun = time.monotonic()
            wait_until(lambda before=before: settled(stage) > before)  # type: ignore[misc]
            recovered = max(recovered, time.monotonic() - begun)
        play_to_the_end(stage)
        outlived = worker.poll() is None
        bound = rounds * 2 * stage.connections
        verdict = pass_judgement(
            stage, "disk_full:database", rounds, recovered=recovered, violations=watch.finish(), bound=bound
        )
        verdict.require(said, "it did not say that the disk is full")
        verdict.require(outlived, "the worker ended")
        whole = query(stage.dsn, "PRAGMA integrity_check")
        verdict.require(whole == [("ok",)], f"the file is damaged: {whole[:3]}")
        return verdict


def says_full(stage: Stage, after: int = 0) -> bool:
    """Whether a worker's log tells of it, below the first lines."""
    return any(word in line for line in stage.worker_log()[after:] for word in _SAID)


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A file system of so many bytes; nothing where this user may mount none."""
    with tempfile.TemporaryDirectory(prefix="nexus-chaos-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "nexus-chaos", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _limit_files(pid: int) -> Callable[[], object]:
    """No file may grow as large as a journal; how to take that back."""
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_SMALLER_THAN_A_JOURNAL, hard))
    return partial(resource.prlimit, pid, resource.RLIMIT_FSIZE, (hard, hard))


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte, with one file; which."""
    path = disk / FILLER
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path
