"""What keeps a message back that may be sent: quiet hours, frequency caps, and others that go first (BEHAVIOUR.md 5.1).

A recipient who must wait goes back into the retry lane until then and passes the whole gate again; one who must not get the
message at all is settled with the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from nexus_marketing.core.deliveries import DeliveryState, HoldReason, SkipReason
from nexus_marketing.core.pacing.frequency import Answer, Cap, OnCap, Rank, Room, Use, room_for
from nexus_marketing.core.pacing.quiet import Quiet, QuietHours, quiet_now
from nexus_marketing.core.pacing.zones import zone_of, zones_of
from nexus_marketing.db.queries.caps import Targeting, lock_caps, occurrences_of, other_targetings
from nexus_marketing.db.queries.deliveries import Recipient
from nexus_marketing.db.queries.settling import Settlement

#: How soon somebody is looked at again whom another send goes before.
_OUTRANKED_SECONDS = 60.0
_EVER = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a tenant asks for and what the send says of itself, at the moment of one claim."""

    quiet_hours: Sequence[QuietHours]
    caps: Sequence[Cap]
    #: Nobody gets it before the own clock shows this; without a zone.
    local_start: datetime | None
    default_zone: ZoneInfo
    channel: str
    rank: Rank
    #: Its other channels are the same message to the lead; of a journey's message they are for each visit.
    launch_id: int
    is_of_journey: bool
    now: datetime
    rng: Random

    def decide(self, session: Session, rows: Sequence[Recipient]) -> list[Settlement]:
        """Those of the recipients that wait or are left out; takes the tenant's lock where there are caps."""
        held = self._before_start(rows)
        held |= self._in_quiet_hours([row for row in rows if row.seq not in held])
        if self.caps:
            held |= self._capped(session, [row for row in rows if row.seq not in held])
        return list(held.values())

    def trace(self, session: Session, row: Recipient) -> list[tuple[str, Settlement | None, datetime | None]]:
        """Each question, what it says of one recipient, and when it will say so no more."""
        found = [
            ("local_start", self._before_start([row]).get(row.seq)),
            ("quiet_hours", self._in_quiet_hours([row]).get(row.seq)),
            ("caps", self._capped(session, [row]).get(row.seq) if self.caps else None),
        ]
        # Who is left out because of a cap may be written to again when there is room.
        patient = replace(self, caps=[replace(cap, on_cap=OnCap.DEFER, defer_max=_EVER) for cap in self.caps])
        room = patient._capped(session, [row]).get(row.seq) if self.caps else None  # noqa: SLF001 - of this class
        return [
            (name, held, self._until(room if name == "caps" and held is not None else held)) for name, held in found
        ]

    def _until(self, held: Settlement | None) -> datetime | None:
        if held is None or held.due_in_seconds is None:
            return None
        return self.now + timedelta(seconds=held.due_in_seconds)

    def _before_start(self, rows: Sequence[Recipient]) -> dict[int, Settlement]:
        if self.local_start is None:
            return {}
        begins: dict[ZoneInfo, datetime] = {}
        held = {}
        for row in rows:
            zone = zone_of(row.time_zone, self.default_zone)
            if zone not in begins:
                # An hour that the clock leaves out begins when it goes on; of one that comes twice it is the first.
                begins[zone] = self.local_start.replace(tzinfo=zone).astimezone(UTC)
            if begins[zone] > self.now:
                held[row.seq] = self._later(row, HoldReason.LOCAL_START, begins[zone])
        return held

    def _in_quiet_hours(self, rows: Sequence[Recipient]) -> dict[int, Settlement]:
        if not self.quiet_hours:
            return {}
        known: dict[tuple[str | None, str | None], Quiet | None] = {}
        held = {}
        for row in rows:
            place = (row.time_zone, row.country)
            if place not in known:
                known[place] = quiet_now(self.quiet_hours, zones_of(*place, self.default_zone), self.now)
            quiet = known[place]
            if quiet is not None:
                held[row.seq] = self._quiet(row, quiet)
        return held

    def _quiet(self, row: Recipient, quiet: Quiet) -> Settlement:
        if quiet.until is None:
            return Settlement(row.seq, DeliveryState.SKIPPED, SkipReason.QUIET_EXPIRED, attempts=row.attempts)
        later = self.rng.uniform(0.0, quiet.spread.total_seconds())
        return self._later(row, HoldReason.QUIET_HOURS, quiet.until + timedelta(seconds=later))

    def _capped(self, session: Session, rows: Sequence[Recipient]) -> dict[int, Settlement]:
        lock_caps(session)
        oldest = self.now - max(cap.reach for cap in self.caps)
        others = other_targetings(session, self.launch_id, [row.lead_id for row in rows], oldest)
        if not others:
            return {}
        visits = self._visits(session, rows)
        held: dict[int, Settlement] = {}
        passed: set[int] = set()
        for row in rows:
            found = [each for each in others.get(row.lead_id, ()) if self._is_other(each, row, visits, passed)]
            if found and (settlement := self._verdict(row, found)) is not None:
                held[row.seq] = settlement
            else:
                passed.add(row.seq)
        return held

    def _visits(self, session: Session, rows: Sequence[Recipient]) -> dict[int, int]:
        return occurrences_of(session, self.rank.send_id, [row.seq for row in rows]) if self.is_of_journey else {}

    def _is_other(self, each: Targeting, row: Recipient, visits: Mapping[int, int], passed: AbstractSet[int]) -> bool:
        """Whether it is another targeting of the lead than the one in question; of those decided on here, who passed."""
        if each.key == (self.launch_id, visits.get(row.seq)):
            return False
        return each.rank.send_id != self.rank.send_id or each.seq not in visits or each.seq in passed

    def _verdict(self, row: Recipient, others: Iterable[Targeting]) -> Settlement | None:
        uses: list[Use] = []
        better: dict[tuple[int, int], Rank] = {}
        for each in others:
            if each.left_at is not None or each.is_leaving:
                uses.append(Use(each.left_at or self.now, each.channel, each.key))
            elif each.rank.order < self.rank.order:
                better[each.key] = min(each.rank, better.get(each.key, each.rank), key=_order)
        uses.sort(key=lambda use: use.at)
        zone = zone_of(row.time_zone, self.default_zone)
        room = room_for(self.caps, self.channel, uses, len(better), self.now, zone)
        if room.answer is Answer.OUTRANKED:
            first = min(better.values(), key=_order)
            seconds = _OUTRANKED_SECONDS * self.rng.uniform(1.0, 1.5)
            return self._later(
                row, HoldReason.OUTRANKED, self.now + timedelta(seconds=seconds), f"send {first.send_id}"
            )
        return self._full(row, room)

    def _full(self, row: Recipient, room: Room) -> Settlement | None:
        if room.answer is Answer.SKIP:
            return Settlement(row.seq, DeliveryState.SKIPPED, SkipReason.CAP, attempts=row.attempts)
        if room.answer is Answer.LATER and room.until is not None:
            return self._later(row, HoldReason.CAP, room.until)
        return None

    def _later(self, row: Recipient, reason: HoldReason, at: datetime, code: str | None = None) -> Settlement:
        seconds = max(0.0, (at - self.now).total_seconds())
        return Settlement(row.seq, DeliveryState.PLANNED, reason, code, row.attempts, due_in_seconds=seconds)


def _order(rank: Rank) -> tuple[int, int]:
    return rank.order
