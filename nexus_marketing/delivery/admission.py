"""Who of a window may leave now: by the tenant's rates, and by what domains of addresses said of late.

A domain without room keeps only its own messages waiting: they go to the retry lane, everybody else leaves at full speed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from sqlalchemy import Engine

from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState, HoldReason
from nexus_marketing.core.pacing.cooling import Cooling
from nexus_marketing.core.pacing.rates import Grant, RateLimit, Waiting, applying, told_apart, usable_seconds
from nexus_marketing.db.queries.deliveries import Recipient, Settlement
from nexus_marketing.db.queries.rates import Asker, take_grant

#: Nobody waits longer before being looked at again: somebody may have raised the rate.
_LONGEST_SECONDS = 900.0
_AHEAD_SECONDS = 0.5
#: What says how a domain takes messages; what is not among them says nothing of it.
_ANSWERS = {
    OutcomeKind.ACCEPTED: False,
    OutcomeKind.TRANSIENT: False,
    OutcomeKind.PERMANENT_RECIPIENT: False,
    OutcomeKind.THROTTLED: True,
}
Lane = tuple[int, str]


class Admitted(NamedTuple):
    """Of the first ``looked`` rows those that may leave, and those that wait; where none was looked at, for how long."""

    looked: int
    leaving: Sequence[Recipient]
    waiting: Sequence[Settlement] = ()
    retry_after_seconds: float = 0.0
    #: It is the send's own rate that is used up, not one that it shares.
    is_own: bool = False


@dataclass(slots=True)
class Patience:
    """What a worker remembers from chunk to chunk: slow domains, and up to when places of a limit are spoken for."""

    cooling: dict[Lane, Cooling] = field(default_factory=dict)
    _spoken_for: dict[tuple[Lane, RateLimit], float] = field(default_factory=dict)

    def place(self, lane: Lane, found: Waiting, spacing_seconds: float, now: float) -> float:
        """Seconds until a message that finds no room may try again: one after the other, not all at once."""
        key = (lane, found.limit)
        at = max(now + found.wait.total_seconds(), self._spoken_for.get(key, now))
        if at - now > _LONGEST_SECONDS:
            return _LONGEST_SECONDS
        self._spoken_for[key] = at + spacing_seconds
        return at - now


@dataclass(frozen=True, slots=True)
class Admission:
    """The question that one chunk asks before each window."""

    engine: Engine
    asker: Asker
    rates: Sequence[RateLimit]
    #: Whether addresses have domains.
    by_domain: bool
    patience: Patience
    monotonic: Callable[[], float]
    rng: Random
    #: Stays beside recipients whose message may have left by the account already.
    via: str | None = None
    #: Those of the send alone.
    own_rates: Sequence[RateLimit] = ()

    def ahead(self, pace: float) -> int:
        """How many messages may be asked for at once, at so many a second: what is granted has to leave soon."""
        limits = [*applying(self.rates, self.asker.sender, self.asker.account), *self.own_rates]
        return int(min(_AHEAD_SECONDS, usable_seconds(limits)) * pace) if limits else 0

    def admit(self, rows: Sequence[Recipient], ask: Callable[[Callable[[], Grant]], Grant]) -> Admitted:
        """Split the rows that come next.

        Args:
            rows: open recipients in order.
            ask: runs what commits, and again where the database restarts.
        """
        slow = self._slow(rows)
        ready = [row for row in rows if row.seq not in slow] if slow else rows
        own = applying(self.rates, self.asker.sender, self.asker.account)
        if not (own or self.own_rates) or not ready:
            return Admitted(len(rows), ready, list(slow.values()))
        groups = told_apart(tuple(own)) if self.by_domain else {}
        wanted = [groups.get(domain_of(row)) if groups else None for row in ready]
        found = ask(lambda: take_grant(self.engine, self.asker, self.rates, wanted, self.own_rates))
        if not found.looked:
            return Admitted(0, (), (), found.retry_after.total_seconds(), found.is_own)
        return self._split(rows, ready, slow, found)

    def heard(self, row: Recipient, outcome: Outcome) -> None:
        """Learn from an answer how the domain takes messages."""
        throttled = _ANSWERS.get(outcome.kind)
        if throttled is None or not self.by_domain:
            return
        lane = self._lane
        cooling = self.patience.cooling.get(lane)
        if cooling is None:
            if not throttled:
                return
            cooling = self.patience.cooling[lane] = Cooling()
        wait = outcome.retry_after_seconds or 0.0
        cooling.saw(domain_of(row), self.monotonic(), throttled=throttled, retry_after_seconds=wait)
        if cooling.is_idle:
            del self.patience.cooling[lane]

    @property
    def _lane(self) -> Lane:
        return self.asker.tenant_id, self.asker.channel

    def _slow(self, rows: Sequence[Recipient]) -> dict[int, Settlement]:
        cooling = self.patience.cooling.get(self._lane)
        if cooling is None:
            return {}
        now, found = self.monotonic(), {}
        for row in rows:
            wait = cooling.wait(domain_of(row), now)
            if wait:
                found[row.seq] = self._later(row, HoldReason.THROTTLED, wait * self.rng.uniform(1.0, 1.5))
        return found

    def _split(
        self, rows: Sequence[Recipient], ready: Sequence[Recipient], slow: dict[int, Settlement], found: Grant
    ) -> Admitted:
        leaving = [row for position, row in enumerate(ready[: found.looked]) if position not in found.waiting]
        now = self.monotonic()
        waiting = [
            self._later(ready[position], HoldReason.RATE, self._place(each, now))
            for position, each in found.waiting.items()
        ]
        if found.looked == len(ready):
            return Admitted(len(rows), leaving, [*slow.values(), *waiting])
        first_left = ready[found.looked].seq
        looked = [row for row in rows if row.seq < first_left]
        return Admitted(len(looked), leaving, [*(slow[row.seq] for row in looked if row.seq in slow), *waiting])

    def _later(self, row: Recipient, reason: HoldReason, seconds: float) -> Settlement:
        # A message that may have left already stays marked: it is repeated once, whatever it waits for.
        code = None if row.mark is None else self.via
        return Settlement(
            row.seq, DeliveryState.PLANNED, row.mark or reason, code, row.attempts, due_in_seconds=seconds
        )

    def _place(self, found: Waiting, now: float) -> float:
        most = found.limit.most(is_marketing=self.asker.is_marketing)
        return self.patience.place(self._lane, found, found.limit.per.total_seconds() / most, now)


def domain_of(row: Recipient) -> str:
    """Of the address as it is compared."""
    return (row.address_norm or "").rpartition("@")[2]
