"""The warm processes of one sandboxed plugin: one for each thread that needs it at a moment, kept for the next."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from threading import Lock
from typing import Any, Final

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.plugin.circuits import Circuit, PluginFailed
from nexus_marketing.plugin.exchanges import Http
from nexus_marketing.plugin.sandbox.children import Child, NotStarted, Order, Raised
from nexus_marketing.plugin.sandbox.wire import Garbage, Read

_EXCHANGES: Final = 32


class Pool:
    """Every method may be called from any thread.

    Args:
        order: what the processes are started with.
        circuit: of the plugin.
    """

    def __init__(self, order: Order, circuit: Circuit) -> None:
        self.circuit = circuit
        self._order = order
        self._lock = Lock()
        self._idle: list[Child] = []
        self._described: Mapping[str, Any] | None = None
        self._http: Http | None = None
        self._owner = os.getpid()
        self._is_closed = False

    def described(self) -> Mapping[str, Any]:
        """What the plugin says of itself; it stays warm after that.

        Raises:
            NotStarted: it cannot be started.
            PluginFailed: it ended or hung meanwhile.
        """
        child = Child(self._order, self._executor)
        self._described = child.described
        self._idle.append(child)
        return child.described

    def grant(self, http: Http) -> None:
        """What its processes may ask by HTTP."""
        self._http = http
        for each in self._idle:
            each.grant(http)

    @contextmanager
    def borrowed(self) -> Iterator[Child]:
        """A process for this thread, and the circuit told what became of it.

        Raises:
            PluginFailed: the circuit is open, or there is no process to be had.
        """
        self.circuit.check()
        try:
            child = self._warm()
            try:
                yield child
            finally:
                self._back(child)
        except ValidationError:
            self.circuit.succeeded()
            raise
        except PluginFailed as error:
            self.circuit.failed(reason_of(error))
            raise
        self.circuit.succeeded()

    def call(self, read: Read, *message: Any) -> Any:
        """One call of the plugin, and its answer as ``read`` takes it: what :meth:`borrowed` does, without a generator.

        Raises:
            ValidationError: the plugin's.
            PluginFailed: anything else.
        """
        circuit = self.circuit
        if circuit.failures:
            circuit.check()
        try:
            child = self._warm()
            try:
                answer = read(child.call(*message))
            except Garbage as error:
                raise child.lose(f"it answered what is none: {error}") from error
            finally:
                self._back(child)
        except ValidationError:
            self.circuit.succeeded()
            raise
        except PluginFailed as error:
            self.circuit.failed(reason_of(error))
            raise
        if circuit.failures:
            circuit.succeeded()
        return answer

    def close(self) -> None:
        """End every process."""
        self._is_closed = True
        idle = self._mine()
        while idle:
            with suppress(IndexError):
                idle.pop().kill()
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _warm(self) -> Child:
        # Each of these steps is one of the interpreter's: no lock is needed for the way that every call takes.
        try:
            child = (self._idle if self._owner == os.getpid() else self._mine()).pop()
        except IndexError:
            child = self._another()
        if child.closing:
            self._tidy(child)
        return child

    @staticmethod
    def _tidy(child: Child) -> None:
        while child.closing:
            session = child.closing.pop()
            if session in child.sessions:
                child.sessions.discard(session)
                with suppress(Raised):  # what its close did not do is nothing to the next call
                    child.call("close", session)

    def _another(self) -> Child:
        child = Child(self._order, self._executor)
        if child.described != self._described:
            child.kill()
            said = f"{self._order.module} is another plugin than at the start: restart every process of ours"
            raise NotStarted(f"{said}.")
        if self._http is not None:
            child.grant(self._http)
        return child

    def _back(self, child: Child) -> None:
        if child.is_lost:
            return
        self._idle.append(child)
        if self._is_closed:
            self.close()

    def _mine(self) -> list[Child]:
        """After a fork those of the parent process are not ours: two would talk with one."""
        if self._owner != os.getpid():
            with self._lock:
                if self._owner != os.getpid():
                    theirs, self._idle = self._idle, []
                    for each in theirs:
                        each.leave()
                    self.__dict__.pop("_threads", None)
                    self._owner = os.getpid()
        return self._idle

    def _executor(self) -> Executor:
        return self._threads

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_EXCHANGES, thread_name_prefix=f"{self._order.module}-http")


def reason_of(error: PluginFailed) -> str:
    """Why, without the plugin's own words, which may hold an address or a secret."""
    return error.message.rpartition(":")[0] if isinstance(error, Raised) else error.message
