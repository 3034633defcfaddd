"""Triggers of campaigns: what leads do sets actions off, once for each time, while the campaign is active."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.db.models import CampaignListener, ChannelAccount, TakenAction
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.leads.field_declarations import declare_field
from nexus_marketing.services.plugins.enabling import switch_on
from nexus_marketing.services.scores.setting import set_score
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common.databases import DatabaseTime
from tests.common.factories import make_leads
from tests.common.plugins import Deed, deeds_plugin, with_plugins
from tests.functional.delivery.conftest import CONTENT, SENDER

pytestmark = pytest.mark.req("FR-P3-010", "BR-013")

PHASE_3 = json.loads((Path(__file__).parents[2] / "common" / "definitions" / "enterprise-campaign.json").read_text())


@dataclass
class Floor:
    runtime: Runtime
    tenant: int
    database_time: DatabaseTime
    manager: Deed
    sales: Deed
    leads: list[int]
    campaign_id: int = 0

    def launch(self, document: dict[str, Any], **options: Any) -> None:
        with self.runtime.work(self.tenant) as ctx:
            made = create_definition(ctx, {"schema": document})
            publish_definition(ctx, made.id)
            self.campaign_id = create_campaign(ctx, {"definition_id": str(made.id), **options}).id
            move_campaign(ctx, self.campaign_id, "launch")

    def move(self, action: str) -> None:
        with self.runtime.work(self.tenant) as ctx:
            move_campaign(ctx, self.campaign_id, action)

    def score(self, number: int, points: float) -> None:
        with self.runtime.work(self.tenant) as ctx:
            set_score(ctx, self.leads[number], points, "test")

    def go_on(self, **delta: float) -> None:
        self.runtime.clock.advance(**delta)  # type: ignore[attr-defined]
        self.database_time.advance(**delta)
        while fire_due(self.runtime, TIMERS):
            pass

    def did(self, number: int, name: str, **properties: Any) -> None:
        with self.runtime.work(self.tenant) as ctx:
            event = {"type": "custom", "name": name, "lead_id": str(self.leads[number]), "properties": properties}
            (answer,) = record_engagements(ctx, [event])
            assert answer["status"] == "accepted", answer

    def told(self) -> list[int | None]:
        return [call.lead_id for call in self.sales.calls]


@pytest.fixture
def floor(runtime: Runtime, tenant: int, database_time: DatabaseTime) -> Floor:
    manager, sales = Deed("reassign_to_manager"), Deed("send_to_sales_team")
    staged = with_plugins(runtime, deeds_plugin(manager, sales))
    staged = replace(staged, channels={"email": RecordingChannel()})
    with staged.work(tenant) as ctx:
        switch_on(ctx, "nexus-deeds")
    return Floor(staged, tenant, database_time, manager, sales, make_leads(runtime, tenant, 3, score=10.0))


def test_the_requirements_definition_runs_unchanged(floor: Floor) -> None:
    with floor.runtime.work(floor.tenant) as ctx:
        declare_field(ctx, {"name": "industry", "type": "text"})
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        ctx.session.add(ChannelAccount(type="email", name="main", config=SENDER, enabled=True, **times))
        template = create_template(ctx, {"name": "t", "type": "email", "content": CONTENT, "variables": {}})
        options = {"name": "c", "template_id": str(template.id)}
    floor.launch(PHASE_3, **options)
    floor.go_on(seconds=1)
    floor.score(0, 79)
    floor.go_on(seconds=1)
    assert floor.told() == []
    floor.score(1, 85)
    floor.score(2, 90)
    floor.go_on(seconds=1)
    assert floor.told() == [floor.leads[1], floor.leads[2]]
    assert floor.sales.calls[0].campaign_id == floor.campaign_id
    floor.go_on(hours=25)
    assert [call.campaign_id for call in floor.manager.calls] == [floor.campaign_id]


def test_an_event_sets_it_off_once_where_the_condition_holds_and_it_is_not_cooling(floor: Floor) -> None:
    trigger = {
        "event": "demo_asked",
        "condition": "event.metadata.seats >= 10 AND country == 'US'",
        "action": "send_to_sales_team",
        "cool_down": "1 hour",
        "data": {"queue": "demo"},
    }
    floor.launch({"id": "c", "automation": {"triggers": [trigger]}}, name="c")
    floor.did(0, "demo_asked", seats=5)
    floor.did(1, "demo_asked", seats=50)
    floor.did(1, "something_else", seats=50)
    floor.go_on(seconds=1)
    (call,) = floor.sales.calls
    assert (call.lead_id, call.data) == (floor.leads[1], {"event": "demo_asked", "queue": "demo"})
    floor.did(1, "demo_asked", seats=50)
    floor.did(2, "demo_asked", seats=50)
    floor.go_on(minutes=59)
    assert floor.told() == [floor.leads[1], floor.leads[2]]
    floor.go_on(minutes=2)
    floor.did(1, "demo_asked", seats=50)
    floor.go_on(seconds=1)
    assert floor.told() == [floor.leads[1], floor.leads[2], floor.leads[1]]


def test_only_while_the_campaign_is_active_and_only_when_the_score_goes_up(floor: Floor) -> None:
    trigger = {"event": "lead_score_increased", "condition": "event.after > 50", "action": "send_to_sales_team"}
    floor.launch({"id": "c", "automation": {"triggers": [trigger]}}, name="c")
    floor.score(0, 90)
    floor.go_on(seconds=1)
    floor.score(0, 80)
    floor.go_on(seconds=1)
    assert floor.told() == [floor.leads[0]]
    floor.move("pause")
    floor.score(1, 90)
    floor.go_on(hours=1)
    floor.move("resume")
    floor.score(2, 90)
    floor.go_on(seconds=1)
    assert floor.told() == [floor.leads[0], floor.leads[2]]
    floor.move("complete")
    with floor.runtime.work(floor.tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(CampaignListener)).all() == []
        assert len(ctx.session.scalars(select(TakenAction)).all()) == 2
