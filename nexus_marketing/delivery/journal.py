"""The hand-over journal: what a killed worker had on the wire (BEHAVIOUR.md 5.2).

One memory-mapped file per worker thread. Pages of a mapped file survive SIGKILL of the process
(not a power cut), so a recovering worker on the same host reads what was sent and what was
answered. The file is locked by its writer; only a file whose lock is free belongs to a dead
process, and only such a file may be believed: a frozen process might still send.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from nexus_marketing.core.contracts import OutcomeKind
from nexus_marketing.db.queries.deliveries import ChunkClaim

_HEADER = Struct(">8sQQQQ")
_MAGIC = b"NXMJRNL1"
_SIZE = 16_384
_FIRST = 64
CAPACITY = _SIZE - _FIRST

_UNTOUCHED, _ON_WIRE = 0, 1
_KINDS = tuple(OutcomeKind)
_MARKS = {kind: 2 + number for number, kind in enumerate(_KINDS)}


@dataclass(frozen=True, slots=True)
class JournalKey:
    """Which claim a journal is about."""

    tenant_id: int
    send_id: int
    chunk_no: int
    fence: int


class HandOverJournal:
    """The journal of a living worker thread; a channel session marks it, see ``contracts.Journal``."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        unlocked = path.with_suffix(".new")  # a name that nobody takes for a dead worker's
        self._file = unlocked.open("w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The disk's room is taken now: a page that cannot be had later would end the process without a word.
            os.posix_fallocate(self._file.fileno(), 0, _SIZE)
            self._map = mmap.mmap(self._file.fileno(), _SIZE)
            unlocked.rename(path)
        except BaseException:
            self._file.close()
            unlocked.unlink(missing_ok=True)
            raise

    def begin(self, claim: ChunkClaim) -> None:
        """Turn to a newly claimed chunk, before its first intent is committed."""
        self._map[:] = bytes(_SIZE)
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, claim.tenant_id, claim.send_id, claim.chunk_no, claim.fence)

    def on_wire(self, ref: int) -> None:
        """The recipient at this position may be complete on the wire from now on."""
        self._map[_FIRST + ref] = _ON_WIRE

    def on_outcome(self, ref: int, kind: OutcomeKind) -> None:
        """The recipient at this position was answered."""
        self._map[_FIRST + ref] = _MARKS[kind]

    def close(self, *, is_needed: bool = False) -> None:
        """End of this worker thread: the file goes, unless a chunk could not be closed: then it stays for whoever recovers that."""
        if not is_needed:
            self._path.unlink(missing_ok=True)
        self._map.close()
        self._file.close()


class DeadJournal:
    """The journal of a process that is gone. ``None`` from :meth:`answer` means: on the wire, not answered.

    Whoever could not do with it what it is for sets ``is_needed``, and it is found again.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.is_needed = False
        magic, tenant_id, send_id, chunk_no, fence = _HEADER.unpack_from(raw)
        self.key = JournalKey(tenant_id, send_id, chunk_no, fence) if magic == _MAGIC else None

    def was_on_wire(self, position: int) -> bool:
        """Whether the message may have reached the other side."""
        return self._raw[_FIRST + position] != _UNTOUCHED

    def answer(self, position: int) -> OutcomeKind | None:
        """The answer that was read, if any."""
        mark = self._raw[_FIRST + position]
        return _KINDS[mark - 2] if mark >= 2 else None


def dead_journals(folder: Path) -> Iterator[DeadJournal]:
    """Journals whose writers are gone. Each is held while the caller works and removed after it, unless it is needed still."""
    for path in sorted(folder.glob("*.journal")):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue  # another worker dealt with it
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if os.fstat(file.fileno()).st_nlink == 0:
                continue
            raw = file.read()
            if len(raw) == _SIZE:
                journal = DeadJournal(raw)
                yield journal
                if journal.is_needed:
                    continue
            path.unlink(missing_ok=True)
