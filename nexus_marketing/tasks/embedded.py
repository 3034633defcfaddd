"""Worker threads inside the web process: the embedded mode's way to need nothing else."""

import threading
from collections.abc import Callable

from nexus_marketing.db.queries.workers import say_goodbye
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks import threads
from nexus_marketing.tasks.listening import start as start_listening


def start(runtime: Runtime) -> Callable[[], None]:
    """Start ``nexus.worker_threads`` threads, and one for each sandboxed plugin that sends.

    Returns:
        A function that stops them: what is on the wire is finished, the rest stays planned.
    """
    stop, part = threading.Event(), start_listening(runtime)
    loops = threads.loops_of(runtime, stop, runtime.settings.worker_threads)
    started = threads.start(loops)

    def finish() -> None:
        stop.set()
        for loop, thread in zip(loops, started, strict=True):
            runtime.doorbell.ring(0, "stop")
            thread.join(timeout=threads.FAREWELL_SECONDS)
            say_goodbye(runtime.engines.worker, loop.sender.worker_id)
        part()

    return finish
