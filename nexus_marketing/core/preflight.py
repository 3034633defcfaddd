"""What would become of a campaign if it were launched now: counted before anybody is written to.

>>> tally = Tally()
>>> tally.skip("no_address")
>>> tally.go(3)
>>> tally.planned, tally.sendable, dict(tally.skipped)
(4, 3, {'no_address': 1})
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

#: A pre-flight says nothing about a launch so long after it.
VALID_FOR: Final = timedelta(hours=24)
#: By how many percent an audience may have changed, where a launch does not say.
TOLERANCE: Final = 5.0
#: How exactly it is remembered how long held messages wait.
MINUTE_SECONDS: Final = 60.0


class PreflightStatus(StrEnum):
    """``waiting`` until a worker has looked at the whole audience."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Tally:
    """What was found of one channel so far. ``held`` are among the ``sendable``: they get it later.

    ``outranked_by`` says for how many of the held ones which send goes first; ``held_seconds`` is the longest wait;
    ``segments`` is what the sendable ones take on the air, where that is paid for.
    """

    sendable: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    outranked_by: Counter[str] = field(default_factory=Counter)
    held_seconds: float = 0.0
    #: Of the held ones how many wait at least so many minutes; the first one is 0.
    minutes: Counter[int] = field(default_factory=Counter)
    #: Of the sendable ones, those whose domain has a rate of its own.
    domains: Counter[str] = field(default_factory=Counter)
    segments: int = 0

    @property
    def planned(self) -> int:
        """Everybody who was looked at."""
        return self.sendable + self.skipped.total()

    def go(self, count: int) -> None:
        """So many would get it."""
        self.sendable += count

    def skip(self, reason: str) -> None:
        """Somebody would not."""
        self.skipped[str(reason)] += 1

    def hold(self, reason: str, seconds: float, send: str | None) -> None:
        """Somebody would get it later; ``send`` goes before."""
        self.sendable += 1
        self.held[reason] += 1
        self.held_seconds = max(self.held_seconds, seconds)
        self.minutes[int(seconds // MINUTE_SECONDS)] += 1
        if send is not None:
            self.outranked_by[send] += 1

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sendable": self.sendable,
            "skipped": dict(self.skipped),
            "held": dict(self.held),
            "outranked_by": dict(self.outranked_by),
            "held_seconds": self.held_seconds,
            "minutes": {str(minute): count for minute, count in self.minutes.items()},
            "domains": dict(self.domains),
            "segments": self.segments,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Tally":
        """What :meth:`document` wrote."""
        names = ("skipped", "held", "outranked_by", "domains")
        counters = {name: Counter(document.get(name, {})) for name in names}
        minutes = Counter({int(minute): count for minute, count in document.get("minutes", {}).items()})
        segments = document.get("segments", 0)  # an older version wrote none
        held_seconds = document["held_seconds"]
        return cls(document["sendable"], held_seconds=held_seconds, minutes=minutes, segments=segments, **counters)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a pre-flight was about, or what a launch would be about now."""

    campaign_version: int
    audience: int
    #: Version of the template of each channel.
    templates: Mapping[str, int]
    at: datetime


def moved(seen: Standing, now: Standing, tolerance: float = TOLERANCE) -> list[str]:
    """What is not any more as a pre-flight saw it, in sentences; nothing where it still holds.

    Args:
        seen: by the pre-flight.
        now: at the launch.
        tolerance: by how many percent the audience may have grown or shrunk.
    """
    said = []
    if seen.campaign_version != now.campaign_version:
        said.append("the campaign was changed")
    said += [
        f"the template of {channel} is at version {version}, not {seen.templates[channel]}"
        for channel, version in now.templates.items()
        if seen.templates.get(channel, version) != version
    ]
    if abs(now.audience - seen.audience) * 100 > tolerance * seen.audience:
        said.append(f"the audience has {now.audience} people, not {seen.audience}")
    if now.at - seen.at > VALID_FOR:
        said.append(f"it is older than {VALID_FOR.total_seconds() / 3600:.0f} hours")
    return said
