"""Whoever says something to a broker waits for a second at most, whatever state the broker is in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any


class Publisher:
    """A thread that talks to the broker for all others of the process.

    A client can be held up for as long as its heartbeat: by a server that is frozen, or one that accepts nothing
    because its disk is full. No timeout of a connection bounds that for the caller; this does.
    """

    def __init__(self, idle: Callable[[], None], *, idle_seconds: float, patience_seconds: float = 1.0) -> None:
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._patience_seconds = patience_seconds
        self._jobs: SimpleQueue[tuple[float, Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        #: When somebody began to wait for what is being done; whoever did has given up once the patience is over.
        self._asked_at: float | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def run(self, job: Callable[[], Any]) -> Any:
        """Do it in the thread; answer or raise what it does.

        Raises:
            TimeoutError: it takes too long and may yet succeed, or an earlier one does and this was not tried.
            RuntimeError: the process is about to end and starts no threads any more.
        """
        if self._is_held_up():
            raise TimeoutError("an earlier message still waits for the broker")
        self._start()
        future: Future[Any] = Future()
        self._jobs.put((time.monotonic(), future, job))
        if wait([future], self._patience_seconds).not_done:
            future.cancel()
            raise TimeoutError(f"the broker has not answered in {self._patience_seconds:g} s")
        return future.result()

    def close(self) -> None:
        """End the thread, unless it is held up; the next message starts another."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._jobs.put(None)
            thread.join(self._patience_seconds)

    def _is_held_up(self) -> bool:
        asked_at = self._asked_at
        return asked_at is not None and time.monotonic() - asked_at >= self._patience_seconds

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="nexus-publisher", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                waiting = self._jobs.get(timeout=self._idle_seconds)
            except Empty:
                self._idle()
                continue
            if waiting is None:
                return
            self._do(*waiting)

    def _do(self, asked_at: float, future: Future[Any], job: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._asked_at = asked_at
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - the caller's, who may be gone
            future.set_exception(error)
        finally:
            self._asked_at = None
