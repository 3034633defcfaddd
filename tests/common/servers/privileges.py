"""Running servers as nobody when we are root, and finding places that nobody can reach.

PostgreSQL refuses to run as root, and ``initdb`` insists on a passwd entry for its uid.
"""

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED_NAMES = ("nobody", "daemon", "games", "bin")
SEARCHABLE_BY_OTHERS = 0o001
READABLE_BY_OTHERS = 0o005


class ServerUnavailable(RuntimeError):
    """A test server cannot be provided; the message says what was tried and the remedy."""


@dataclass(frozen=True, slots=True)
class Account:
    """The uid and gid servers run under; both None where the run is not root."""

    uid: int | None
    gid: int | None

    def own(self, path: Path) -> None:
        """Hand a file or folder to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def popen_arguments(self) -> dict[str, object]:
        """The arguments with which ``subprocess`` drops root; empty for an ordinary user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account() -> Account:
    """The account for servers: our own, or an unprivileged one when we are root."""
    if os.geteuid() != 0:
        return Account(None, None)
    for name in UNPRIVILEGED_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise ServerUnavailable(
        "PostgreSQL does not run as root and none of the users "
        f"{', '.join(UNPRIVILEGED_NAMES)} exists: add one, run the tests as an ordinary user, "
        "or set NEXUS_TEST_POSTGRES_URL"
    )


def is_reachable(path: Path, account: Account) -> bool:
    """Whether the account can open this folder or program through all its parents."""
    if account.uid is None:
        return os.access(path, os.R_OK | os.X_OK)
    path = path.resolve()
    if path.stat().st_mode & READABLE_BY_OTHERS != READABLE_BY_OTHERS:
        return False
    return all(parent.stat().st_mode & SEARCHABLE_BY_OTHERS for parent in path.parents)


def server_base(account: Account) -> Path:
    """A folder for temporary files whose parents the account may pass.

    A private ``TMPDIR`` is passed over: opening somebody's folder to the world is not ours to do.
    """
    for candidate in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        path = Path(candidate)
        if path.is_dir() and os.access(path, os.W_OK) and is_reachable(path, account):
            return path
    raise ServerUnavailable(
        "no temporary folder is open to the unprivileged account of the test servers: set TMPDIR to one with mode 1777"
    )


def reachable_copy(folder: Path, account: Account, into: Path) -> Path:
    """The folder itself, or a copy that the account can open when it sits under a private one."""
    if is_reachable(folder, account):
        return folder
    target = into / folder.name
    shutil.copytree(folder, target, symlinks=True)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runnable else 0o644)
    return target
