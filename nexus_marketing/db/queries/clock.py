"""What time the database thinks it is, and a clock that goes by it."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from nexus_marketing.core.clock import Clock
from nexus_marketing.db.tenancy import open_session, run_for_all
from nexus_marketing.db.types import read_moment
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: How long an answer of the database is carried on by the monotonic clock before it is asked again.
_ASK_EVERY_SECONDS: Final = 5.0


def database_now(engine: Engine) -> datetime:
    """Database time, by which leases run."""
    with open_session(engine, tenant_id=None, mode="read") as session:
        return read_moment(run_for_all(session, "SELECT nexus_now()", writes=False).scalar_one())


class DatabaseClock:
    """The clock of the database, which all processes share: a machine whose own clock is wrong harms nobody.

    The database is asked every few seconds; in between its answer is carried on by the monotonic clock, which nobody
    sets: steps of the machine's clock, leap seconds and the like pass unseen. It never runs ahead of the database.
    Where the database does not answer, the last answer is carried on; before the first, the machine's own clock counts.
    """

    def __init__(self, engine: Engine, machine: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked yet.

        Args:
            engine: with connections to spare: whoever asks for the time may hold one already.
            machine: this machine's clock, until the database answered once.
            monotonic: seconds that only grow.
        """
        self._engine = engine
        self._machine = machine
        self._monotonic = monotonic
        self._asking = Lock()
        self._asked_at = float("-inf")
        self._answer: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The present moment by the database, aware, in UTC."""
        if self._monotonic() - self._asked_at >= _ASK_EVERY_SECONDS and self._asking.acquire(
            blocking=self._answer is None
        ):
            try:
                self._ask()
            finally:
                self._asking.release()
        answer = self._answer
        if answer is None:
            return self._machine.now()
        moment, then = answer
        return moment + timedelta(seconds=self._monotonic() - then)

    def _ask(self) -> None:
        if self._monotonic() - self._asked_at < _ASK_EVERY_SECONDS:
            return  # somebody else did meanwhile
        try:
            # Counted from when the answer is here: the time it took to come makes us late, never early.
            self._answer = database_now(self._engine), self._monotonic()
        except SQLAlchemyError as error:
            log.warning("database_time_unknown", error=type(error).__name__)
        self._asked_at = self._monotonic()
