"""Keeps one server alive for as long as the run that asked for it, and not a second longer.

A process of its own, in its own session, started with the path of this file and one JSON
argument (see :class:`Spec`). Only the standard library is imported, so that it runs
isolated and at once. It watches its owner through a pidfd: a run that is killed with
SIGKILL cannot clean up behind itself, but its pidfd becomes readable, and the supervisor
then stops the server by pid and deletes its directory. The server in turn is told by the
kernel (``PR_SET_PDEATHSIG``) when the supervisor dies first.

Signals: TERM ends everything, USR1 stops the server and leaves it down (a fault for the
chaos suite), USR2 starts it again on the same port and data.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
OWNER_POLL_SECONDS = 0.5
FAREWELL_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run, for whom, and what to remove afterwards.

    ``farewell`` is a command for the very end, run in ``farewell_folder``: the databases of
    this run are dropped by it on a server that is not ours and stays up.
    """

    directory: str
    owner_pid: int
    command: list[str] = field(default_factory=list)
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 10.0
    uid: int | None = None
    gid: int | None = None
    farewell: list[str] = field(default_factory=list)
    farewell_folder: str = "."


class Supervisor:
    """One server process and its directory, bound to the life of the owner."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.directory = Path(spec.directory)
        self.server: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the server under the unprivileged uid, unless it runs already."""
        spec, supervisor_pid = self.spec, os.getpid()
        if self.server is not None:
            return
        if not spec.command:
            self.report()
            return

        def die_with_supervisor() -> None:
            # After setuid, which would clear the request; hence not earlier.
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, spec.stop_signal)
            if os.getppid() != supervisor_pid:
                os._exit(1)

        with (self.directory / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=spec.uid,
                group=spec.gid,
                extra_groups=None if spec.uid is None else [],
                preexec_fn=die_with_supervisor,  # noqa: PLW1509 - this process has one thread
                start_new_session=True,
            )
        self.starts += 1
        self.report()

    def stop(self) -> None:
        """Stop the server by pid: politely, then for good with its whole process group."""
        server, self.server = self.server, None
        if server is None:
            return
        if server.poll() is None:
            os.kill(server.pid, self.spec.stop_signal)
            os.kill(server.pid, signal.SIGCONT)  # a frozen server cannot act on a signal
            try:
                server.wait(self.spec.grace_seconds)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
                server.wait()
        self.report()

    def reap(self) -> None:
        """Note a server that ended on its own; it stays down until it is asked for again."""
        if self.server is not None and self.server.poll() is not None:
            self.server = None
            self.report()

    def report(self) -> None:
        """Write who runs, for the run and for tests; replaced in one step."""
        state = {"supervisor": os.getpid(), "server": self.server and self.server.pid, "starts": self.starts}
        temporary = self.directory / "state.tmp"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.directory / "state.json")

    def say_farewell(self) -> None:
        """Run the last command, as ourselves; what it prints is lost with the folder."""
        if self.spec.farewell:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    self.spec.farewell,
                    cwd=self.spec.farewell_folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=FAREWELL_TIMEOUT_SECONDS,
                    check=False,
                )

    def remove(self) -> None:
        """Delete the server's directory, and the run's when this was its last server."""
        shutil.rmtree(self.directory, ignore_errors=True)
        run = self.directory.parent
        with contextlib.suppress(FileNotFoundError):  # the supervisor of another server was faster
            if not any(entry.is_dir() for entry in run.iterdir()):
                shutil.rmtree(run, ignore_errors=True)


def watch(supervisor: Supervisor) -> None:
    """Serve signals until TERM arrives or the owner is gone."""
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = open_owner(supervisor.spec.owner_pid)
    supervisor.start()
    while True:
        watched = [wake_read] if owner is None else [wake_read, owner]
        readable, _, _ = select.select(watched, [], [], OWNER_POLL_SECONDS if owner is None else None)
        if owner in readable or (owner is None and not is_alive(supervisor.spec.owner_pid)):
            return
        received = os.read(wake_read, 64) if wake_read in readable else b""
        if signal.SIGTERM in received:
            return
        if signal.SIGCHLD in received:
            supervisor.reap()
        if signal.SIGUSR1 in received:
            supervisor.stop()
        if signal.SIGUSR2 in received:
            supervisor.start()


def open_owner(pid: int) -> int | None:
    """A descriptor that becomes readable when the owner ends; None where pidfds are unknown."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise SystemExit(0) from None
    except (AttributeError, OSError):
        return None


def is_alive(pid: int) -> bool:
    """Whether a process with this pid exists (systems without pidfds)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(argument: str) -> None:
    """Run one server to the end of its owner and leave nothing behind."""
    supervisor = Supervisor(Spec(**json.loads(argument)))
    try:
        watch(supervisor)
    finally:
        supervisor.stop()
        supervisor.say_farewell()
        for _ in range(3):  # a dying server may still be writing
            supervisor.remove()
            if not supervisor.directory.exists():
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
