"""``nexus-marketing worker``: queues, timers and sweeps in one command; any number may run."""

import signal
import threading
from types import FrameType

from nexus_marketing.db.queries.workers import say_goodbye
from nexus_marketing.plugin.sandbox.hosting import log_refused
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.listening import start as start_listening
from nexus_marketing.tasks.loops import WorkerLoop
from nexus_marketing.tasks.recycling import Recycling
from nexus_marketing.tasks.threads import FAREWELL_SECONDS, loops_of, start
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def run(runtime: Runtime, *, once: bool = False) -> bool:
    """Work until SIGTERM or SIGINT; what is on the wire is finished first.

    Args:
        runtime: with its doorbell.
        once: turn until nothing waits, then return.

    Returns:
        Whether the process is to begin anew, because a trusted plugin took longer than it may.
    """
    stop = threading.Event()
    if once:
        loop = WorkerLoop(runtime, stop.is_set)
        while loop.turn():
            runtime.telemetry.point("worker.turn")
        loop.finish()
        return False
    loop, *others = loops_of(runtime, stop, 1)
    _stop_on_signals(stop)
    stop_listening, part = runtime.doorbell.listen(), start_listening(runtime)
    log_refused(runtime.plugins)
    log.info("worker_started", worker=loop.sender.worker_id)
    started, recycling = start(others), Recycling(runtime, stop)
    recycling.watch()
    try:
        loop.run()
    finally:
        stop.set()
        for thread in started:
            thread.join(timeout=FAREWELL_SECONDS)
        part()
        stop_listening()
        for each in (loop, *others):
            say_goodbye(runtime.engines.worker, each.sender.worker_id)
        log.info("worker_stopped", worker=loop.sender.worker_id)
    return bool(recycling.because_of)


def _stop_on_signals(stop: threading.Event) -> None:
    def request(number: int, _frame: FrameType | None) -> None:
        log.info("worker_stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)
