"""Which keys a file had before, whatever its size."""

import sqlite3
from collections.abc import Sequence

import orjson


class SeenKeys:
    """Which keys a file had before, in flat memory: up to ``in_memory`` hashes in a set, then in a temporary file.

    Two different keys share a 64-bit hash once in 2^64 / n: at ten million rows, one chance in two
    million that a single row of the file is wrongly called a duplicate. One thread at a time may
    use it.
    """

    def __init__(self, in_memory: int = 200_000) -> None:
        self._limit = in_memory
        self._recent: set[int] = set()
        self._file: sqlite3.Connection | None = None

    def first_times(self, keys: Sequence[int]) -> list[bool]:
        """Remember signed 64-bit keys; answers for each whether it comes for the first time."""
        known = self._recent
        on_file = self._find_on_file(keys)
        answers = []
        for key in keys:
            is_new = key not in known and key not in on_file
            if is_new:
                known.add(key)
            answers.append(is_new)
        if len(known) > self._limit:
            self._move_to_file()
        return answers

    def close(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()

    def _find_on_file(self, keys: Sequence[int]) -> set[int]:
        if self._file is None:
            return set()
        statement = "SELECT key FROM seen WHERE key IN (SELECT value FROM json_each(?))"
        return {key for (key,) in self._file.execute(statement, [orjson.dumps(keys).decode()])}

    def _move_to_file(self) -> None:
        if self._file is None:
            # "" is a private file that SQLite removes by itself.
            self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for pragma in ("cache_size = -16384", "journal_mode = OFF", "synchronous = OFF"):
                self._file.execute(f"PRAGMA {pragma}")
            self._file.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY)")
            self._file.execute("BEGIN")
        self._file.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(key,) for key in sorted(self._recent)])
        self._recent = set()
