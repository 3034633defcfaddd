"""Timers as values: what is due, and when what failed is tried again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Any, Final

#: Leases a timer may take into the grave: one that kills its worker is put aside, not tried for ever.
MAX_CRASHES: Final = 3
#: Failures that raise are tried again for about half a day.
MAX_ATTEMPTS: Final = 12
_FIRST_RETRY: Final = timedelta(seconds=10)
LONGEST_RETRY: Final = timedelta(hours=2)


class TimerStatus(StrEnum):
    """``dead`` timers wait for an operator."""

    WAITING = "waiting"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class TimerFact:
    """A timer that a worker holds: what it is about, when it was due, how often it was tried.

    ``token`` proves the lease; ``crashes`` counts workers that never came back from it.
    """

    tenant_id: int
    id: int
    type: str
    key: str
    trigger_at: datetime
    payload: Mapping[str, Any]
    campaign_id: int | None
    attempts: int
    crashes: int
    token: int


def retry_after(attempts: int, rng: Random) -> timedelta | None:
    """How long to wait after the failure of attempt number ``attempts`` (from 1), or nothing when that was the last.

    Exponential with full jitter, at least a tenth of the bound: 10 s doubled each time, never above 2 h.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    bound: timedelta = min(_FIRST_RETRY * 2 ** (attempts - 1), LONGEST_RETRY)
    return bound * (0.1 + 0.9 * rng.random())
