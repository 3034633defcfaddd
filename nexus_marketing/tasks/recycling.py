"""A worker begins anew after a trusted plugin took longer than it may (SR-004): what it left behind goes with the process.

In-process Python cannot be stopped. A call that came back late is counted, and the worker ends in good order and begins
anew. One that does not come back at all holds its thread: the process is replaced under it, as if it had been killed, and
what it had on the wire is recovered from its journal.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Final, NoReturn

from nexus_marketing.runtime import Runtime
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Of the time that a call may take: so long nobody comes back who comes back at all.
_LOST_FACTOR: Final = 3.0
_LOOK_SECONDS: Final = 0.5


@dataclass(slots=True)
class Recycling:
    """Watches the plugins of a worker process.

    Args:
        runtime: of the process.
        stop: ends its loops.
    """

    runtime: Runtime
    stop: threading.Event
    #: The plugin for whose sake the process begins anew, once its loops are through; empty: for none.
    because_of: str = field(default="", init=False)
    _born: float = field(default_factory=time.monotonic, init=False)

    def watch(self) -> None:
        """Look now and then, from a thread of its own, as long as the process works."""
        threading.Thread(target=self._watch, name="nexus-recycling", daemon=True).start()

    def _watch(self) -> None:
        while not self.stop.wait(_LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """End the loops, or the process, where a plugin took too long; no sooner than a worker has done some work."""
        if time.monotonic() - self._born < self.runtime.settings.plugins.recycle_seconds:
            return
        overruns = self.runtime.plugins.host.overruns
        lost = overruns.overdue(_LOST_FACTOR)
        if lost:
            log.error("worker_replaced", plugin=lost, reason="a call did not come back")
            begin_anew()
        if overruns.plugin:
            self.because_of = overruns.plugin
            log.warning("worker_recycling", plugin=self.because_of, reason="a call took too long")
            self.stop.set()
            self.runtime.doorbell.ring(0, "stop")


def begin_anew() -> NoReturn:
    """Put the same command in the place of this process: same number, same environment, nothing else of it is left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line
