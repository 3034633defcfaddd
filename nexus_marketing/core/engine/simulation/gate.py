"""The gate of a simulation: the questions of the real one, in the same order, by the same rules of ``core.pacing``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.deliveries import HoldReason, SkipReason
from nexus_marketing.core.engine.simulation.assumptions import Pacing
from nexus_marketing.core.engine.simulation.people import Person
from nexus_marketing.core.journeys.draws import chance
from nexus_marketing.core.journeys.runs import SendMessage
from nexus_marketing.core.pacing.frequency import Answer, room_for
from nexus_marketing.core.pacing.quiet import QuietHours, quiet_now
from nexus_marketing.core.pacing.zones import zones_of
from nexus_marketing.core.privacy import ConsentState, consent_needed

#: The channel that a file of leads tells the consent of, and that people unsubscribe from by a mail.
EMAIL: Final = "email"
#: Which field a channel needs; others need none.
_ADDRESSES: Final[Mapping[str, str]] = {EMAIL: "email", "sms": "phone"}


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of a run on one channel; ``launch_id`` is the same for all channels of one visit to it."""

    run_id: str
    message: SendMessage
    launch_id: int
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says: neither reason: go."""

    skip: SkipReason | None = None
    hold: HoldReason | None = None
    until: datetime | None = None


GO: Final = Verdict()


@dataclass(slots=True)
class Gate:
    """Who may be written to now. ``asks_consent``: the leads say something about it."""

    pacing: Pacing
    seed: str
    asks_consent: bool = False
    _quiet: dict[tuple[str, str], tuple[QuietHours, ...]] = field(default_factory=dict)

    def ask(self, person: Person, letter: Letter, now: datetime) -> Verdict:
        """Address, suppression, consent, quiet hours, caps."""
        message = letter.message
        wanted = _ADDRESSES.get(message.channel)
        if wanted is not None and not person.record.get(wanted):
            return Verdict(SkipReason.NO_ADDRESS)
        if message.message_class is MessageClass.MARKETING:
            if message.channel in person.unsubscribed:
                return Verdict(SkipReason.SUPPRESSED)
            if self.asks_consent and message.channel == EMAIL and (reason := self._without_consent(person)) is not None:
                return Verdict(reason)
        return self._in_quiet_hours(person, letter, now) or self._capped(person, letter, now) or GO

    def _without_consent(self, person: Person) -> SkipReason | None:
        if person.consent is ConsentState.REVOKED:
            return SkipReason.OBJECTED
        needed = consent_needed(person.record.get("country"), self.pacing.consent)
        return SkipReason.CONSENT_MISSING if needed and person.consent is None else None

    def _in_quiet_hours(self, person: Person, letter: Letter, now: datetime) -> Verdict | None:
        message = letter.message
        rules = self._rules(message) if message.obeys_quiet_hours else ()
        if not rules:
            return None
        record: Mapping[str, Any] = person.record
        places = zones_of(record.get("time_zone"), record.get("country"), self.pacing.zone)
        quiet = quiet_now(rules, places, now)
        if quiet is None:
            return None
        if quiet.until is None:
            return Verdict(SkipReason.QUIET_EXPIRED)
        part = chance(self.seed, "spread", letter.run_id, str(message.visit), message.channel)
        return Verdict(hold=HoldReason.QUIET_HOURS, until=quiet.until + part * quiet.spread)

    def _rules(self, message: SendMessage) -> tuple[QuietHours, ...]:
        key = (message.node, message.channel)
        if key not in self._quiet:
            self._quiet[key] = self.pacing.quiet_hours(message.channel, message.quiet_hours)
        return self._quiet[key]

    def _capped(self, person: Person, letter: Letter, now: datetime) -> Verdict | None:
        is_marketing = letter.message.message_class is MessageClass.MARKETING
        if not (is_marketing and letter.message.obeys_caps and self.pacing.caps and person.uses):
            return None
        others = [use for use in person.uses if use.targeting != letter.launch_id]
        room = room_for(self.pacing.caps, letter.message.channel, others, 0, now, person.facts.zone)
        if room.answer is Answer.SKIP:
            return Verdict(SkipReason.CAP)
        if room.answer is Answer.LATER:
            return Verdict(hold=HoldReason.CAP, until=room.until)
        return None
