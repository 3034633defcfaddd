"""The embedded mode on a folder: database, server with its worker, mail catcher."""

import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from waitress.server import create_server

from nexus_marketing.config import make_app
from nexus_marketing.core.errors import ConfigurationError
from nexus_marketing.db.engines import DatabaseSettings, build_engines
from nexus_marketing.db.upgrade import upgrade

#: What a demonstration leaves in its folder; a new one starts by removing exactly these.
_LEFT_BEHIND = (
    "nexus.db",
    "nexus.db-wal",
    "nexus.db-shm",
    "nexus.db.lock",
    "mail",
    "state",
    "people.csv",
    "summary.json",
)
_PREFERRED_PORT = 6543


def clear(folder: Path) -> None:
    """Make the folder ready for a new demonstration."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _LEFT_BEHIND:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def settings_for(folder: Path, port: int) -> dict[str, str]:
    """The ini settings of the embedded mode; ``development.ini`` has the same, with comments."""
    return {
        "nexus.database_url": f"sqlite:///{folder / 'nexus.db'}",
        "nexus.state_dir": str(folder / "state"),
        "nexus.catcher_dir": str(folder / "mail"),
        "nexus.public_url": f"http://127.0.0.1:{port}",
        "nexus.worker_threads": "1",
        "nexus.poll_seconds": "0.2",
        "nexus.settling_seconds": "2",
        "nexus.log_level": "WARNING",
    }


def migrate(settings: Mapping[str, str]) -> None:
    """Bring the folder's database to the current schema."""
    url = settings["nexus.database_url"]
    engines = build_engines(DatabaseSettings(url, url, url))
    try:
        upgrade(engines)
    finally:
        engines.dispose()


def free_port() -> int:
    """The usual port if nobody has it, else any."""
    for port in (_PREFERRED_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError("No port is free on 127.0.0.1: end another program and try again.")


@contextmanager
def serving(settings: Mapping[str, str], port: int) -> Iterator[threading.Thread]:
    """The application with its worker, served by waitress until the block ends."""
    app = make_app({}, dict(settings))
    server = create_server(app, host="127.0.0.1", port=port, threads=4)
    thread = threading.Thread(target=server.run, name="demo-server", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        # Ends listening and open connections; waitress's loop itself ends with the process.
        server.task_dispatcher.shutdown(timeout=1)
        server.close()
