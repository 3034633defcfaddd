"""A journey twice: on the simulator's virtual clock, and for real, where the clock goes from one due moment to the next."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.contracts import AddressKind
from nexus_marketing.core.engine.journey_reading import read_journey
from nexus_marketing.core.engine.simulation import Assumptions, Pacing, Person, World, person_of
from nexus_marketing.core.engine.simulation.report import Period
from nexus_marketing.core.journeys.model import TriggerKind
from nexus_marketing.db.models import ChannelAccount, Delivery, JourneyArrival, JourneyRun, Send, Timer
from nexus_marketing.db.types import from_text, to_text
from nexus_marketing.delivery.completion import open_retries
from nexus_marketing.delivery.sending import Sender
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.services.engagements import write_engagements
from nexus_marketing.services.journeys.entries import enter_leads
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.journeys.rows import journey_version
from nexus_marketing.services.journeys.runs import tell_runs
from nexus_marketing.services.journeys.wanted import unwanted_messages
from nexus_marketing.services.privacy import record_consent, unsubscribe
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common import servers
from tests.common.databases import sqlite_runtime
from tests.common.factories import make_leads, make_segment, make_tenant

CHANNELS = {"email": AddressKind.EMAIL, "sms": AddressKind.PHONE, "push": AddressKind.NONE}
_SENDER = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}
_CONTENT = {"subject": "Hello", "text": "Hello {{ unsubscribe_url }} {{ postal_address }}"}
_EVER = "9999"
#: What came out: who got which message by which channel and when; who was left out and why; how runs ended; who did not come in.
Sent = dict[tuple[str, str, str], list[datetime]]


@dataclass(frozen=True, slots=True)
class Play:
    """What is tried: a journey, a tenant's rules, its leads with their ``consent``, from when, how long, and how people answer."""

    document: Mapping[str, Any]
    settings: Mapping[str, Any]
    leads: Sequence[Mapping[str, Any]]
    start: datetime
    days: int
    rates: Assumptions
    seed: str = "0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of everybody."""

    sent: Sent
    skipped: Counter[str]
    ends: Counter[str]
    refused: Counter[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody does something because of a message: the ``nth`` by this channel of this node."""

    at: datetime
    person: str
    name: str
    node: str
    channel: str
    nth: int


class Watched(World):
    """A simulation that remembers who was written to, and who did what because of it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent: Sent = {}
        self.answers: list[Answer] = []
        self._nth: dict[tuple[str, int, str], int] = {}

    def _send(self, person: Person, letter: Any) -> None:
        message = letter.message
        times = self.sent.setdefault((person.id, message.node, message.channel), [])
        times.append(self.now)
        self._nth[letter.run_id, message.visit, message.channel] = len(times)
        super()._send(person, letter)

    def _happen(self, person: Person, letter: Any, name: str) -> None:
        message = letter.message
        nth = self._nth[letter.run_id, message.visit, message.channel]
        self.answers.append(Answer(self.now, person.id, name, message.node, message.channel, nth))
        super()._happen(person, letter, name)

    @property
    def outcome(self) -> Outcome:
        runs = [run for person in self._people for run in person.runs.values()]
        ends = Counter(f"{run.state}:{run.reason or run.node}" for run in runs)
        return Outcome(self.sent, _known(self.tally.skips), ends, +self.tally.refused)


def _known(skips: Mapping[str, int]) -> Counter[str]:
    """Not those whose run left meanwhile: in life they are taken back at once, here when they would have gone."""
    return Counter({reason: count for reason, count in skips.items() if reason != "cancelled"})


def foretold(play: Play) -> tuple[Outcome, list[Answer]]:
    """What the simulator says."""
    journey, pacing = read_journey(play.document), Pacing.of(play.settings)
    world = Watched(journey, Period(play.start, play.days, pacing.zone), pacing, play.rates, play.seed)
    people = [
        person_of(number, _record(each), play.start, pacing.zone.key) for number, each in enumerate(play.leads, 1)
    ]
    world.run(people)
    return world.outcome, world.answers


def _record(values: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"metadata" if name == "attributes" else name: value for name, value in values.items()}
    return {name: value for name, value in renamed.items() if value is not None}


@contextmanager
def real_life(run: servers.Run, folder: Path, play: Play) -> Iterator["Life"]:
    """A tenant with these leads, and the journey published a second before the start."""
    clock = FakeClock(play.start - timedelta(seconds=1))
    channels = {name: RecordingChannel(name=name, address_kind=kind) for name, kind in CHANNELS.items()}
    # The database goes by the same clock: nothing here takes time.
    with sqlite_runtime(run, folder, clock, clock=clock, channels=channels) as runtime:  # type: ignore[arg-type]
        yield Life(runtime, clock, play)


class Life:
    """The sweeps of a worker that journeys live by."""

    def __init__(self, runtime: Any, clock: FakeClock, play: Play) -> None:
        self.runtime, self.clock, self.play = runtime, clock, play
        self.tenant = make_tenant(runtime, settings=dict(play.settings))
        for number, lead in enumerate(play.leads, 1):
            values = {name: value for name, value in lead.items() if name != "consent"}
            made = make_leads(runtime, self.tenant, first=number, **{"country": None, "time_zone": None, **values})
            assert made == [number]
            if "consent" in lead:
                with runtime.work(self.tenant) as ctx:
                    record_consent(ctx, number, granted=lead["consent"] == "given", source="test")
            with runtime.work(self.tenant) as ctx:
                for channel in CHANNELS.keys() - {"email"}:  # a file of leads says nothing of these: all agree
                    record_consent(ctx, number, granted=True, channel=channel, source="test")
        make_segment(runtime, self.tenant, range(1, len(play.leads) + 1), name="everybody")
        make_segment(runtime, self.tenant, name="vip")
        with runtime.work(self.tenant) as ctx:
            times = {"created_at": ctx.now, "updated_at": ctx.now}
            for channel in CHANNELS:
                ctx.session.add(ChannelAccount(type=channel, name="main", config=_SENDER, enabled=True, **times))
            create_template(ctx, {"name": "email", "type": "email", "content": _CONTENT})
            create_template(ctx, {"name": "text", "type": "text", "content": {"text": "Hello"}})
            self.journey_id = create_journey(ctx, {"name": "way", "draft": dict(play.document)}).id
            publish_journey(ctx, self.journey_id)
            self.journey = journey_version(ctx, self.journey_id, 1)
        self.sender = Sender(runtime, lambda: False, unwanted_messages)

    def live(self, answers: Sequence[Answer]) -> Outcome:
        """From the start to the end; people answer as they did in the simulation."""
        try:
            self._live(sorted(answers, key=lambda each: each.at))
        finally:
            self.sender.close()
        return self._outcome()

    def _live(self, answers: list[Answer]) -> None:
        self._work()
        self._go_to(self.play.start)
        first = self.journey.entry.triggers[0].on
        if first is TriggerKind.API:
            with self.runtime.work(self.tenant) as ctx:
                enter_leads(ctx, self.journey_id, range(1, len(self.play.leads) + 1))
        end = self.play.start + timedelta(days=self.play.days)
        self._work()
        while (at := self._next(answers)) is not None and at < end:
            self._go_to(at)
            while answers and answers[0].at <= at:
                self._answer(answers.pop(0))
            self._work()

    def _go_to(self, at: datetime) -> None:
        delta = at - self.clock.now()
        if delta > timedelta():
            self.clock.advance(days=delta.days, seconds=delta.seconds, microseconds=delta.microseconds)

    def _work(self) -> None:
        while True:
            fired = fire_due(self.runtime, TIMERS)
            if not fired + tell_runs(self.runtime)[0] + open_retries(self.runtime) + self.sender.work():
                return

    def _next(self, answers: Sequence[Answer]) -> datetime | None:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            timer = ctx.session.scalar(select(func.min(Timer.trigger_at)))
            due = ctx.session.scalar(select(func.min(Delivery.due_at)).where(Delivery.state == "planned"))
        moments = [each.at for each in answers[:1]]
        moments += [from_text(each) if isinstance(each, str) else each for each in (timer, due) if each is not None]
        return min((each for each in moments if each.year < int(_EVER)), default=None)

    def _answer(self, answer: Answer) -> None:
        with self.runtime.work(self.tenant) as ctx:
            of_node = (Send.occurrence_key == answer.node, Delivery.channel == answer.channel)
            wanted = (
                select(Delivery).join(Send, Send.id == Delivery.send_id).where(*of_node, Delivery.state == "accepted")
            )
            mine = wanted.where(Delivery.lead_id == int(answer.person)).order_by(Delivery.settled_at, Delivery.seq)
            rows = ctx.session.scalars(mine).all()
            if len(rows) < answer.nth:
                return  # the messages differ already: the comparison tells
            row = rows[answer.nth - 1]
            if answer.name == "unsubscribed":
                unsubscribe(ctx, row.lead_id, source="one_click", send_id=row.send_id, seq=row.seq)
            else:
                ours = answer.name.startswith("email_")
                what = {"type": answer.name} if ours else {"type": "custom", "name": answer.name}
                about = {"tracked_at": to_text(ctx.now), "lead_id": row.lead_id, "channel": row.channel, "metadata": {}}
                write_engagements(ctx, [{**what, **about, "verdict": "human", "send_id": row.send_id, "seq": row.seq}])
        # Whoever hears of it does so a moment later, as in life.
        self.clock.advance(microseconds=1)

    def _outcome(self) -> Outcome:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            rows = ctx.session.scalars(select(Delivery).order_by(Delivery.settled_at, Delivery.seq)).all()
            runs = ctx.session.scalars(select(JourneyRun)).all()
            arrivals = ctx.session.scalars(select(JourneyArrival.outcome)).all()
        sent: Sent = {}
        for row in rows:
            if row.state == "accepted":
                sent.setdefault((str(row.lead_id), row.step, row.channel), []).append(row.settled_at)
        skipped = Counter(str(row.reason) for row in rows if row.state == "skipped")
        ends = Counter(f"{run.state}:{run.reason or run.node}" for run in runs)
        return Outcome(sent, _known(skipped), ends, Counter(each for each in arrivals if each != "entered"))


def differences(told: Outcome, lived: Outcome) -> list[str]:
    """Where they are not the same; moments to some seconds, since releases from quiet hours are spread over one."""
    found = [
        f"{name}: foretold {dict(getattr(told, name))}, lived {dict(getattr(lived, name))}"
        for name in ("skipped", "ends", "refused")
        if getattr(told, name) != getattr(lived, name)
    ]
    for key in sorted(told.sent.keys() | lived.sent.keys()):
        one, other = told.sent.get(key, []), lived.sent.get(key, [])
        is_same = len(one) == len(other) and all(
            abs(a - b) < timedelta(seconds=5) for a, b in zip(one, other, strict=True)
        )
        if not is_same:
            shown = [[str(at.astimezone(ZoneInfo("UTC")))[:19] for at in each] for each in (one, other)]
            found.append(f"{key}: foretold {shown[0]}, lived {shown[1]}")
    return found
