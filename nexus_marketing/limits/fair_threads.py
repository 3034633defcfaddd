"""Threads that no single key has all of, for work that waits for somebody else."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

Work = Callable[[], None]


class FairThreads:
    """What waits is begun in turns of its keys, and one thread is left to the others, however long those of a key take.

    Args:
        count: of threads, at least two.
        name: what theirs begin with.
    """

    def __init__(self, count: int, name: str) -> None:
        self._most = count - 1
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._lock = threading.Lock()
        #: Whose turn it is next stands first.
        self._waiting: OrderedDict[Hashable, deque[tuple[Future[None], Work]]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()

    def submit(self, key: Hashable, work: Work) -> Future[None]:
        """Have it done; the answer is done when it is."""
        done: Future[None] = Future()
        with self._lock:
            self._waiting.setdefault(key, deque()).append((done, work))
        self._threads.submit(self._turn)
        return done

    def close(self) -> None:
        """Wait for everything that was submitted."""
        self._threads.shutdown()

    def _turn(self) -> None:
        """Work as long as there is some that may be begun: what is left then is begun by who ends another of its key."""
        while (found := self._next()) is not None:
            key, done, work = found
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is looked at
                done.set_exception(error)
            else:
                done.set_result(None)
            with self._lock:
                self._running[key] -= 1
                if not self._running[key]:
                    del self._running[key]

    def _next(self) -> tuple[Hashable, Future[None], Work] | None:
        with self._lock:
            for key, waiting in self._waiting.items():
                if self._running[key] < self._most:
                    done, work = waiting.popleft()
                    self._waiting.move_to_end(key)
                    if not waiting:
                        del self._waiting[key]
                    self._running[key] += 1
                    return key, done, work
            return None
