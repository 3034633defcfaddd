"""A first-come-first-served lock for SQLite's single writer (DATABASE.md, SQLite).

SQLite's own busy timeout lets two bulk writers starve small ones for seconds, and so does a
plain lock; handing over in order of arrival with short transactions gives everybody a turn.
"""

import threading
from collections import deque


class FairLock:
    """Hands itself over in order of arrival; may be released by another thread than the holder's."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def acquire(self, timeout_seconds: float) -> bool:
        """Wait for a turn; ``False`` where nobody let go in time."""
        with self._mutex:
            if not self._held and not self._waiting:
                self._held = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(timeout_seconds):
            return True
        with self._mutex:
            if turn.is_set():  # handed over between the time-out and here
                return True
            self._waiting.remove(turn)
        return False

    def release(self) -> None:
        """Hand over to whoever has waited longest."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
