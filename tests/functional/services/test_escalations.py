"""Escalation of a campaign: rules of its definition, looked at by its timer, with the figures of the moment."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.events import CampaignAlerted
from nexus_marketing.core.permissions import FORMER
from nexus_marketing.db.models import Campaign, Escalation, History, Member, TakenAction, Timer
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.escalations import acknowledge, rules_of
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.tenants import create_member
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import DatabaseTime
from tests.common.plugins import Deed, deeds_plugin, with_plugins
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-020", "FR-P3-001")

PHASE_3 = json.loads((Path(__file__).parents[2] / "common" / "definitions" / "enterprise-campaign.json").read_text())


@dataclass
class Watch:
    """A tenant with Ann, who reports to Bob, who reports to Cy; campaigns are Ann's."""

    runtime: Runtime
    tenant: int
    database_time: DatabaseTime
    members: tuple[int, int, int]
    deed: Deed
    alerts: list[CampaignAlerted]
    campaign_id: int = 0

    def launch(self, *rules: dict[str, Any], **parts: Any) -> None:
        document = {"id": "c", "automation": {"escalation": list(rules)}, **parts}
        with self.runtime.work(self.tenant) as ctx:
            made = create_definition(ctx, {"schema": document})
            publish_definition(ctx, made.id)
            data = {"definition_id": str(made.id), "owner_id": str(self.members[0]), "name": "c"}
            self.campaign_id = create_campaign(ctx, data).id
            move_campaign(ctx, self.campaign_id, "launch")

    def move(self, action: str) -> None:
        with self.runtime.work(self.tenant) as ctx:
            move_campaign(ctx, self.campaign_id, action)

    def count(self, **counters: int) -> None:
        """What the program that sends by itself has recorded."""
        with self.runtime.work(self.tenant) as ctx:
            ctx.session.get_one(Campaign, (self.tenant, self.campaign_id)).counters = counters

    def go_on(self, hours: float, step: float = 1) -> None:
        for _ in range(int(hours / step)):
            self.runtime.clock.advance(hours=step)  # type: ignore[attr-defined]
            self.database_time.advance(hours=step)
            while fire_due(self.runtime, TIMERS):
                pass

    def lines(self) -> list[Escalation]:
        return self.all(Escalation)

    def all(self, model: Any) -> list[Any]:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return list(ctx.session.scalars(select(model).order_by(model.id)))

    def campaign(self) -> Campaign:
        with self.runtime.work(self.tenant, mode="read") as ctx:
            return ctx.session.get_one(Campaign, (self.tenant, self.campaign_id))

    def acknowledge(self) -> None:
        with self.runtime.work(self.tenant) as ctx:
            acknowledge(ctx, self.lines()[-1].id)


@pytest.fixture
def watch(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Watch:
    deed = Deed("reassign_to_manager")
    staged = with_plugins(runtime, deeds_plugin(deed, Deed("send_to_sales_team")))
    alerts: list[CampaignAlerted] = []
    staged.hub.subscribe(CampaignAlerted, alerts.append)
    with staged.work(tenant) as ctx:
        switch_on(ctx, "nexus-deeds")
        cy = create_member(ctx, "Cy", "cy@acme.example", "admin").id
        bob = create_member(ctx, "Bob", "bob@acme.example", "marketer", manager_id=cy).id
        ann = create_member(ctx, "Ann", "ann@acme.example", "marketer", manager_id=bob).id
    return Watch(staged, tenant, database_time, (ann, bob, cy), deed, alerts)


def test_the_requirements_rule_acts_a_day_after_the_launch(watch: Watch) -> None:
    automation = {"escalation": PHASE_3["automation"]["escalation"]}
    watch.launch(automation=automation)
    watch.count(email_sent=1000, email_opened=50, email_clicked=10)
    watch.go_on(23)
    assert watch.lines() == []
    watch.go_on(2)
    (line,) = watch.lines()
    ann, bob, _ = watch.members
    assert (line.entity_type, line.entity_id, line.level) == ("campaign", watch.campaign_id, 1)
    assert (line.from_user_id, line.to_user_id) == (ann, bob)
    assert "data.engagement_rate < 0.1, with 1000 messages taken" in line.reason
    (call,) = watch.deed.calls
    assert (call.campaign_id, call.data["from"], call.data["to"], call.data["level"]) == (
        watch.campaign_id,
        ann,
        bob,
        1,
    )
    assert [each.event for each in watch.all(History)][-2:] == ["escalated", "action_taken"]
    watch.go_on(72, 6)
    assert len(watch.deed.calls) == 1


def test_one_that_does_well_is_left_alone(watch: Watch) -> None:
    watch.launch(*PHASE_3["automation"]["escalation"])
    watch.count(email_sent=1000, email_opened=150)
    watch.go_on(72, 6)
    assert watch.lines() == []
    watch.count(email_sent=10_000, email_opened=150)
    watch.go_on(12, 6)
    assert len(watch.lines()) == 1


def test_a_small_sample_says_nothing(watch: Watch) -> None:
    rule = {"after": "1 hour", "condition": "campaign.metrics.open_rate < 0.1", "action": "notify", "minimum": 100}
    watch.launch(rule)
    watch.count(email_sent=99)
    watch.go_on(5)
    assert watch.lines() == []
    watch.count(email_sent=100)
    watch.go_on(2)
    assert [each.member_id for each in watch.alerts] == [watch.members[1]]


def test_levels_go_up_until_somebody_has_seen_it(watch: Watch) -> None:
    watch.launch(
        {"after": "1 hour", "action": "reassign", "level": 1, "cool_down": "3 hours"},
        {"after": "3 hours", "action": "reassign", "level": 2},
        {"after": "5 hours", "action": "pause", "level": 3},
    )
    watch.go_on(2, 0.5)
    assert watch.campaign().owner_id == watch.members[1]
    watch.go_on(2, 0.5)
    assert watch.campaign().owner_id == watch.members[2]
    assert [each.level for each in watch.lines()] == [1, 2]
    for line in watch.lines():
        with watch.runtime.work(watch.tenant) as ctx:
            acknowledge(ctx, line.id)
    watch.go_on(4, 0.5)
    assert [each.level for each in watch.lines()][:3] == [1, 2, 1]
    assert watch.lines()[2].to_user_id is None  # nobody is above Cy
    watch.go_on(2, 0.5)
    assert watch.campaign().status == "paused"
    assert watch.lines()[-1].action == "pause"


def test_a_manager_who_has_left_is_passed_over(watch: Watch) -> None:
    _, bob, cy = watch.members
    with watch.runtime.work(watch.tenant) as ctx:
        ctx.session.get_one(Member, (watch.tenant, bob)).role = FORMER
    watch.launch({"after": "1 hour", "action": "reassign", "level": 1})
    watch.go_on(2, 0.5)
    assert watch.campaign().owner_id == cy


def test_a_paused_campaign_is_not_looked_at_and_a_resumed_one_is(watch: Watch) -> None:
    watch.launch({"after": "2 hours", "action": "change_priority", "data": {"priority": 90}})
    watch.move("pause")
    watch.go_on(6)
    assert (watch.lines(), watch.all(Timer)) == ([], [])
    watch.move("resume")
    watch.go_on(1)
    assert watch.campaign().priority == 90


def test_it_acts_after_the_end_too_and_is_over_a_week_later(watch: Watch) -> None:
    watch.launch({"after": "24 hours", "action": "notify"})
    watch.move("complete")
    watch.go_on(25)
    assert len(watch.lines()) == 1
    watch.go_on(24 * 9, 24)
    assert watch.all(Timer) == []


def test_the_rules_and_what_has_acted_are_shown(watch: Watch) -> None:
    watch.launch({"after": "1 hour", "action": "notify", "for": "30 minutes"})
    watch.go_on(2, 0.25)
    with watch.runtime.work(watch.tenant, mode="read") as ctx:
        (rule,) = rules_of(ctx, watch.campaign_id)
    assert (rule["after_seconds"], rule["for_seconds"], rule["action"], rule["is_open"]) == (3600, 1800, "notify", True)
    watch.acknowledge()
    with watch.runtime.work(watch.tenant, mode="read") as ctx:
        assert not rules_of(ctx, watch.campaign_id)[0]["is_open"]


def test_over_rest_it_is_listed_and_acknowledged_once(watch: Watch, client: Client, stranger: Client) -> None:
    watch.launch({"after": "1 hour", "action": "notify"})
    watch.go_on(2)
    path = f"/api/v1/escalations?filter=campaign_id == '{watch.campaign_id}'"
    path = path.replace("'", "")
    (line,) = client.get(path).json["data"]
    assert (line["level"], line["campaign_id"], line["acknowledged_at"]) == (1, str(watch.campaign_id), None)
    assert client.get(f"/api/v1/campaigns/{watch.campaign_id}/escalation-rules").json["data"][0]["is_open"]
    one = f"/api/v1/escalations/{line['id']}/acknowledge"
    stranger.post(one, status=404)
    seen = client.post(one, status=200).json
    assert seen["acknowledged_by"].startswith("key:")
    assert client.post(one, status=200).json == seen
    (action,) = client.get("/api/v1/actions?filter=name == 'notify'").json["data"]
    assert (action["id"], action["state"]) == (line["action_id"], "done")
    client.post(f"/api/v1/actions/{action['id']}/retry", status=409)
    assert stranger.get("/api/v1/actions").json["data"] == stranger.get("/api/v1/escalations").json["data"] == []
    assert len(watch.all(TakenAction)) == 1
