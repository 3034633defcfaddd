"""``nexus-marketing worker``: queues, timers and sweeps in one command; any number may run."""

import signal
import threading
from types import FrameType

from nexus_marketing.db.queries.workers import say_goodbye
from nexus_marketing.plugin.sandbox.hosting import log_refused
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.listening import start as start_listening
from nexus_marketing.tasks.loops import WorkerLoop
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def run(runtime: Runtime, *, once: bool = False) -> None:
    """Work until SIGTERM or SIGINT; what is on the wire is finished first.

    Args:
        runtime: with its doorbell.
        once: turn until nothing waits, then return.
    """
    stop = threading.Event()
    loop = WorkerLoop(runtime, stop.is_set)
    if once:
        while loop.turn():
            runtime.telemetry.point("worker.turn")
        loop.finish()
        return
    _stop_on_signals(stop)
    stop_listening, part = runtime.doorbell.listen(), start_listening(runtime)
    log_refused(runtime.plugins)
    log.info("worker_started", worker=loop.sender.worker_id)
    try:
        loop.run()
    finally:
        part()
        stop_listening()
        say_goodbye(runtime.engines.worker, loop.sender.worker_id)
        log.info("worker_stopped", worker=loop.sender.worker_id)


def _stop_on_signals(stop: threading.Event) -> None:
    def request(number: int, _frame: FrameType | None) -> None:
        log.info("worker_stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)
