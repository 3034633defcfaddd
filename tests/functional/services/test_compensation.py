"""What a failed campaign did is taken back: in reverse order, each once, wherever workers die (BR-004)."""

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from nexus_marketing.core.contracts import AddressKind, Outcome, OutcomeKind, Retraction
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.events import CampaignFailed
from nexus_marketing.db.models import AuditEntry, Campaign, ChannelAccount, History, TakenAction, Timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.plugin import ActionCall, ActionOutcome, ActionResult
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.compensation import fail_campaign, take_back
from nexus_marketing.services.actions.requests import retry_action
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_leads, make_segment, make_tenant
from tests.common.plugins import deeds_plugin, with_plugins
from tests.functional.conftest import Client
from tests.functional.delivery.conftest import work_off

pytestmark = pytest.mark.req("US-023", "FR-P3-004", "BR-004", "FR-EXT-001")

DONE = ActionOutcome(ActionResult.DONE, "did it")
REFUSED = ActionOutcome(ActionResult.PERMANENT, "no such account")
BUSY = ActionOutcome(ActionResult.TRANSIENT, "busy")


class Crash(BaseException):
    """What a worker dies of."""


@dataclass
class World:
    """What deeds changed: each key has its effect once, as of whoever keeps to the contract."""

    effects: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    answers: dict[str, list[ActionOutcome]] = field(default_factory=dict)
    #: Called before an effect and after it: may raise.
    on_edge: Callable[[], None] = lambda: None

    def act(self, name: str, call: ActionCall) -> ActionOutcome:
        self.on_edge()
        about = call.data.get("of", {}).get("data", call.data)
        said = f"{name} {about.get('n', '')}".strip()
        script = self.answers.get(said, [])
        answer = script.pop(0) if script else DONE
        if answer is DONE and call.key not in self.seen:
            self.seen.add(call.key)
            self.effects.append(said)
        self.on_edge()
        return answer


@dataclass(slots=True)
class WorldDeed:
    """An action upon the world."""

    name: str
    world: World

    def run(self, call: ActionCall) -> ActionOutcome:
        return self.world.act(self.name, call)


@dataclass(slots=True)
class TakingBack(RecordingChannel):
    """A channel that can take back what it has handed over, unless its script says otherwise."""

    retracted: list[Retraction] = field(default_factory=list)
    refusals: dict[str, list[OutcomeKind]] = field(default_factory=dict)

    def compensate(self, settings: Mapping[str, Any], retraction: Retraction) -> Outcome:
        answers = self.refusals.get(retraction.address)
        kind = answers.pop(0) if answers else OutcomeKind.ACCEPTED
        if kind is OutcomeKind.ACCEPTED and retraction not in self.retracted:
            self.retracted.append(retraction)
        return Outcome(0, kind, "", "scripted")


@dataclass
class Stage:
    runtime: Runtime
    tenant: int
    database_time: DatabaseTime
    world: World
    channel: TakingBack
    failed: list[CampaignFailed] = field(default_factory=list)
    campaign_id: int = 0

    def launch(self, *steps: dict[str, Any], leads: int = 0, **parts: Any) -> None:
        document = {"id": f"c{self.campaign_id}", "automation": {"steps": list(steps)}, **parts}
        with self.runtime.work(self.tenant) as ctx:
            made = create_definition(ctx, {"schema": document})
            publish_definition(ctx, made.id)
            data = {"definition_id": str(made.id), "name": "c", **(self.audience() if leads else {})}
            self.campaign_id = create_campaign(ctx, data).id
            move_campaign(ctx, self.campaign_id, "launch")

    def audience(self) -> dict[str, Any]:
        return {"segment_id": self.segment, "template_id": self.template}

    def set_up(self, leads: int) -> None:
        self.segment = str(make_segment(self.runtime, self.tenant, make_leads(self.runtime, self.tenant, leads)))
        with self.runtime.work(self.tenant) as ctx:
            times = {"created_at": ctx.now, "updated_at": ctx.now}
            config = {"from_email": "news@shop.example", "postal_address": "1 High Street"}
            ctx.session.add(ChannelAccount(type="email", name="main", config=config, enabled=True, **times))
            text = "Hello {{ postal_address }} {{ unsubscribe_url }}"
            content = {"subject": "Hello", "text": text}
            self.template = str(create_template(ctx, {"name": "t", "type": "email", "content": content}).id)

    def go_on(self, **delta: float) -> None:
        self.runtime.clock.advance(**delta)  # type: ignore[attr-defined]
        self.database_time.advance(**delta)
        while fire_due(self.runtime, TIMERS):
            pass

    def work(self) -> None:
        self.runtime.clock.advance(seconds=5)  # type: ignore[attr-defined]
        work_off(self.runtime, 20)

    def all(self, model: Any) -> list[Any]:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return list(ctx.session.scalars(select(model).order_by(model.id)))

    def campaign(self) -> Campaign:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return ctx.session.get_one(Campaign, (self.tenant, self.campaign_id))

    def events(self) -> list[str]:
        return [each.event for each in self.all(History)]


def build(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Stage:
    world, channel = World(), TakingBack()
    deeds = [WorldDeed(name, world) for name in ("do", "undo", "undo_other")]
    staged = with_plugins(runtime, deeds_plugin(*deeds))
    staged = replace(staged, channels={"email": channel})
    with staged.work(tenant) as ctx:
        switch_on(ctx, "nexus-deeds")
    made = Stage(staged, tenant, database_time, world, channel)
    staged.hub.subscribe(CampaignFailed, made.failed.append)
    return made


@pytest.fixture
def stage(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Stage:
    return build(runtime, tenant, database_time)


def steps(count: int, **parts: Any) -> list[dict[str, Any]]:
    return [{"action": "do", "data": {"n": n}, "compensate": "undo", **parts} for n in range(1, count + 1)]


class TestSteps:
    def test_each_is_taken_once_after_the_one_before_it(self, stage: Stage) -> None:
        stage.launch(*steps(3, delay="1 hour"))
        for done in range(4):
            assert stage.world.effects == [f"do {n}" for n in range(1, done + 1)]
            stage.go_on(minutes=61)
        assert len(stage.world.effects) == 3
        assert stage.campaign().status == "active"
        assert stage.all(Timer) == []

    def test_a_pause_holds_the_next_one_and_a_cancelled_campaign_begins_none(self, stage: Stage) -> None:
        stage.launch(*steps(3, delay="1 hour"))
        stage.go_on(minutes=61)
        with stage.runtime.work(stage.tenant) as ctx:
            move_campaign(ctx, stage.campaign_id, "pause")
        stage.go_on(hours=5)
        assert stage.world.effects == ["do 1"]
        with stage.runtime.work(stage.tenant) as ctx:
            move_campaign(ctx, stage.campaign_id, "resume")
        stage.go_on(seconds=1)
        assert stage.world.effects == ["do 1", "do 2"]
        with stage.runtime.work(stage.tenant) as ctx:
            move_campaign(ctx, stage.campaign_id, "cancel")
        stage.go_on(hours=5)
        assert stage.world.effects == ["do 1", "do 2"]
        assert [row.state for row in stage.all(TakenAction)] == ["done", "done", "cancelled"]


class TestFailing:
    def test_what_was_done_is_taken_back_in_reverse(self, stage: Stage) -> None:
        stage.world.answers = {"do 3": [REFUSED]}
        wanted = steps(5)
        wanted[0]["compensate"] = "undo_other"
        stage.launch(*wanted)
        stage.go_on(seconds=1)
        assert stage.world.effects == ["do 1", "do 2", "undo 2", "undo_other 1"]
        campaign = stage.campaign()
        assert (campaign.status, campaign.status_reason) == ("cancelled", "step 3, do: no such account")
        assert len(stage.failed) == 1
        assert stage.events()[-6:] == ["action_taken", "action_failed", "fail", *["action_taken"] * 2, "compensated"]
        assert stage.all(History)[-1].payload == {"done": 2, "failed": 0}
        assert [row.name for row in stage.all(TakenAction)] == ["do", "do", "do", "undo", "undo_other"]
        said = [each.action for each in stage.all(AuditEntry) if each.action.startswith("action.")]
        assert said == ["action.taken"] * 2 + ["action.failed"] + ["action.taken"] * 2

    def test_a_step_without_a_compensation_is_left(self, stage: Stage) -> None:
        stage.world.answers = {"do 3": [REFUSED]}
        wanted = steps(3)
        del wanted[1]["compensate"]
        stage.launch(*wanted)
        stage.go_on(seconds=1)
        assert stage.world.effects == ["do 1", "do 2", "undo 1"]

    def test_what_cannot_be_taken_back_keeps_nothing_else_and_can_be_tried_again(self, stage: Stage) -> None:
        stage.world.answers = {"do 3": [REFUSED], "undo 2": [BUSY, REFUSED]}
        stage.launch(*steps(3))
        stage.go_on(seconds=1)
        assert stage.world.effects == ["do 1", "do 2"]  # in turn: the first to be taken back is tried again first
        stage.go_on(minutes=1)
        assert stage.world.effects == ["do 1", "do 2", "undo 1"]
        assert stage.all(History)[-1].payload == {"done": 1, "failed": 1}
        failed = next(row.id for row in stage.all(TakenAction) if row.name == "undo" and row.state == "failed")
        with stage.runtime.work(stage.tenant) as ctx:
            retry_action(ctx, failed)
        stage.go_on(seconds=1)
        assert stage.world.effects[-1] == "undo 2"
        assert stage.all(History)[-1].payload == {"done": 2, "failed": 0}
        with stage.runtime.work(stage.tenant) as ctx, pytest.raises(Conflict, match="failed"):
            retry_action(ctx, stage.all(TakenAction)[2].id)

    def test_a_person_says_that_it_failed_while_a_step_is_tried_again(self, stage: Stage, client: Client) -> None:
        stage.world.answers = {"do 2": [BUSY, DONE]}
        stage.launch(*steps(3))
        stage.go_on(seconds=1)
        path = f"/api/v1/campaigns/{stage.campaign_id}/fail"
        assert client.post(path, {}, status=422).json["errors"][0]["path"] == "reason"
        failed = client.post(path, {"reason": "wrong prices"}, status=200).json
        assert (failed["status"], failed["status_reason"]) == ("cancelled", "wrong prices")
        client.post(path, {"reason": "again"}, status=409)
        stage.go_on(seconds=1)
        assert stage.world.effects == ["do 1", "do 2", "undo 2", "undo 1"]
        assert len(stage.all(TakenAction)) == 4

    def test_nothing_to_take_back_is_nothing_to_tell(self, stage: Stage) -> None:
        stage.launch()
        with stage.runtime.work(stage.tenant) as ctx:
            fail_campaign(ctx, stage.campaign_id, "wrong")
        stage.go_on(minutes=1)
        assert stage.events()[-1] == "fail"
        assert stage.all(Timer) == []


class TestMessages:
    CHANNELS: Mapping[str, Any] = {"email": {"compensate": True}}

    def test_a_channel_takes_back_what_it_has_handed_over_wherever_a_worker_dies(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.set_up(120)
        stage.channel.refusals = {
            "person7@example.org": [OutcomeKind.TRANSIENT],
            "person9@example.org": [OutcomeKind.PERMANENT_RECIPIENT] * 5,
        }
        stage.launch(*steps(1, delay="1 hour"), leads=120, channels=self.CHANNELS)
        stage.work()
        assert len(stage.channel.sent) == 120
        assert (stage.campaign().status, stage.campaign().status_reason) == (
            "active",
            "Everything is sent: its steps go on.",
        )
        stage.world.answers = {"do 1": [REFUSED]}
        pieces: list[str] = []

        def die(name: str) -> None:
            if name == "retraction.piece":
                pieces.append(name)
                if len(pieces) in (1, 3):
                    raise Crash

        monkeypatch.setattr(stage.runtime.telemetry, "point", die, raising=False)
        for _ in range(4):
            with suppress(Crash):
                stage.go_on(minutes=61)
        sent = {each.message_id for each in stage.channel.sent}
        taken_back = [each.message_id for each in stage.channel.retracted]
        assert len(taken_back) == len(set(taken_back)) == 119
        assert set(taken_back) < sent
        numbers = [int(each[2:].partition(".")[0]) for each in taken_back]
        assert numbers == sorted(numbers, reverse=True)
        (row,) = [row for row in stage.all(TakenAction) if row.source == "compensation"]
        assert (row.state, row.detail) == ("done", "took back 119 messages; 1 could not be: scripted")

    def test_one_that_never_says_whether_it_is_gone_keeps_no_other_from_it(self, stage: Stage) -> None:
        stage.set_up(6)
        stage.channel.refusals = {"person3@example.org": [OutcomeKind.UNKNOWN] * 99}
        stage.launch(*steps(1, delay="1 hour"), leads=6, channels=self.CHANNELS)
        stage.work()
        stage.world.answers = {"do 1": [REFUSED]}
        for _ in range(6):
            stage.go_on(minutes=61)
        assert len({each.message_id for each in stage.channel.retracted}) == 5
        assert len(stage.channel.refusals["person3@example.org"]) == 95  # asked once, and again three times
        (row,) = [row for row in stage.all(TakenAction) if row.source == "compensation"]
        assert (row.state, row.detail) == ("done", "took back 5 messages; 1 could not be: nobody knows of it")

    def test_a_turn_of_it_ends_and_the_next_goes_on(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nexus_marketing.services.retractions._TURN_OF_A_LEASE", 0.0)
        stage.set_up(250)
        stage.launch(*steps(1, delay="1 hour"), leads=250, channels=self.CHANNELS)
        stage.work()
        stage.world.answers = {"do 1": [REFUSED]}
        said = []
        for _ in range(3):
            stage.go_on(minutes=61)
            (row,) = [row for row in stage.all(TakenAction) if row.source == "compensation"]
            said.append((row.state, row.detail))
        assert said[0] == ("waiting", "took back 100 messages so far")
        assert said[-1] == ("done", "took back 250 messages; 0 could not be")
        assert len(stage.channel.retracted) == 250

    def test_it_waits_until_nothing_more_can_leave(self, stage: Stage) -> None:
        stage.set_up(3)
        stage.launch(leads=3, channels=self.CHANNELS)
        with stage.runtime.work(stage.tenant) as ctx:
            fail_campaign(ctx, stage.campaign_id, "wrong")
        stage.go_on(minutes=1)
        assert [row.name for row in stage.all(TakenAction)] == []
        stage.work()
        stage.go_on(minutes=1)
        assert [(row.name, row.state) for row in stage.all(TakenAction)] == [("retract_send", "done")]
        assert stage.channel.sent == stage.channel.retracted == []

    def test_a_channel_that_cannot_says_so(self, stage: Stage) -> None:
        stage.set_up(2)
        stage.runtime = replace(stage.runtime, channels={"email": RecordingChannel(address_kind=AddressKind.EMAIL)})
        stage.launch(leads=2, channels=self.CHANNELS)
        stage.work()
        assert stage.campaign().status == "completed"
        with stage.runtime.work(stage.tenant) as ctx, pytest.raises(Conflict, match="completed"):
            fail_campaign(ctx, stage.campaign_id, "wrong")


EDGES = ("effect", "actions.begun", "actions.settling", "actions.called", "actions.settled")


@pytest.mark.req("R20")
def test_wherever_workers_die_each_is_taken_back_once_and_in_reverse(
    sqlite_only_runtime: Runtime, database_time: DatabaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R20, for many schedules of deaths: between an effect and its record, within a transaction, after its commit."""
    stage = build(sqlite_only_runtime, make_tenant(sqlite_only_runtime), database_time)
    chance = random.Random(20)
    died: set[str] = set()
    deaths, deadly = 0, set(EDGES)

    def die(name: str) -> None:
        nonlocal deaths
        if name == "actions.settled":
            deaths = 0
        if name in deadly and deaths < 2 and chance.random() < 0.4:  # a third over one timer, and it would be given up
            deaths += 1
            died.add(name)
            raise Crash

    monkeypatch.setattr(stage.runtime.telemetry, "point", die, raising=False)
    stage.world.on_edge = lambda: die("effect")
    for case in range(12):
        deadly = {EDGES[case % len(EDGES)]} if case % 2 else set(EDGES)
        total, at = chance.randint(2, 6), chance.randint(1, 6)
        stage.world.effects.clear()
        stage.world.answers = {f"do {at}": [REFUSED] * 5}
        stage.launch(*steps(total))
        for _ in range(60):
            with suppress(Crash):
                stage.go_on(minutes=3)
            if not stage.all(Timer):
                break
        done = range(1, min(at, total + 1))
        back = [f"undo {n}" for n in reversed(done)] if at <= total else []
        assert stage.world.effects == [*(f"do {n}" for n in done), *back], case
        assert (stage.campaign().failed_at is not None) == (at <= total)
    assert died == set(EDGES)


def test_of_what_was_done_for_many_leads_only_the_next_is_read(sqlite_only_runtime: Runtime, tenant: int) -> None:
    runtime, read = sqlite_only_runtime, list[int]()
    campaign = make_campaign(runtime, tenant)
    with runtime.work(tenant) as ctx:
        done = {"name": "do", "source": "trigger", "campaign_id": campaign, "data": {}, "compensation": "undo"}
        done |= {"state": "done", "created_at": ctx.now, "settled_at": ctx.now}
        ctx.session.execute(insert(TakenAction), [{**done, "tenant_id": tenant, "key": f"k{n}"} for n in range(50)])
        ctx.session.execute(update(Campaign).where(Campaign.id == campaign).values(failed_at=ctx.now))

    def note(row: TakenAction, _context: object) -> None:
        read.append(row.id)

    event.listen(TakenAction, "load", note)
    for number in range(50, 40, -1):
        with runtime.work(tenant) as ctx:
            take_back(ctx, find(ctx.session, Campaign, campaign, lock=True))
        with runtime.work(tenant) as ctx:
            undoing = update(TakenAction).where(TakenAction.key == f"undo:{number}")
            assert ctx.session.execute(undoing.values(state="done", settled_at=ctx.now)).rowcount == 1
    event.remove(TakenAction, "load", note)
    assert read == list(range(50, 40, -1))
