"""``nexus-marketing worker``: queues, timers and sweeps in one command; any number may run."""

import signal
import threading
from types import FrameType
from typing import Any

from dramatiq import Worker

from nexus_marketing.db.queries.workers import say_goodbye
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.loops import WorkerLoop
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


def run(runtime: Runtime, *, once: bool = False, broker: Any = None) -> None:
    """Work until SIGTERM or SIGINT; what is on the wire is finished first.

    Args:
        runtime: with its doorbell.
        once: one turn over all waiting work, then return.
        broker: Dramatiq's broker, whose messages ring the doorbell; ``None`` where there is no Redis.
    """
    stop = threading.Event()
    loop = WorkerLoop(runtime, stop.is_set)
    if once:
        while loop.turn():
            runtime.telemetry.point("worker.turn")
        loop.finish()
        return
    _stop_on_signals(stop)
    listener = None if broker is None else Worker(broker, worker_threads=1, queues={"nexus"})
    if listener is not None:
        listener.start()
    log.info("worker_started", worker=loop.sender.worker_id)
    try:
        loop.run()
    finally:
        if listener is not None:
            listener.stop(timeout=5_000)
        say_goodbye(runtime.engines.worker, loop.sender.worker_id)
        log.info("worker_stopped", worker=loop.sender.worker_id)


def _stop_on_signals(stop: threading.Event) -> None:
    def request(number: int, _frame: FrameType | None) -> None:
        log.info("worker_stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)
