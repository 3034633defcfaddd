"""Where an SQLite file may lie: file locks and shared memory do not work over a network (DATABASE.md, SQLite)."""

from pathlib import Path

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
