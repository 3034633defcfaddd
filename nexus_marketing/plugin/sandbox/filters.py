"""The system calls that a sandboxed plugin is refused, as a program for the kernel (seccomp, ``man 2 seccomp``).

Namespaces, limits and missing rights do the confinement. This takes away what reaches around them: families of sockets
that no namespace knows (vsock), memory that no limit counts (System V, memfd), new processes, and the doors by which
kernels were broken into. The numbers are those of ``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

import errno
import struct
from collections.abc import Iterator, Mapping
from typing import Final

#: AUDIT_ARCH of a machine, and the numbers of what is refused there, clone and clone3 aside.
_REFUSED: Final[Mapping[str, tuple[int, Mapping[str, int]]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41,
            "shmget": 29,
            "shmat": 30,
            "semget": 64,
            "msgget": 68,
            "fork": 57,
            "vfork": 58,
            "execve": 59,
            "execveat": 322,
            "ptrace": 101,
            "personality": 135,
            "modify_ldt": 154,
            "pivot_root": 155,
            "chroot": 161,
            "mount": 165,
            "umount2": 166,
            "init_module": 175,
            "delete_module": 176,
            "quotactl": 179,
            "mq_open": 240,
            "kexec_load": 246,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "name_to_handle_at": 303,
            "open_by_handle_at": 304,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "finit_module": 313,
            "memfd_create": 319,
            "bpf": 321,
            "userfaultfd": 323,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198,
            "shmget": 194,
            "shmat": 196,
            "semget": 190,
            "msgget": 186,
            "execve": 221,
            "execveat": 281,
            "ptrace": 117,
            "personality": 92,
            "pivot_root": 41,
            "chroot": 51,
            "mount": 40,
            "umount2": 39,
            "init_module": 105,
            "delete_module": 106,
            "quotactl": 60,
            "mq_open": 180,
            "kexec_load": 104,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "unshare": 97,
            "perf_event_open": 241,
            "name_to_handle_at": 264,
            "open_by_handle_at": 265,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "finit_module": 273,
            "memfd_create": 279,
            "bpf": 280,
            "userfaultfd": 282,
        },
    ),
}
#: The same number everywhere: pidfd_*, io_uring_*, the new mount API, memfd_secret.
_REFUSED_EVERYWHERE: Final = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 442, 447)
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_CLONE3: Final = 435
_CLONE_THREAD: Final = 0x00010000
#: Numbers from here on are another ABI of x86_64 (x32).
_X32: Final = 0x40000000
PIVOT_ROOT: Final = {machine: numbers["pivot_root"] for machine, (_, numbers) in _REFUSED.items()}
CAPSET: Final = {"x86_64": 126, "aarch64": 91}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
#: Where the number, the architecture and the first argument lie in ``struct seccomp_data``.
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16


def program(machine: str) -> bytes:
    """The filter for a machine (``os.uname().machine``), as an array of ``struct sock_filter``.

    Raises:
        KeyError: its numbers are not known.
    """
    return b"".join(struct.pack("=HBBI", *each) for each in _instructions(machine))


def _instructions(machine: str) -> Iterator[tuple[int, int, int, int]]:
    architecture, numbers = _REFUSED[machine]
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _EQUAL, 1, 0, architecture
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER
    yield _AT_LEAST, 0, 1, _X32
    yield _RETURN, 0, 0, _KILL
    for number in (*numbers.values(), *_REFUSED_EVERYWHERE):
        yield _EQUAL, 0, 1, number
        yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    # Its flags lie in memory that a filter cannot read: the C library falls back to clone.
    yield _EQUAL, 0, 1, _CLONE3
    yield _RETURN, 0, 0, _ERRNO | errno.ENOSYS
    yield _EQUAL, 0, 3, _CLONE[machine]
    yield _LOAD, 0, 0, _FIRST
    yield _ANY_BIT, 1, 0, _CLONE_THREAD
    yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW
