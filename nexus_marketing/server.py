"""``paste.server_runner`` for granian, which has none of its own: ``pserve production.ini`` starts it.

Granian's worker processes each build their own application from the same ini file, because connections
and locks do not survive a fork; the one that ``pserve`` built only showed that the settings are right.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any

import plaster
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.utils.proxies import wrap_wsgi_with_proxy_headers
from pyramid.router import Router

from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_INTEGERS = frozenset({"port", "workers", "blocking_threads", "backlog", "backpressure"})
_KNOWN = frozenset({"host", "trusted_proxies", *_INTEGERS})
_STOP_SECONDS = 30


def run_granian(app: Router, global_config: Mapping[str, str], **options: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: what ``pserve`` built; its connections are closed.
        global_config: names the ini file.
        options: ``host``, ``port``, ``workers`` (processes), ``blocking_threads`` (requests at a time and
            process; keep ``nexus.pool_size`` at least half of it), ``backlog``, ``backpressure``; ``trusted_proxies``
            (addresses and networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed).

    Raises:
        ConfigurationError: an option is unknown, no number, or no address.
    """
    numbers, proxies = _numbers(options), _proxies(options.get("trusted_proxies", ""))
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
    server.serve(target_loader=partial(load_application, dict(global_config), proxies), wrap_loader=False)


def load_application(global_config: Mapping[str, str], proxies: Sequence[str] = ()) -> Callable[..., Any]:
    """The application of an ini file, with the variables that ``pserve`` was given: what each process serves.

    Of ``X-Forwarded-For`` the last address counts that is none of the proxies'; whoever asks directly is not believed.
    """
    given = {name: value for name, value in global_config.items() if name not in ("__file__", "here")}
    loader = plaster.get_loader(global_config["__file__"], protocols=["wsgi"])
    app: Callable[..., Any] = loader.get_wsgi_app("main", given)
    return wrap_wsgi_with_proxy_headers(app, list(proxies)) if proxies else app


def _proxies(text: str) -> list[str]:
    words = text.replace(",", " ").split()
    for word in words:
        try:
            network = ip_network(word)
        except ValueError as error:
            raise ConfigurationError(
                f"[server:main] trusted_proxies: {word!r} is no address and no network ({error}): write those of your "
                "proxies, such as 127.0.0.1 10.0.0.0/8."
            ) from None
        if network.prefixlen == 0:
            raise ConfigurationError(
                f"[server:main] trusted_proxies: {word!r} is everybody, who could then say to be anybody: write the "
                "addresses of your proxies, such as 127.0.0.1 10.0.0.0/8."
            )
    return words


def _numbers(options: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(options.keys() - _KNOWN)
    if unknown:
        raise ConfigurationError(f"[server:main] {unknown[0]}: unknown; use {', '.join(sorted(_KNOWN))}.")
    try:
        return {name: int(options[name]) for name in _INTEGERS & options.keys()}
    except ValueError as error:
        raise ConfigurationError(f"[server:main] {', '.join(sorted(_INTEGERS))} are whole numbers: {error}.") from error
