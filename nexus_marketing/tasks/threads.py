"""The threads of a process that works: some do everything, and each sandboxed plugin's messages have one of their own.

A plugin that hangs holds the thread that asks it until its time is over; so it keeps its own messages waiting, and nobody
else's (S17). Timers of actions that sandboxed plugins take go to threads of their own as well, see :class:`WorkerLoop`.
"""

import threading
from collections.abc import Sequence
from typing import Final

from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.loops import WorkerLoop

#: How long a process that ends waits for what a thread has on the wire.
FAREWELL_SECONDS: Final = 30.0


def loops_of(runtime: Runtime, stop: threading.Event, threads: int) -> list[WorkerLoop]:
    """So many loops that do everything but what a plugin in the sandbox sends, and then one for each such plugin.

    Args:
        runtime: of the process.
        stop: ends them.
        threads: how many do everything.
    """
    apart = channels_apart(runtime)
    others = frozenset().union(*apart)
    whole = [WorkerLoop(runtime, stop.is_set, serves=lambda channel: channel not in others) for _ in range(threads)]
    own = [
        # Who waits for a ring takes it from those who do everything: these look once a second.
        WorkerLoop(runtime, stop.is_set, serves=channels.__contains__, only_sends=True, rest=stop.wait)
        for channels in apart
    ]
    return [*whole, *own]


def channels_apart(runtime: Runtime) -> list[frozenset[str]]:
    """The channels of each sandboxed plugin that has some."""
    by_plugin: dict[str, set[str]] = {}
    for name in runtime.channels:
        plugin = runtime.plugin_of(name)
        if plugin is not None and plugin.is_sandboxed:
            by_plugin.setdefault(plugin.name, set()).add(name)
    return [frozenset(by_plugin[name]) for name in sorted(by_plugin)]


def start(loops: Sequence[WorkerLoop]) -> list[threading.Thread]:
    """Run each loop in a thread of its own."""
    threads = [
        threading.Thread(target=loop.run, name=f"nexus-worker-{number}", daemon=True)
        for number, loop in enumerate(loops)
    ]
    for thread in threads:
        thread.start()
    return threads
