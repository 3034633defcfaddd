"""Actions by name: asked for once, taken by any worker, each known by its key to whoever does it."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.core.events import CampaignAlerted
from nexus_marketing.db.models import AuditEntry, Campaign, CampaignDefinition, History, Send, TakenAction, Timer
from nexus_marketing.plugin import ActionOutcome, ActionResult
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.requests import ActionRequest, request_action, retry_action
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, notices_of, publish_definition
from nexus_marketing.services.plugins.enabling import switch_off, switch_on
from nexus_marketing.services.tenants import create_member
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import DatabaseTime
from tests.common.factories import make_campaign, make_leads, make_send, make_template
from tests.common.plugins import Deed, deeds_plugin, with_plugins

pytestmark = pytest.mark.req("FR-P3-001", "FR-P3-010", "US-020")

PHASE_3 = json.loads((Path(__file__).parents[2] / "common" / "definitions" / "enterprise-campaign.json").read_text())
PLUGIN = "nexus-deeds"


class Crash(BaseException):
    """What a worker dies of."""


@dataclass
class Desk:
    """A tenant that has the plugin on, and a worker that takes actions."""

    runtime: Runtime
    tenant: int
    database_time: DatabaseTime
    deed: Deed
    alerts: list[CampaignAlerted] = field(default_factory=list)

    def ask(self, name: str = "reassign_to_manager", key: str = "k", **values: Any) -> int:
        with self.runtime.work(self.tenant) as ctx:
            return request_action(ctx, ActionRequest(name, key, ActionSource.BREACH, **values))

    def go_on(self, **delta: float) -> None:
        self.runtime.clock.advance(**delta)  # type: ignore[attr-defined]
        self.database_time.advance(**delta)
        while fire_due(self.runtime, TIMERS):
            pass

    def row(self, action_id: int) -> TakenAction:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return ctx.session.get_one(TakenAction, (self.tenant, action_id))

    def all(self, model: Any) -> list[Any]:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return list(ctx.session.scalars(select(model).order_by(model.id)))


@pytest.fixture
def desk(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Desk:
    deed = Deed("reassign_to_manager")
    staged = with_plugins(runtime, deeds_plugin(deed, Deed("send_to_sales_team")))
    with staged.work(tenant) as ctx:
        switch_on(ctx, PLUGIN, {"station": "north"})
    made = Desk(staged, tenant, database_time, deed)
    staged.hub.subscribe(CampaignAlerted, made.alerts.append)
    return made


class TestNames:
    def test_the_requirements_definition_is_published_unchanged_where_a_plugin_adds_its_actions(
        self, desk: Desk, other_tenant: int
    ) -> None:
        with desk.runtime.work(desk.tenant) as ctx:
            made = create_definition(ctx, {"schema": PHASE_3})
            assert {each.code for each in notices_of(ctx, made)} == {"unknown_field"}
            assert publish_definition(ctx, made.id).version == PHASE_3["version"]
        with desk.runtime.work(other_tenant) as ctx:
            made = create_definition(ctx, {"schema": PHASE_3})
            with pytest.raises(ValidationError) as refused:
                publish_definition(ctx, made.id)
        assert {each.code for each in refused.value.problems} == {"plugin_off"}
        assert "plugins enable nexus-deeds --tenant globex" in refused.value.message
        assert desk.all(CampaignDefinition)[0].version == "2.0.0"


class TestTaking:
    def test_it_is_taken_once_for_an_occurrence_with_what_the_tenant_set(self, desk: Desk) -> None:
        campaign = make_campaign(desk.runtime, desk.tenant)
        first = desk.ask(campaign_id=campaign, data={"level": 1})
        assert desk.ask(campaign_id=campaign, data={"level": 2}) == first
        desk.go_on(seconds=1)
        assert desk.ask(campaign_id=campaign) == first
        desk.go_on(seconds=1)
        (call,) = desk.deed.calls
        assert (call.key, call.data, call.settings, call.campaign_id) == (
            "k",
            {"level": 1},
            {"station": "north"},
            campaign,
        )
        row = desk.row(first)
        assert (row.state, row.detail, row.attempts) == ("done", "did it", 1)
        assert desk.all(Timer) == []
        assert [each.action for each in desk.all(AuditEntry) if each.subject_type == "action"] == ["action.taken"]
        (line,) = desk.all(History)
        assert (line.event, line.payload["action"], line.payload["source"]) == (
            "action_taken",
            "reassign_to_manager",
            "breach",
        )

    def test_a_temporary_failure_is_tried_again_under_the_same_key_no_sooner_than_it_asks(self, desk: Desk) -> None:
        wait = ActionOutcome(ActionResult.TRANSIENT, "busy", retry_after_seconds=3600)
        desk.deed.script = [wait, OSError("no line")]
        action = desk.ask()
        desk.go_on(seconds=1)
        desk.go_on(minutes=59)
        assert (len(desk.deed.calls), desk.row(action).state) == (1, "waiting")
        desk.go_on(minutes=2)
        assert desk.row(action).detail == "It raised OSError."
        desk.go_on(minutes=2)
        assert [call.key for call in desk.deed.calls] == ["k"] * 3
        assert (desk.row(action).state, desk.deed.done) == ("done", ["k"])

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [(ActionOutcome(ActionResult.PERMANENT, "no such desk"), "refused"), ("done", "no_outcome")],
    )
    def test_what_fails_for_good_waits_for_a_person(self, desk: Desk, answer: Any, reason: str) -> None:
        desk.deed.script = [answer]
        action = desk.ask()
        desk.go_on(days=2)
        assert (desk.row(action).state, desk.row(action).reason, len(desk.deed.calls)) == ("failed", reason, 1)
        with desk.runtime.work(desk.tenant) as ctx:
            retry_action(ctx, action)
        desk.go_on(seconds=1)
        assert desk.row(action).state == "done"
        with desk.runtime.work(desk.tenant) as ctx, pytest.raises(Conflict, match="done"):
            retry_action(ctx, action)

    def test_it_is_not_tried_for_ever(self, desk: Desk) -> None:
        desk.deed.script = [OSError()] * 20
        action = desk.ask()
        for _ in range(20):
            desk.go_on(hours=3)
        assert (desk.row(action).reason, len(desk.deed.calls)) == ("exhausted", 12)

    def test_it_waits_as_long_as_its_plugin_is_off(self, desk: Desk) -> None:
        with desk.runtime.work(desk.tenant) as ctx:
            switch_off(ctx, PLUGIN)
        action = desk.ask()
        desk.go_on(days=1)
        assert (desk.row(action).state, desk.row(action).reason) == ("paused", "plugin_missing")
        assert desk.deed.calls == []
        with desk.runtime.work(desk.tenant) as ctx:
            switch_on(ctx, PLUGIN)
        desk.go_on(minutes=6)
        assert (desk.row(action).state, desk.row(action).reason) == ("done", None)

    def test_another_process_without_the_plugin_leaves_it_waiting(self, desk: Desk, runtime: Runtime) -> None:
        action = desk.ask()
        runtime.clock.advance(seconds=1)  # type: ignore[attr-defined]
        fire_due(runtime, TIMERS)
        assert desk.row(action).reason == "plugin_missing"


class TestDying:
    @pytest.mark.parametrize("point", ["actions.begun", "actions.called", "actions.settled"])
    def test_what_was_done_when_a_worker_died_is_not_done_twice(
        self, desk: Desk, point: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        died: list[str] = []

        def die(name: str) -> None:
            if name == point and len(died) < 2:
                died.append(name)
                raise Crash

        monkeypatch.setattr(desk.runtime.telemetry, "point", die, raising=False)
        action = desk.ask()
        for _ in range(4):
            try:
                desk.go_on(minutes=10)
            except Crash:
                continue
        assert died
        assert desk.deed.done == ["k"]
        assert {call.key for call in desk.deed.calls} == {"k"}
        assert desk.row(action).state == "done"
        assert [each.action for each in desk.all(AuditEntry) if each.subject_type == "action"] == ["action.taken"]

    def test_what_kills_every_worker_is_given_up_and_shown(self, desk: Desk) -> None:
        desk.deed.script = [Crash(), Crash(), Crash()]
        action = desk.ask()
        for _ in range(4):
            try:
                desk.go_on(minutes=10)
            except Crash:
                continue
        assert (desk.row(action).state, desk.row(action).reason) == ("failed", "given_up")
        assert desk.all(Timer) == []


class TestOurOwn:
    def test_a_campaign_is_paused_and_somebody_told(self, desk: Desk) -> None:
        with desk.runtime.work(desk.tenant) as ctx:
            owner = create_member(ctx, "Ann", "ann@acme.example", "admin")
            campaign = create_campaign(ctx, {"name": "c", "owner_id": str(owner.id)}).id
            ctx.session.get_one(Campaign, (desk.tenant, campaign)).status = "active"
        action = desk.ask("pause_and_alert", campaign_id=campaign, data={"reason": "over budget"})
        desk.go_on(seconds=1)
        assert desk.row(action).detail == f"from active to paused; told member {owner.id}"
        (paused,) = desk.all(Campaign)
        assert (paused.status, paused.status_reason) == ("paused", "over budget")
        (alert,) = desk.alerts
        assert (alert.member_id, alert.reason, alert.campaign_id) == (owner.id, "over budget", str(campaign))

    def test_a_campaign_goes_to_the_manager_of_its_owner(self, desk: Desk) -> None:
        with desk.runtime.work(desk.tenant) as ctx:
            boss = create_member(ctx, "Bob", "bob@acme.example", "admin")
            owner = create_member(ctx, "Ann", "ann@acme.example", "marketer", manager_id=boss.id)
            campaign = create_campaign(ctx, {"name": "c", "owner_id": str(owner.id)}).id
        desk.ask("reassign", "up", campaign_id=campaign)
        desk.go_on(seconds=1)
        assert desk.all(Campaign)[0].owner_id == boss.id
        action = desk.ask("reassign", "further", campaign_id=campaign)
        desk.go_on(seconds=1)
        assert (desk.row(action).state, desk.row(action).reason) == ("failed", "conflict")

    def test_a_campaign_and_what_it_still_sends_get_another_priority(self, desk: Desk) -> None:
        campaign = make_campaign(desk.runtime, desk.tenant)
        leads = make_leads(desk.runtime, desk.tenant, 1)
        make_send(desk.runtime, desk.tenant, campaign, make_template(desk.runtime, desk.tenant), leads)
        desk.ask("change_priority", campaign_id=campaign, data={"priority": 90})
        wrong = desk.ask("change_priority", "wrong", campaign_id=campaign, data={"priority": 101})
        nothing = desk.ask("pause", "nothing")
        desk.go_on(seconds=1)
        assert (desk.all(Campaign)[0].priority, desk.all(Send)[0].priority) == (90, 90)
        assert desk.row(wrong).reason == "validation_failed"
        assert desk.row(nothing).reason == "no_campaign"


def test_an_action_later_on_waits_for_its_time(desk: Desk) -> None:
    with desk.runtime.work(desk.tenant) as ctx:
        wanted = ActionRequest("send_to_sales_team", "later", ActionSource.JOURNEY)
        action = request_action(ctx, wanted, ctx.now + timedelta(hours=1))
    desk.go_on(minutes=59)
    assert desk.row(action).state == "waiting"
    desk.go_on(minutes=2)
    assert desk.row(action).state == "done"


def test_moving_a_campaign_is_not_held_up_by_its_history(desk: Desk) -> None:
    campaign = make_campaign(desk.runtime, desk.tenant)
    desk.ask(campaign_id=campaign)
    desk.go_on(seconds=1)
    with desk.runtime.work(desk.tenant) as ctx:
        assert move_campaign(ctx, campaign, "cancel").version == 3
