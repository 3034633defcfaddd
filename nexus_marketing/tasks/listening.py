"""The thread of a worker process that keeps lines open to providers which report over them."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from nexus_marketing.delivery.listening import Listening
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.hooks import keep_events
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: So late at most is an account heard that somebody adds or changes.
_EVERY_SECONDS: Final = 5.0


def listening(runtime: Runtime) -> Listening:
    """What keeps events as calls of providers are kept."""
    return Listening(runtime, partial(keep_events, runtime))


def start(runtime: Runtime) -> Callable[[], None]:
    """Begin to listen, where any channel does; answers a function that parts from everybody."""
    lines = listening(runtime)
    if not lines.is_needed:
        return lambda: None
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(lines, stop), name="nexus-listening", daemon=True)
    thread.start()

    def finish() -> None:
        stop.set()
        thread.join(timeout=60)

    return finish


def _run(lines: Listening, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            try:
                lines.tend()
            except Exception as error:  # noqa: BLE001 - isolation boundary: a database that restarts; what is open stays open
                log.warning("listening_failed", error=type(error).__name__)
            stop.wait(_EVERY_SECONDS)
    finally:
        lines.close()
