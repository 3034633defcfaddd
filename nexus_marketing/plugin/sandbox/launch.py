"""The program of a sandbox's process: ``python -I launch.py``; the first line of its input says what to do.

It goes into namespaces of its own, forks the plugin's process there, and then only waits: until that ends, or until
the worker is gone, whose end of the third pipe closes with it.
"""

import json
import os
import select
import signal
import sys
from typing import Any


def main() -> int:
    """Start and watch; the exit status is the plugin's, 128 and a signal's number where one ended it."""
    # One that ends again and again is started as often: what is at work goes first.
    os.nice(5)
    leash = int(os.environ.pop("NEXUS_LEASH"))
    order = json.loads(_line(0))
    sys.path[:0] = order["paths"]
    from nexus_marketing.plugin.sandbox import confinement, serving  # noqa: PLC0415 - only now is it on the path

    try:
        confinement.leave_namespaces()
    except confinement.Refused as error:
        os.write(1, json.dumps(["refused", str(error)]).encode() + b"\n")
        return 0
    child = os.fork()
    if not child:
        os.setsid()  # what it sends to its group does not reach us
        os.close(leash)
        _be_the_plugin(order, confinement, serving)
    os.close(0)
    os.close(1)
    return _watched(child, leash)


def _be_the_plugin(order: dict[str, Any], confinement: Any, serving: Any) -> None:
    """Never returns: whatever happens here must not go on as the process that watches."""
    status = 1
    try:
        pipes = os.dup(0), os.dup(1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        os.closerange(max(*pipes, nowhere) + 1, os.sysconf("SC_OPEN_MAX"))
        os.close(nowhere)
        try:
            confinement.confine(confinement.Cell(order["readable"], order["memory_bytes"]))
        except confinement.Refused as error:
            os.write(pipes[1], json.dumps(["refused", str(error)]).encode() + b"\n")
        else:
            if order["module"]:
                serving.serve(*pipes, order["module"], order["settings"])
            else:  # somebody only wants to know whether it can be done
                os.write(pipes[1], b'["ready", {}]\n')
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(status)


def _watched(child: int, leash: int) -> int:
    waiting = select.poll()
    waiting.register(leash, select.POLLIN)
    waiting.register(os.pidfd_open(child), select.POLLIN)
    waiting.poll()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _line(descriptor: int) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        piece = os.read(descriptor, 65536)
        if not piece:
            raise SystemExit(1)
        found += piece
    return found


if __name__ == "__main__":
    sys.exit(main())
