"""Worker threads inside the web process: the embedded mode's way to need nothing else."""

import threading
from collections.abc import Callable

from nexus_marketing.db.queries.workers import say_goodbye
from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.listening import start as start_listening
from nexus_marketing.tasks.loops import WorkerLoop


def start(runtime: Runtime) -> Callable[[], None]:
    """Start ``nexus.worker_threads`` threads.

    Returns:
        A function that stops them: what is on the wire is finished, the rest stays planned.
    """
    stop, part = threading.Event(), start_listening(runtime)
    loops = [WorkerLoop(runtime, stop.is_set) for _ in range(runtime.settings.worker_threads)]
    threads = [
        threading.Thread(target=loop.run, name=f"nexus-worker-{number}", daemon=True)
        for number, loop in enumerate(loops)
    ]
    for thread in threads:
        thread.start()

    def finish() -> None:
        stop.set()
        for loop, thread in zip(loops, threads, strict=True):
            runtime.doorbell.ring(0, "stop")
            thread.join(timeout=30)
            say_goodbye(runtime.engines.worker, loop.sender.worker_id)
        part()

    return finish
