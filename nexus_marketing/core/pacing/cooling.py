"""Domains that ask for patience: slowed down alone, then tried with a few messages (BEHAVIOUR.md 5.2, Circuit breakers).

A mailbox provider that answers 421 or 4.7.x to some of the last messages gets none for a while, longer each time, and then a few
more with each round that it takes. The ramp is that of TCP's slow start (RFC 5681): doubled while all is well, back to the
beginning when it is not.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

#: So many of the last answers of a domain are remembered, and at so many refusals among them it is left alone.
LOOKED_AT: Final = 10
TOO_MANY: Final = 3
FIRST_PAUSE_SECONDS: Final = 30.0
LONGEST_PAUSE_SECONDS: Final = 900.0
#: How many messages a domain gets after a pause, before its answers are known.
TRIAL: Final = 5
#: A domain that took so many in a round is as good as any other.
_RECOVERED: Final = 640
#: While answers to a round are awaited; those that did not come by then never will: its messages did not leave.
_ANSWERS_SECONDS: Final = 2.0
_ROUND_SECONDS: Final = 60.0
_MAX_DOMAINS: Final = 10_000


@dataclass(slots=True)
class _Domain:
    last: deque[bool] = field(default_factory=lambda: deque(maxlen=LOOKED_AT))
    pause_seconds: float = 0.0
    until: float = float("-inf")
    #: Messages of a round, how many of them are yet to leave, and how many were taken.
    round: int = 0
    left: int = 0
    taken: int = 0
    last_left: float = float("-inf")


@dataclass(slots=True)
class Cooling:
    """What one worker learns of the domains that it sends to; moments are seconds of one monotonic clock."""

    _domains: "OrderedDict[str, _Domain]" = field(default_factory=OrderedDict)

    @property
    def is_idle(self) -> bool:
        """Whether no domain was ever slow, so that nobody need be asked about."""
        return not self._domains

    @property
    def slow(self) -> int:
        """How many domains are left alone or on trial."""
        return sum(1 for each in self._domains.values() if each.round)

    def wait(self, domain: str, now: float) -> float:
        """Seconds until a message to this domain may leave; at 0 it leaves now and is counted."""
        found = self._domains.get(domain)
        if found is None or not found.round:
            return 0.0
        if now < found.until:
            return found.until - now
        if not found.left:
            if now < found.last_left + _ROUND_SECONDS:
                return _ANSWERS_SECONDS
            found.left, found.taken = found.round, 0
        found.left -= 1
        found.last_left = now
        return 0.0

    def saw(self, domain: str, now: float, *, throttled: bool, retry_after_seconds: float = 0.0) -> None:
        """One answer of a domain; of those that were never slow only refusals are remembered."""
        found = self._domains.get(domain)
        if found is None:
            if not throttled:
                return
            found = self._domains[domain] = _Domain()
            if len(self._domains) > _MAX_DOMAINS:
                self._domains.popitem(last=False)
        found.last.append(throttled)
        if throttled:
            self._refused(found, now, retry_after_seconds)
        elif found.round:
            self._took(domain, found, now)
        elif not any(found.last):
            del self._domains[domain]

    def _refused(self, found: _Domain, now: float, retry_after_seconds: float) -> None:
        on_trial = found.round and now >= found.until
        if not on_trial and (found.round or sum(found.last) < TOO_MANY):
            return  # what was on the wire when the pause began tells nothing new
        found.pause_seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, found.pause_seconds * 2))
        found.until = now + max(found.pause_seconds, retry_after_seconds)
        found.round = found.left = TRIAL
        found.taken = 0

    def _took(self, domain: str, found: _Domain, now: float) -> None:
        if now < found.until:
            return
        found.taken += 1
        if found.taken < found.round:
            return
        if found.round >= _RECOVERED:
            del self._domains[domain]
            return
        found.round *= 2
        found.left, found.taken = found.round, 0
