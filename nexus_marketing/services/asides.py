"""Timers whose work is a conversation with others: a few threads of their own fire them, so that somebody who takes his
time keeps neither other timers nor messages waiting, nor what other tenants wait for.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.retry import is_transient
from nexus_marketing.limits.fair_threads import FairThreads
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.timers import let_go, put_off
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Of one tenant, those that may wait for their turn.
_MOST_PER_TENANT: Final = 50
#: A turn of the worker waits so long for what is under way: most is over by then.
_LOOK_SECONDS: Final = 0.25
_CROWDED: Final = timedelta(seconds=5)


@dataclass(slots=True)
class Asides:
    """Timers on their way, of one worker thread.

    Args:
        runtime: of the process.
        fire: does one: it works in transactions of its own, and removes the timer or gives it back.
        name: of the threads, and of what is logged.
        lanes: how many are fired at a time, at least two: one is left to other tenants.
    """

    runtime: Runtime
    fire: Callable[[Runtime, TimerFact], None]
    name: str
    lanes: int = 4
    _threads: FairThreads | None = field(default=None, init=False)
    _under_way: set[Future[None]] = field(default_factory=set, init=False)
    _waiting: Counter[int] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def take(self, timer: TimerFact, until: float) -> None:
        """Have a claimed timer fired by a thread that is free before ``until`` (of the monotonic clock), or give it back."""
        if self._waiting[timer.tenant_id] >= _MOST_PER_TENANT:
            put_off(
                self.runtime, timer, self.runtime.clock.now() + _CROWDED
            )  # others of the tenant have their turn first
            return
        if self._threads is None:
            self._threads = FairThreads(self.lanes, self.name)
        self._count(timer.tenant_id, 1)
        self._under_way.add(self._threads.submit(timer.tenant_id, partial(self._do, timer, until)))

    def look(self) -> int:
        """Wait a moment for what is under way; answers how many are over."""
        if not self._under_way:
            return 0
        done, self._under_way = wait(self._under_way, _LOOK_SECONDS)
        return len(done)

    def close(self) -> None:
        """Wait for what was begun."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        self._under_way.clear()

    def _count(self, tenant_id: int, by: int) -> None:
        with self._lock:
            self._waiting[tenant_id] += by
            if not self._waiting[tenant_id]:
                del self._waiting[tenant_id]

    def _do(self, timer: TimerFact, until: float) -> None:
        try:
            if time.monotonic() > until:
                let_go(self.runtime, [timer])
            else:
                self.fire(self.runtime, timer)
        except DBAPIError as error:  # the lease runs out, and somebody takes it up
            log.warning(
                "aside_left", what=self.name, tenant_id=timer.tenant_id, key=timer.key, transient=is_transient(error)
            )
        except Exception:  # isolation boundary: a thread that dies would take the others' turn with it
            log.exception("aside_failed", what=self.name, tenant_id=timer.tenant_id, key=timer.key)
        finally:
            self._count(timer.tenant_id, -1)
            self.runtime.doorbell.ring(timer.tenant_id, "timers")
