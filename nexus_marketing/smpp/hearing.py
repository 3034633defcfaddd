"""What a centre delivers, kept before it is answered: a thread beside the bind's, so that a slow database holds up no message."""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from nexus_marketing.core.contracts import Hear, ProviderEvent
from nexus_marketing.smpp.statuses import Status
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PIECE: Final = 200
_MOST_WAITING: Final = 1_000


class Ear:
    """Takes events in, a piece in one go, and says of each delivery whether it was kept.

    Args:
        answer: called with a delivery's mark and the status that answers it.
    """

    def __init__(self, answer: Callable[[Any, Status], None]) -> None:
        self._answer = answer
        self._waiting: SimpleQueue[tuple[Any, ProviderEvent] | None] = SimpleQueue()
        self._hears: tuple[Hear, ...] = ()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether anybody wants to hear."""
        return bool(self._hears)

    def add(self, hear: Hear) -> None:
        """One more who is told everything."""
        with self._lock:
            self._hears += (hear,)

    def remove(self, hear: Hear) -> None:
        """One less."""
        with self._lock:
            self._hears = tuple(each for each in self._hears if each is not hear)

    def take(self, mark: Any, event: ProviderEvent) -> None:
        """A delivery. Where nobody hears, or too many wait, the centre is asked to come again."""
        if not self._hears:
            self._answer(mark, Status.TEMPORARY)
            return
        if self._waiting.qsize() >= _MOST_WAITING:
            self._answer(mark, Status.QUEUE_FULL)
            return
        self._waiting.put((mark, event))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="smpp-ear", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what waits; nothing is taken after that."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(10)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            piece, is_over = self._piece()
            if piece:
                status = self._kept([event for _, event in piece])
                for mark, _ in piece:
                    self._answer(mark, status)

    def _piece(self) -> tuple[list[tuple[Any, ProviderEvent]], bool]:
        """What waits, at least one; and whether that was all there will be."""
        piece: list[tuple[Any, ProviderEvent]] = []
        found = self._waiting.get()
        while found is not None:
            piece.append(found)
            if len(piece) == _PIECE:
                return piece, False
            try:
                found = self._waiting.get_nowait()
            except Empty:
                return piece, False
        return piece, True

    def _kept(self, events: Sequence[ProviderEvent]) -> Status:
        hears = self._hears
        try:
            for hear in hears:
                hear(events)
        except Exception as error:  # noqa: BLE001 - whatever keeps them from being kept, the centre has them still
            log.warning("deliveries_not_kept", count=len(events), error=type(error).__name__)
            return Status.TEMPORARY
        return Status.OK if hears else Status.TEMPORARY
