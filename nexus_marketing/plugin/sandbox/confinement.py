"""Giving up everything, for good: namespaces, a root of its own, limits, rights (Linux; needs no helper that is setuid).

Each step that the kernel refuses ends it with :class:`Refused`: there is no weaker form.
"""

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from nexus_marketing.plugin.sandbox.filters import CAPSET, PIVOT_ROOT, program

_NEW_MOUNTS, _NEW_IPC, _NEW_UTS, _NEW_USERS, _NEW_PIDS, _NEW_NET = (
    0x00020000,
    0x08000000,
    0x04000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_NOBODY: Final = 65534
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_MOUNT_SETATTR: Final = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_DETACH: Final = 2
_PDEATHSIG, _SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 22, 24, 38
_FILTER_MODE: Final = 2
_CAPABILITY_VERSION: Final = 0x20080522
_SIGKILL: Final = 9
_THREADS: Final = 64
_FILES: Final = 32
#: What spins in it gives way to our own work: sixty-four threads of it weigh less than one of ours.
_NICE: Final = 19

_REMEDIES: Final = {
    "namespaces": "allow user namespaces without rights: sysctl user.max_user_namespaces above 0, "
    "kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 or a profile with "
    "'userns' (Ubuntu); in a container, a seccomp profile that lets unshare and mount pass",
    "users": "allow user namespaces without rights: kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile "
    "with 'userns' (Ubuntu)",
    "root": "let a user namespace mount: in a container, seccomp and AppArmor profiles that let mount and pivot_root pass; "
    "the kernel must be 5.12 or newer",
    "filter": "use a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "rights": "use Linux 5.12 or newer",
}


class Refused(Exception):
    """The kernel does not let us confine a process."""

    def __init__(self, step: str, error: OSError | str) -> None:
        said = error if isinstance(error, str) else os.strerror(error.errno or 0)
        super().__init__(f"the kernel refuses a sandbox ({step}: {said}); {_REMEDIES[step]}")


@dataclass(frozen=True, slots=True)
class Cell:
    """What a confined process keeps: folders and files that it may read, and how much memory it may ask for."""

    readable: Sequence[str]
    memory_bytes: int


def leave_namespaces() -> None:
    """Be in namespaces of one's own; the next process that is forked is the first of its pid namespace."""
    uid, gid = os.getuid(), os.getgid()
    flags = _NEW_USERS | _NEW_MOUNTS | _NEW_PIDS | _NEW_NET | _NEW_IPC | _NEW_UTS
    _ask("namespaces", "unshare", flags)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_NOBODY} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{_NOBODY} {gid} 1")
    except OSError as error:
        raise Refused("users", error) from error


def confine(cell: Cell) -> None:
    """The rest, in that process: nothing of this can be taken back. The memory limit comes last.

    Raises:
        Refused: the kernel does not let us.
    """
    _ask("rights", "prctl", _PDEATHSIG, _SIGKILL, 0, 0, 0)
    _new_root(cell.readable)
    _drop_rights()
    _limit(cell.memory_bytes)


def _new_root(readable: Sequence[str]) -> None:
    """A root of its own, in memory, that holds what may be read and is then read only itself."""
    root, old = "/tmp", "/tmp/.old"  # noqa: S108 - every system has it; what is mounted there is seen by nobody else
    _ask("root", "mount", None, b"/", None, _PRIVATE | _REC, None)
    sources = [(os.open(each, os.O_PATH | os.O_CLOEXEC), each, Path(each).is_dir()) for each in _tops(readable)]
    _ask("root", "mount", b"tmpfs", root.encode(), b"tmpfs", _NOSUID | _NODEV, b"size=256k,nr_inodes=1k,mode=755")
    for source, path, is_folder in sources:
        target = f"{root}{path}"
        Path(target if is_folder else os.path.dirname(target)).mkdir(parents=True, exist_ok=True)  # noqa: PTH120
        if not is_folder:
            Path(target).touch()
        _ask("root", "mount", f"/proc/self/fd/{source}".encode(), target.encode(), None, _BIND | _REC, None)
        attributes = struct.pack("=QQQQ", _RDONLY | _NOSUID | _NODEV, 0, 0, 0)
        given = (_AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))
        _ask("root", "syscall", _MOUNT_SETATTR, *given)
        os.close(source)
    Path(old).mkdir()
    _ask("root", "syscall", PIVOT_ROOT[_machine()], root.encode(), old.encode())
    os.chdir("/")
    _ask("root", "umount2", b"/.old", _DETACH)
    Path("/.old").rmdir()
    _ask("root", "mount", None, b"/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV, None)


def _tops(paths: Sequence[str]) -> list[str]:
    """Paths that are there, without those below another."""
    found: list[str] = []
    for each in sorted({os.path.realpath(path) for path in paths} | set(paths)):
        if os.path.exists(each) and not any(each.startswith(f"{top}/") or each == top for top in found):  # noqa: PTH110
            found.append(each)
    return found


def _drop_rights() -> None:
    for number in range(64):
        try:
            _ask("rights", "prctl", _CAPBSET_DROP, number, 0, 0, 0)
        except Refused:
            break  # the kernel knows no more of them
    none = ctypes.create_string_buffer(24)
    _ask("rights", "syscall", CAPSET[_machine()], struct.pack("=II", _CAPABILITY_VERSION, 0), none)
    _ask("rights", "prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    instructions = ctypes.create_string_buffer(program(_machine()))
    # struct sock_fprog: how many instructions, and where they lie.
    whole = struct.pack("=H6xQ", (len(instructions) - 1) // 8, ctypes.addressof(instructions))
    _ask("filter", "prctl", _SECCOMP, _FILTER_MODE, ctypes.create_string_buffer(whole), 0, 0)


def _limit(memory_bytes: int) -> None:
    os.nice(_NICE)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_NPROC: _THREADS,
        resource.RLIMIT_AS: memory_bytes,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def _machine() -> str:
    machine = os.uname().machine
    if machine not in PIVOT_ROOT:
        raise Refused("filter", f"system calls of {machine} are not known")
    return machine


def _ask(step: str, name: str, *arguments: Any) -> None:
    """Call the C library; -1 is a refusal."""
    library = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if getattr(library, name)(*given) == -1:
        _refuse(step, ctypes.get_errno())


def _refuse(step: str, number: int) -> NoReturn:
    raise Refused(step, OSError(number or errno.EPERM, os.strerror(number)))
