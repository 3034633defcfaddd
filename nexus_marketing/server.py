"""``paste.server_runner`` for granian, which has none of its own: ``pserve production.ini`` starts it.

Granian's worker processes each build their own application from the same ini file, because connections
and locks do not survive a fork; the one that ``pserve`` built only showed that the settings are right.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import plaster
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from pyramid.router import Router

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_INTEGERS = frozenset({"port", "workers", "blocking_threads", "backlog", "backpressure"})
_KNOWN = frozenset({"host", *_INTEGERS})
_STOP_SECONDS = 30


def run_granian(app: Router, global_config: Mapping[str, str], **options: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: what ``pserve`` built; its connections are closed.
        global_config: names the ini file.
        options: ``host``, ``port``, ``workers`` (processes), ``blocking_threads`` (requests at a time and
            process; keep ``nexus.pool_size`` at least half of it), ``backlog``, ``backpressure``.

    Raises:
        ConfigurationError: an option is unknown or no number.
    """
    numbers = _numbers(options)
    app.registry["nexus.runtime"].close()
    server = Granian(
        "nexus_marketing",
        address=options.get("host", "127.0.0.1"),
        port=numbers.pop("port", 8080),
        interface=Interfaces.WSGI,
        http=HTTPModes.auto,
        # A client that sends its headers byte by byte holds a connection no longer than this (milliseconds).
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=_STOP_SECONDS,
        **numbers,
    )
    log.info("serving", address=f"{server.bind_addr}:{server.bind_port}", workers=server.workers)
    server.serve(target_loader=partial(load_application, dict(global_config)), wrap_loader=False)


def load_application(global_config: Mapping[str, str]) -> Callable[..., Any]:
    """The application of an ini file, with the variables that ``pserve`` was given: what each process serves."""
    given = {name: value for name, value in global_config.items() if name not in ("__file__", "here")}
    loader = plaster.get_loader(global_config["__file__"], protocols=["wsgi"])
    app: Callable[..., Any] = loader.get_wsgi_app("main", given)
    return app


def _numbers(options: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(options.keys() - _KNOWN)
    if unknown:
        raise ConfigurationError(f"[server:main] {unknown[0]}: unknown; use {', '.join(sorted(_KNOWN))}.")
    try:
        return {name: int(options[name]) for name in _INTEGERS & options.keys()}
    except ValueError as error:
        raise ConfigurationError(f"[server:main] {', '.join(sorted(_INTEGERS))} are whole numbers: {error}.") from error
