"""Where an SQLite file may lie, and locks beside it: neither works over a network (DATABASE.md, SQLite)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from nexus_marketing.core.errors import ConfigurationError

_NETWORK = frozenset(
    {
        "afs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
_MOUNTS = Path("/proc/self/mounts")


def refuse_network_file(path: Path, mounts: str | None = None) -> None:
    """Refuse a database file on a network file system.

    Args:
        path: of the database file, which need not exist yet.
        mounts: the lines of ``/proc/self/mounts``; where the system has none, nothing is refused.

    Raises:
        ConfigurationError: names the file, the file system and the remedy.
    """
    if mounts is None:
        mounts = _MOUNTS.read_text() if _MOUNTS.exists() else ""
    resolved = path.resolve()
    kind, longest = "", -1
    for line in mounts.splitlines():
        _, place, file_system, *_ = line.split(" ")
        # Blanks in a mount point are written as \040.
        folder = Path(place.replace("\\040", " "))
        if resolved.is_relative_to(folder) and len(folder.parts) >= longest:
            kind, longest = file_system, len(folder.parts)
    if kind in _NETWORK:
        raise ConfigurationError(
            f"nexus.database_url: {path} is on a network file system ({kind}), where SQLite loses data: "
            "use a local disk, or PostgreSQL."
        )


@contextmanager
def alone_at(engine: Engine, what: str) -> Iterator[bool]:
    """Whether nobody else is at something of an SQLite database, in this process or another; nobody begins meanwhile.

    What a row says of that outlives whoever wrote it; this lock goes with its process, however that ends.

    Args:
        engine: of the database, beside whose file the lock lies.
        what: a name for it, such as ``segment-1-17``.
    """
    path = Path(f"{engine.url.database}.{what}.lock")
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if os.fstat(file.fileno()).st_nlink == 0:  # whoever held it has just let go of it
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
