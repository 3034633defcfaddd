"""Who of a window may leave now: by the tenant's rates, and by what domains of addresses said of late.

A domain without room keeps only its own messages waiting: they are put aside, everybody else leaves at full speed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from sqlalchemy import Engine

from nexus_marketing.core.contracts import Outcome, OutcomeKind
from nexus_marketing.core.deliveries import DeliveryState, HoldReason
from nexus_marketing.core.pacing.cooling import Cooling
from nexus_marketing.core.pacing.rates import Grant, RateLimit, applying, told_apart, usable_seconds
from nexus_marketing.db.queries.deliveries import Recipient
from nexus_marketing.db.queries.rates import Asker, take_grant
from nexus_marketing.db.queries.settling import Settlement
from nexus_marketing.delivery.patience import Lane, Patience

_AHEAD_SECONDS: Final = 0.5
#: What says how a domain takes messages; what is not among them says nothing of it.
_ANSWERS = {
    OutcomeKind.ACCEPTED: False,
    OutcomeKind.TRANSIENT: False,
    OutcomeKind.PERMANENT_RECIPIENT: False,
    OutcomeKind.THROTTLED: True,
}


class Candidate(NamedTuple):
    """A recipient, and the domain that stands for all that fall under the same limits; nothing where none does."""

    row: Recipient
    group: str | None


class Admitted(NamedTuple):
    """Of the first ``looked`` rows those that may leave, those that come again at their time, and those without room."""

    looked: int
    leaving: Sequence[Recipient]
    waiting: Sequence[Settlement] = ()
    aside: Sequence[Candidate] = ()
    #: Where none was looked at: it is the send's own rate that is used up, not one that it shares.
    is_own: bool = False


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
        limits = [*self._applying, *self.own_rates]
        return int(min(_AHEAD_SECONDS, usable_seconds(limits)) * pace) if limits else 0

    def admit(self, rows: Sequence[Recipient], most: int, ask: Callable[[Callable[[], Grant]], Grant]) -> Admitted:
        """Split the rows that come next.

        Args:
            rows: open recipients in order.
            most: of them that may leave now.
            ask: runs what commits, and again where the database restarts.
        """
        if not (self._applying or self.own_rates):
            rows = rows[:most]
            slow = self._slow(rows)
            leaving = [row for row in rows if row.seq not in slow] if slow else rows
            return Admitted(len(rows), leaving, list(slow.values()))
        candidates, aside = self._candidates(rows, most)
        slow = self._slow([row for row, _ in candidates])
        ready = [each for each in candidates if each.row.seq not in slow] if slow else candidates
        looked = len(candidates) + len(aside)
        if not ready:
            return Admitted(looked, [row for row, _ in ready], list(slow.values()), aside)
        wanted = [group for _, group in ready]
        found = ask(lambda: take_grant(self.engine, self.asker, self.rates, wanted, self.own_rates))
        self.patience.learn(self.asker, found.full, self.monotonic())
        if not found.looked:
            return Admitted(0, (), is_own=found.is_own)
        leaving = [row for position, (row, _) in enumerate(ready[: found.looked]) if position not in found.waiting]
        aside += [ready[position] for position in found.waiting]
        if found.looked == len(ready):
            return Admitted(looked, leaving, list(slow.values()), aside)
        end = ready[found.looked].row.seq
        aside = [each for each in aside if each.row.seq < end]
        waiting = [each for seq, each in slow.items() if seq < end]
        return Admitted(len(leaving) + len(aside) + len(waiting), leaving, waiting, aside)

    def _candidates(self, rows: Sequence[Recipient], most: int) -> tuple[list[Candidate], list[Candidate]]:
        """The next who may find room, and before the last of them those of domains that are known to have none."""
        groups = self._groups
        if not groups:
            return [Candidate(row, None) for row in rows[:most]], []
        full = self.patience.full_groups(self.asker, self.rates, frozenset(groups.values()), self.monotonic())
        candidates: list[Candidate] = []
        aside: list[Candidate] = []
        for row in rows:
            found = Candidate(row, groups.get(domain_of(row)))
            if found.group in full:
                aside.append(found)
            elif len(candidates) < most:
                candidates.append(found)
            else:
                break
        return candidates, aside

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
    def _applying(self) -> list[RateLimit]:
        return applying(self.rates, self.asker.sender, self.asker.account)

    @property
    def _groups(self) -> Mapping[str, str]:
        """Told apart by the limits of all accounts, whichever carries them: who waits for one may leave by another."""
        if not self.by_domain:
            return {}
        return told_apart(tuple(each for each in self.rates if each.sender in (None, self.asker.sender)))

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

    def _later(self, row: Recipient, reason: HoldReason, seconds: float) -> Settlement:
        # A message that may have left already stays marked: it is repeated once, whatever it waits for.
        code = None if row.mark is None else self.via
        return Settlement(
            row.seq, DeliveryState.PLANNED, row.mark or reason, code, row.attempts, due_in_seconds=seconds
        )


def domain_of(row: Recipient) -> str:
    """Of the address as it is compared."""
    return (row.address_norm or "").rpartition("@")[2]
