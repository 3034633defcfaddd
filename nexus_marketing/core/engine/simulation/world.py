"""The virtual world of a simulation: a queue of moments, and people who answer at stated rates.

Every draw is a hash of the seed and of what it is about: the same seed gives the same numbers, and a lead that is taken out
changes nothing for the others.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.conditions import Dependencies
from nexus_marketing.core.deliveries import HoldReason, SkipReason
from nexus_marketing.core.engine.journey_entry import Refusal, triggers_for
from nexus_marketing.core.engine.journeys import decide, is_wanted
from nexus_marketing.core.engine.simulation.assumptions import Assumptions, Pacing
from nexus_marketing.core.engine.simulation.caveats import caveats_of
from nexus_marketing.core.engine.simulation.entrance import Entrance
from nexus_marketing.core.engine.simulation.gate import EMAIL, Gate, Letter
from nexus_marketing.core.engine.simulation.people import Person
from nexus_marketing.core.engine.simulation.report import Period, Report, Tally
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.journeys.anniversaries import next_occurrence
from nexus_marketing.core.journeys.draws import chance
from nexus_marketing.core.journeys.model import Journey, Trigger, TriggerKind
from nexus_marketing.core.journeys.nodes import CALL, Outcome
from nexus_marketing.core.journeys.runs import (
    AddPoints,
    Answered,
    AskApproval,
    CallUrl,
    CancelMessages,
    Changed,
    Effect,
    Happened,
    Occurrence,
    PutInSegment,
    Reported,
    RunDecision,
    SendMessage,
    SetFields,
    TakeAction,
    Woken,
)
from nexus_marketing.core.pacing.frequency import Use
from nexus_marketing.core.pacing.recurrence import read_recurrence

#: How long people take, on average, and at most.
_OPENS_AFTER: Final = timedelta(hours=4)
_CLICKS_AFTER: Final = timedelta(minutes=1)
_ACTS_AFTER: Final = timedelta(days=1)
_ANSWERS_AFTER: Final = timedelta(hours=4)
_LONGEST: Final = timedelta(days=7)

Work = Callable[..., None]
#: Steps that a journey may take: at all, for each lead, and for each lead and day.
_MOST_STEPS: Final = (1_000_000, 200, 20)


class World:
    """People in a journey, from a moment on for some days."""

    def __init__(
        self, journey: Journey, period: Period, pacing: Pacing, assumptions: Assumptions, seed: str = "0"
    ) -> None:
        self.journey, self.period, self.assumptions, self.seed = journey, period, assumptions, seed
        self.gate = Gate(pacing, seed)
        self.tally = Tally(period.zone)
        self.now, self._end = period.start, period.end
        self._queue: list[tuple[datetime, int, Work, tuple[Any, ...]]] = []
        self._numbers = count(1)
        self._people: list[Person] = []
        self._entrance = Entrance(journey)
        self._steps_left = 0
        self._reads_state = self.journey.reads != Dependencies(events=self.journey.reads.events)

    def run(self, people: Iterable[Person], on_day: Callable[[int], None] | None = None) -> Report:
        """Let everybody in at the start, and go on until the end.

        Args:
            people: the leads.
            on_day: told how many days have passed, for whoever waits.

        Raises:
            ValidationError: the journey goes round in circles of minutes, and would not come to an end.
        """
        self._people = list(people)
        once, for_each, for_each_day = _MOST_STEPS
        self._steps_left = once + len(self._people) * (for_each + for_each_day * self.period.days)
        self.gate.asks_consent = any(person.consent is not None for person in self._people)
        self._open()
        passed = 0
        while self._queue:
            self.now, _, work, arguments = heappop(self._queue)
            if on_day is not None and (self.now - self.period.start).days > passed:
                passed = (self.now - self.period.start).days
                on_day(passed)
            work(*arguments)
        return self._report()

    def _report(self) -> Report:
        left = tuple(run for person in self._people for run in person.runs.values() if run.is_live)
        warnings = caveats_of(self.journey, self.assumptions, asks_consent=self.gate.asks_consent)
        return Report(
            self.journey,
            self.period,
            self.assumptions,
            self.seed,
            len(self._people),
            self.tally,
            left,
            warnings,
        )

    def _later(self, at: datetime, work: Work, *arguments: Any) -> None:
        if at < self._end:
            heappush(self._queue, (at, next(self._numbers), work, arguments))

    def _open(self) -> None:
        """Everybody comes at the start, or with a date or a round of a schedule, and then with each that follows."""
        triggers, before = self.journey.entry.triggers, self.now - timedelta.resolution
        for trigger in triggers:
            if trigger.on is TriggerKind.DATE:
                for person in self._people:
                    self._expect(person, trigger, before)
            elif trigger.on is TriggerKind.SCHEDULE:
                self._expect_round(trigger, before, 0)
        if triggers[0].on not in (TriggerKind.DATE, TriggerKind.SCHEDULE):
            for person in self._people:
                self._later(self.now, self._enter, person, triggers[0], {}, self.now)

    def _expect(self, person: Person, trigger: Trigger, after: datetime) -> None:
        found = next_occurrence(trigger, person.record, person.facts.zone, after)
        if found is not None:
            self._later(found.at, self._come_by_date, person, trigger, after)

    def _come_by_date(self, person: Person, trigger: Trigger, after: datetime) -> None:
        """The date has come, unless it moved meanwhile."""
        found = next_occurrence(trigger, person.record, person.facts.zone, after)
        if found is not None and found.at <= self.now:
            self._enter(person, trigger, found.event(trigger), self.now)
        self._expect(person, trigger, self.now)

    def _expect_round(self, trigger: Trigger, after: datetime, rounds: int) -> None:
        at = read_recurrence(trigger.recurrence or {}, self.period.zone.key).next_after(after, rounds)
        if at is not None:
            self._later(at, self._come_by_round, trigger, rounds + 1)

    def _come_by_round(self, trigger: Trigger, rounds: int) -> None:
        for person in self._people:  # behind what is due at the same moment, as a worker lets them in
            self._later(self.now, self._enter, person, trigger, {}, self.now)
        self._expect_round(trigger, self.now, rounds)

    def _enter(self, person: Person, trigger: Trigger, event: Mapping[str, Any], at: datetime) -> None:
        found = self._entrance.decide(person, trigger, event, at)
        if isinstance(found, Refusal):
            self.tally.refused[str(found)] += 1
            return
        self.tally.entered += 1
        for decision in found.replaced:
            self._apply(person, decision, person.runs[decision.run.id].wait_token)
        person.runs[found.run.id] = found.run
        self._later(at, self._wake, person, found.run.id, found.run.wait_token)

    def _wake(self, person: Person, run_id: str, token: int) -> None:
        self._decide(person, run_id, Woken(token))

    def _decide(self, person: Person, run_id: str, occurrence: Occurrence) -> None:
        """Ask the engine, as a shell does, and do what it says."""
        run = person.runs[run_id]
        self._steps_left -= 1
        if self._steps_left < 0:
            said = f"After {self.now.isoformat()} runs still go round here: put a longer delay into the circle."
            raise ValidationError.at(f"nodes.{run.node}", "endless", said)
        decision = decide(self.journey, run, person.facts, occurrence, self.now)
        if not decision.is_ignored:
            self._apply(person, decision, run.wait_token)

    def _apply(self, person: Person, decision: RunDecision, token_before: int) -> None:
        run = decision.run
        person.runs[run.id] = run
        for line in decision.history:
            self.tally.line(line)
        if decision.timer is not None and run.wait_token != token_before:
            self._later(decision.timer[0], self._wake, person, run.id, run.wait_token)
        for effect in decision.effects:
            self._do(person, run.id, effect)

    def _do(self, person: Person, run_id: str, effect: Effect) -> None:
        match effect:
            case SendMessage():
                letter = Letter(run_id, effect, self._launch(person, run_id, effect.visit), self.now)
                self._later(self.now, self._hand_over, person, letter)
            case CancelMessages():
                pass  # the gate asks whether a message is still wanted
            case AskApproval():
                approved = self._chance(run_id, "approval", str(effect.token)) < self.assumptions.approvals
                self._later(self.now + _ANSWERS_AFTER, self._decide, person, run_id, Answered(effect.token, approved))
            case SetFields() | PutInSegment() | AddPoints():
                self._change(person, effect)
            case CallUrl():
                self.tally.effects["webhook"] += 1
                drawn = self._chance(run_id, "call", str(effect.visit))
                outcome = Outcome.FAILED if drawn < self.assumptions.failures else Outcome.SENT
                self._later(self.now, self._decide, person, run_id, Reported(effect.visit, CALL, outcome))
            case TakeAction():
                self.tally.effects[f"action {effect.action}"] += 1

    def _launch(self, person: Person, run_id: str, visit: int) -> int:
        """The same number for all channels of a message, another for each message of a lead."""
        return (person.runs[run_id].sequence << 32) + visit

    def _change(self, person: Person, effect: SetFields | PutInSegment | AddPoints) -> None:
        record = person.record
        match effect:
            case SetFields():
                for name, value in effect.values.items():
                    _put(record, name, value)
            case PutInSegment():
                (record["segments"].add if effect.is_member else record["segments"].discard)(effect.segment)
            case AddPoints():
                record["scores"][effect.score] = record["scores"].get(effect.score, 0) + effect.points
                if effect.score == "score":
                    record["score"] = record.get("score", 0) + effect.points
        if self._reads_state:
            for run_id in list(person.runs):
                self._decide(person, run_id, Changed(self.now))

    def _hand_over(self, person: Person, letter: Letter, held: frozenset[HoldReason] = frozenset()) -> None:
        """The gate, and then the channel."""
        message, run = letter.message, person.runs[letter.run_id]
        if not is_wanted(self.journey, run, person.facts, message.visit, message.channel, self.now):
            self._skip(person, letter, SkipReason.CANCELLED)
            return
        verdict = self.gate.ask(person, letter, self.now)
        if verdict.skip is not None:
            self._skip(person, letter, verdict.skip)
        elif verdict.hold is not None and verdict.until is not None:
            if verdict.hold not in held:
                name = "quiet_held" if verdict.hold is HoldReason.QUIET_HOURS else "cap_held"
                self.tally.day(self.now, name)
                self.tally.nodes[message.node][name] += 1
            self._later(verdict.until, self._hand_over, person, letter, held | {verdict.hold})
        else:
            self._send(person, letter)

    def _skip(self, person: Person, letter: Letter, reason: SkipReason) -> None:
        names = {SkipReason.CAP: "cap_skipped", SkipReason.QUIET_EXPIRED: "quiet_skipped"}
        self.tally.day(self.now, names.get(reason, "skipped"))
        self.tally.skips[str(reason)] += 1
        self.tally.nodes[letter.message.node]["skipped"] += 1
        self._tell(person, letter, Outcome.SKIPPED, str(reason))

    def _tell(self, person: Person, letter: Letter, outcome: Outcome, reason: str | None = None) -> None:
        message = letter.message
        self._decide(person, letter.run_id, Reported(message.visit, message.channel, outcome, reason))

    def _send(self, person: Person, letter: Letter) -> None:
        message = letter.message
        if self._drawn(letter, "failure") < self.assumptions.failures:
            self.tally.day(self.now, "failed")
            self.tally.nodes[message.node]["failed"] += 1
            self._tell(person, letter, Outcome.FAILED, "permanent_recipient")
            return
        self.tally.sent(self.now, message.channel, message.node)
        if message.counts_toward_caps and message.message_class is MessageClass.MARKETING:
            person.uses.append(Use(self.now, message.channel, letter.launch_id))
        self._answer(person, letter)
        self._tell(person, letter, Outcome.SENT)

    def _answer(self, person: Person, letter: Letter) -> None:
        """What the lead will do because of a message."""
        rates = self.assumptions
        if letter.message.channel == EMAIL:
            interest = self._drawn(letter, "interest")
            opened_at = self._after(letter, "opens", _OPENS_AFTER)
            if interest < max(rates.opens, rates.clicks):
                self._later(opened_at, self._happen, person, letter, "email_opened")
            if interest < rates.clicks:
                self._later(opened_at + _CLICKS_AFTER, self._happen, person, letter, "email_clicked")
            if self._drawn(letter, "unsubscribe") < rates.unsubscribes:
                self._later(opened_at, self._unsubscribe, person, letter)
        for name, share in rates.events.items():
            if self._drawn(letter, name) < share:
                self._later(self._after(letter, f"{name} after", _ACTS_AFTER), self._happen, person, letter, name)

    def _unsubscribe(self, person: Person, letter: Letter) -> None:
        person.unsubscribed.add(EMAIL)
        person.record["consents"][EMAIL, "marketing"] = (False, None)
        self._happen(person, letter, "unsubscribed")

    def _happen(self, person: Person, letter: Letter, name: str) -> None:
        event = {
            "id": next(self._numbers),
            "type": name,
            "verdict": "human",
            "tracked_at": self.now,
            "channel": letter.message.channel,
            "metadata": {"run": letter.run_id, "node": letter.message.node},
        }
        person.record["events"].append(event)
        counted = {"email_opened": "opened", "email_clicked": "clicked"}.get(name)
        if counted is not None:
            self.tally.nodes[letter.message.node][counted] += 1
        # Told a moment later: what brings a run in is nothing that happens to it.
        trigger = next(triggers_for(self.journey, TriggerKind.EVENT, name, event, self.now, self.period.zone.key), None)
        if trigger is not None:
            self._enter(person, trigger, event, self.now + timedelta.resolution)
        if name in self.journey.listens or (name == "unsubscribed" and self.journey.reads.consents):
            for run_id in list(person.runs):
                self._decide(person, run_id, Happened(event, self.now))

    def _chance(self, *about: str) -> float:
        return chance(self.seed, *about)

    def _drawn(self, letter: Letter, what: str) -> float:
        return chance(self.seed, what, letter.run_id, str(letter.message.visit), letter.message.channel)

    def _after(self, letter: Letter, what: str, mean: timedelta) -> datetime:
        """Waiting times as of people: many short ones, some long ones (exponential)."""
        return self.now + min(-math.log(1 - self._drawn(letter, what)) * mean, _LONGEST)


def _put(record: dict[str, Any], name: str, value: Any) -> None:
    """Set a field, or a key of the metadata."""
    keys = name.removeprefix("lead.").split(".")
    if len(keys) > 1:
        record[keys[0]] = {**(record.get(keys[0]) or {}), ".".join(keys[1:]): value}
    else:
        record[name] = value
