"""Processes that are killed: forked from one that has loaded the program, so that a hundred of them cost no hundred starts."""

import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

_LOADED = ("tests.chaos.scenarios", "tests.chaos.worker", "waitress")


class Running(Protocol):
    """A process that was started, as ``subprocess`` shows one."""

    pid: int

    def poll(self) -> int | None:
        """How it ended, if it did: negative by a signal."""

    def wait(self, timeout: float | None = None) -> int:
        """How it ended."""

    def send_signal(self, sig: int) -> None:
        """A signal, if it still runs."""

    def kill(self) -> None:
        """SIGKILL, if it still runs."""


class Forked:
    """A process of its own that calls a function; what it writes is appended to a log."""

    def __init__(self, log: Path, target: Callable[..., None], *args: Any, **options: Any) -> None:
        # A server of forks, not a fork of this process: threads and connections here are no business of its children.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_LOADED))
        self._process = context.Process(target=_call, args=(str(log), target, args, options), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """How it ended, if it did: negative by a signal."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended.

        Raises:
            TimeoutError: it still runs after so many seconds.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} still runs")
        return code

    def send_signal(self, sig: int) -> None:
        """A signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()


def _call(log: str, target: Callable[..., None], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(out, number)
    os.close(out)
    faulthandler.register(signal.SIGUSR1)  # tells where a process stands that does not go on
    target(*args, **options)
