"""Thresholds with hysteresis and a cooldown: each crossing is told once.

Up at 80 and down at 75 means: whoever reaches 80 is above until the score falls below 75. Within the cooldown
after a crossing nothing is told; when it ends and the score is still on the other side, that is a crossing then.

>>> hot = Threshold("hot", 80, 75)
>>> mark, crossing, _ = cross(hot, Mark(), 60.0, 80.0, datetime(2026, 1, 1, tzinfo=UTC))
>>> crossing
Crossing(threshold='hot', direction='up', before=60.0, after=80.0)
>>> cross(hot, mark, 80.0, 75.0, datetime(2026, 1, 2, tzinfo=UTC))[1] is None
True
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Threshold:
    """Above from ``up`` on, below again under ``down``."""

    key: str
    up: float
    down: float
    cooldown: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a lead stands: ``told_at`` of the last crossing, ``waits_from`` the score before one that waits."""

    above: bool = False
    told_at: datetime | None = None
    waits_from: float | None = None

    @classmethod
    def of(cls, kept: Any) -> "Mark":
        """From its stored form."""
        told_at = kept.get("told_at")
        return cls(bool(kept["above"]), datetime.fromisoformat(told_at) if told_at else None, kept.get("waits_from"))

    def kept(self) -> dict[str, Any]:
        """Its stored form."""
        told_at = self.told_at.astimezone(UTC).isoformat() if self.told_at else None
        return {"above": self.above, "told_at": told_at, "waits_from": self.waits_from}


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold was crossed: ``up`` or ``down``, with the scores before and after."""

    threshold: str
    direction: str
    before: float
    after: float


def is_above(threshold: Threshold, mark: Mark, score: float) -> bool:
    """On which side a score is, coming from where the lead stands."""
    return score >= (threshold.down if mark.above else threshold.up)


def cross(
    threshold: Threshold, mark: Mark, before: float, after: float, now: datetime
) -> tuple[Mark, Crossing | None, datetime | None]:
    """Where a lead stands afterwards, the crossing to tell, and when to look again because of a cooldown."""
    above = is_above(threshold, mark, after)
    if above == mark.above:
        return replace(mark, waits_from=None), None, None
    start = before if mark.waits_from is None else mark.waits_from
    if mark.told_at is not None and now < mark.told_at + threshold.cooldown:
        return replace(mark, waits_from=start), None, mark.told_at + threshold.cooldown
    crossing = Crossing(threshold.key, "up" if above else "down", start, after)
    return Mark(above, now), crossing, None


def settle(threshold: Threshold, mark: Mark, score: float) -> Mark:
    """Where a lead stands, without telling: after its score was computed afresh."""
    return Mark(is_above(threshold, mark, score), mark.told_at)
