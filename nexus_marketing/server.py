"""``pserve production.ini`` on granian: a ``paste.server_runner``, which granian itself does not bring.

Settings of ``[server:main]``: ``host``, ``port``, ``workers`` (processes), ``threads`` (per process),
``backpressure`` (requests a process takes at once).
"""

from functools import partial
from typing import Any

import plaster
from granian import Granian
from granian.constants import Interfaces
from pyramid.router import Router

from nexus_marketing.core.errors import ConfigurationError

_SETTINGS = {"host": str, "port": int, "workers": int, "threads": int, "backpressure": int}


def run_granian(app: Router, global_conf: dict[str, str], **local_conf: str) -> None:
    """Serve until SIGTERM or SIGINT.

    The application that ``pserve`` built proved that the settings work; each process builds its own,
    because connections must not be shared over a fork.

    Raises:
        ConfigurationError: a setting of ``[server:main]`` is unknown or malformed.
    """
    app.registry["nexus.runtime"].close()
    chosen = _read(local_conf)
    server = Granian(
        "nexus_marketing",
        address=chosen.get("host", "127.0.0.1"),
        port=chosen.get("port", 8080),
        interface=Interfaces.WSGI,
        workers=chosen.get("workers", 1),
        blocking_threads=chosen.get("threads", 4),
        backpressure=chosen.get("backpressure"),
        respawn_failed_workers=True,
        log_access=False,
    )
    server.serve(target_loader=partial(_load, global_conf["__file__"]), wrap_loader=False)


def _load(ini_file: str) -> Any:
    return plaster.get_loader(ini_file, protocols=["wsgi"]).get_wsgi_app("main")


def _read(local_conf: dict[str, str]) -> dict[str, Any]:
    faults = [f"{name} is no setting of the server" for name in local_conf if name not in _SETTINGS]
    chosen: dict[str, Any] = {}
    for name, reader in _SETTINGS.items():
        try:
            if name in local_conf:
                chosen[name] = reader(local_conf[name])
        except ValueError:
            faults.append(f"{name}: {local_conf[name]!r} is no whole number")
    if faults:
        raise ConfigurationError(f"[server:main] {'; '.join(faults)}.")
    return chosen
