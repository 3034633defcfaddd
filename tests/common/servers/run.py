"""One run of tests, benchmarks or chaos and the servers it started, shared by its processes.

The servers belong to one *owner* process: the pytest controller, or whoever opened the run.
Any process of the run may be the first to need a server; a file lock lets exactly one start
it and the others read its address. No server is started that nobody asks for.
"""

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.common.servers.privileges import ServerUnavailable, server_account, server_base
from tests.common.servers.supervisor import Spec, is_alive

#: Below those that Linux (32768) and others (49152) give to connections.
_PORTS: Final = range(15_000, 32_000)

SUPERVISOR = Path(__file__).with_name("supervisor.py")
PROJECT = Path(__file__).parents[3]
START_TIMEOUT_SECONDS = 20.0
CLOSE_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Run:
    """The address of a run: enough for another process to join it.

    ``durable`` servers write like production ones (fsync on): chaos and benchmarks need that,
    ordinary tests do not.
    """

    directory: Path
    owner_pid: int
    token: str
    durable: bool = False

    @classmethod
    def open(cls, *, durable: bool = False) -> Self:
        """A new run owned by this process. Nothing is created until a server is asked for."""
        token = f"{os.getpid()}_{secrets.token_hex(4)}"
        return cls(server_base(server_account()) / f"nexus-test-{token}", os.getpid(), token, durable)

    @classmethod
    def join(cls, address: str) -> Self:
        """The run another process opened, from its :meth:`address`."""
        values = json.loads(address)
        return cls(Path(values.pop("directory")), **values)

    def address(self) -> str:
        """This run as a text for :meth:`join`."""
        return json.dumps(
            {
                "directory": str(self.directory),
                "owner_pid": self.owner_pid,
                "token": self.token,
                "durable": self.durable,
            }
        )

    @contextlib.contextmanager
    def started_once(self, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Lock a server's name; yield its folder and its saved facts, empty when it has not been started.

        The facts are saved again on leaving without an error.
        """
        self.directory.mkdir(mode=0o711, exist_ok=True)
        self.directory.chmod(0o711)  # whatever the umask: the servers' account passes through
        with (self.directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            saved = self.directory / f"{name}.json"
            facts: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
            yield self.directory / name, facts
            saved.touch(mode=0o600)
            saved.write_text(json.dumps(facts))

    def supervise(self, spec: Spec) -> None:
        """Start a supervisor process that follows the spec until the owner is gone."""
        argv = [sys.executable, "-I", "-S", str(SUPERVISOR), json.dumps(asdict(spec))]
        # Not Popen: the supervisor outlives this process, and an unreaped Popen warns about that.
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1, 2)]
        os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        os.close(null)

    def guard(self, folder: Path, farewell: Sequence[str] = ()) -> None:
        """Make a folder that disappears with the run; ``farewell`` is then run in the project's folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self.supervise(Spec(str(folder), self.owner_pid, farewell=list(farewell), farewell_folder=str(PROJECT)))
        wait_until(lambda: bool(server_state(folder)), "the supervisor did not start")

    def close(self) -> None:
        """Stop every server of the run and wait until their folders are gone."""
        if not self.directory.exists():
            return
        supervisors = [json.loads(path.read_text())["supervisor"] for path in self.directory.glob("*/state.json")]
        for pid in supervisors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in supervisors:
            wait_for_exit(pid, CLOSE_TIMEOUT_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def server_state(folder: Path) -> dict[str, Any]:
    """What the supervisor last reported: ``supervisor`` and ``server`` pids and ``starts``; empty before that."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return {}
    return state


def signal_supervisor(folder: Path, number: signal.Signals) -> None:
    """Ask the supervisor of this folder for something."""
    os.kill(server_state(folder)["supervisor"], number)


def wait_until(condition: Callable[[], bool], complaint: str, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
    """Wait for something another process does; an error after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"{complaint} within {timeout_seconds:g} s")
        time.sleep(0.01)


def wait_for_exit(pid: int, timeout_seconds: float) -> None:
    """Wait until a process, ours or not, has ended."""
    with contextlib.suppress(ChildProcessError):
        deadline = time.monotonic() + timeout_seconds
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"the supervisor {pid} did not end within {timeout_seconds} s")
            time.sleep(0.01)
        return
    if not hasattr(os, "pidfd_open"):
        while is_alive(pid):
            time.sleep(0.05)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([descriptor], [], [], timeout_seconds)[0]:
            raise ServerUnavailable(f"the supervisor {pid} did not end within {timeout_seconds} s")
    finally:
        os.close(descriptor)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment, and that no connection is given for its own end.

    Of those that systems give to connections a stopped server's may be taken before it comes back: by anybody, and by a client
    that tries to reach it and finds itself.
    """
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
