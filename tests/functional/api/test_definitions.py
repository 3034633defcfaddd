"""Definitions from the outside: written, published, used, and never changed under what runs on them."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing import HasMarketing, use_storage
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.home import HOME
from nexus_marketing.db.models import ChannelAccount, DefinitionVersion
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.campaigns.moving import tick_campaign
from nexus_marketing.services.storage import SqlStorage
from nexus_marketing.tasks.loops import tick_due
from tests.common.factories import make_segment, make_template
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-001", "FR-P2-002", "FR-P2-008", "US-010", "US-011", "US-017", "REL-004")

EXAMPLES = Path(__file__).parents[2] / "common" / "definitions"
DRIP: dict[str, Any] = json.loads((EXAMPLES / "email-drip-sequence.json").read_text())
ENTERPRISE: dict[str, Any] = json.loads((EXAMPLES / "enterprise-campaign.json").read_text())
SUBSCRIBER = {"subscriber_email": "a@example.org", "subscriber_name": "A", "subscription_date": "2026-03-04"}
PATH = "/api/v1/definitions"
CONTENT = {
    "subject": "Hello {{ first_name }}",
    "text": "Hello\n{{ postal_address }}\n{{ unsubscribe_url }}",
}


def make(client: Client, schema: dict[str, Any], *, publish: bool = True) -> dict[str, Any]:
    made: dict[str, Any] = client.post(PATH, {"schema": schema}).json
    if publish:
        made = client.post(f"{PATH}/{made['id']}/publish", status=200).json
    return made


def plain(code: str = "seasonal", **parts: Any) -> dict[str, Any]:
    return {"id": code, "name": "Seasonal", **parts}


class TestTheResource:
    @pytest.mark.parametrize("schema", [DRIP, ENTERPRISE], ids=["drip", "enterprise"])
    def test_the_requirements_examples_are_taken_unchanged(self, client: Client, schema: dict[str, Any]) -> None:
        made = make(client, schema, publish=schema is DRIP)
        assert (made["code"], made["name"]) == (schema["id"], schema["name"])
        assert made["schema"] == schema
        assert client.get(f"{PATH}/{made['id']}").json == made
        assert [row["code"] for row in client.get(PATH).json["data"]] == [schema["id"]]

    def test_what_nobody_registered_is_reported_by_name(self, client: Client) -> None:
        made = make(client, ENTERPRISE, publish=False)
        actions = {"automation.escalation.0.action", "automation.triggers.0.action"}
        assert {notice["path"] for notice in made["notices"]} == {*actions, "targeting.segment.conditions.1.field"}
        assert any("reassign_to_manager" in notice["message"] for notice in made["notices"])
        refused = client.post(f"{PATH}/{made['id']}/publish", status=422).json["errors"]
        assert {each["path"]: each["code"] for each in refused} == {
            f"schema.{path}": "unknown_action" for path in actions
        }
        assert client.get(f"{PATH}/{made['id']}").json["version"] is None

    def test_faults_are_told_all_at_once_with_their_paths(self, client: Client) -> None:
        schema = {"id": "x", "budgets": 5, "transitions": {"go": {"from": "nowhere", "to": "active"}}}
        fault = client.post(PATH, {"schema": schema}, status=422).json
        assert [each["path"] for each in fault["errors"]] == ["schema.budgets"]
        del schema["budgets"]
        fault = client.post(PATH, {"schema": schema}, status=422).json
        assert [each["path"] for each in fault["errors"]] == ["schema.transitions.go.from"]

    def test_a_code_is_needed_and_its_own(self, client: Client) -> None:
        assert client.post(PATH, {"schema": {"name": "x"}}, status=422).json["errors"][0]["path"] == "schema.id"
        make(client, plain())
        assert "already" in client.post(PATH, {"schema": plain()}, status=409).json["detail"]

    def test_a_published_version_never_changes(self, client: Client, runtime: Runtime, tenant: int) -> None:
        made = make(client, plain(version="1.0.0", budget=5))
        one = f"{PATH}/{made['id']}"
        client.patch(one, {"schema": plain(version="1.0.0", budget=9)})
        fault = client.post(f"{one}/publish", status=409).json
        assert "higher version" in fault["detail"]
        client.patch(one, {"schema": plain(version="1.1.0", budget=9)})
        assert client.post(f"{one}/publish", status=200).json["version"] == "1.1.0"
        versions = client.get(f"{one}/versions").json["data"]
        assert [(each["version"], each["schema"]["budget"]) for each in versions] == [("1.1.0", 9), ("1.0.0", 5)]
        with runtime.work(tenant, mode="read") as ctx:
            assert len(ctx.session.scalars(select(DefinitionVersion)).all()) == 2

    def test_versions_are_numbered_where_the_document_names_none(self, client: Client) -> None:
        made = make(client, plain())
        one = f"{PATH}/{made['id']}"
        assert made["version"] == "1"
        assert client.post(f"{one}/publish", status=200).json["version"] == "1"
        client.patch(one, {"schema": plain(budget=5)})
        assert client.post(f"{one}/publish", status=200).json["version"] == "2"

    def test_the_revision_guards_against_overwriting(self, client: Client) -> None:
        made = make(client, plain(), publish=False)
        one = f"{PATH}/{made['id']}"
        client.patch(one, {"schema": plain(budget=1), "revision": 1})
        client.patch(one, {"schema": plain(budget=2), "revision": 1}, status=409)
        client.patch(one, {"schema": plain(budget=2)}, status=412, headers={"If-Match": '"1"'})
        assert client.get(one).headers["ETag"] == '"2"'

    def test_the_code_stays(self, client: Client) -> None:
        made = make(client, plain(), publish=False)
        fault = client.patch(f"{PATH}/{made['id']}", {"schema": plain("other")}, status=422).json
        assert fault["errors"][0]["path"] == "schema.id"

    def test_it_is_duplicated_under_another_code(self, client: Client) -> None:
        made = make(client, plain(version="3.0.0", budget=5))
        copy = client.post(f"{PATH}/{made['id']}/duplicate", {"code": "seasonal-2"}).json
        assert (copy["code"], copy["version"], copy["schema"]["budget"]) == ("seasonal-2", None, 5)
        client.post(f"{PATH}/{made['id']}/duplicate", {"code": "seasonal-2"}, status=409)


class TestCampaignsFromIt:
    def test_the_definition_gives_what_is_left_out(self, client: Client, runtime: Runtime, tenant: int) -> None:
        segment, template = make_segment(runtime, tenant, name="VIP"), make_template(runtime, tenant, name="Hello")
        made = make(
            client, plain(segment="VIP", template="Hello", budget="10.50", currency="EUR", data={"tone": "warm"})
        )
        campaign = client.post("/api/v1/campaigns", {"definition_id": made["id"], "data": {"colour": "red"}}).json
        assert (campaign["name"], campaign["segment_id"], campaign["template_id"]) == (
            "Seasonal",
            str(segment),
            str(template),
        )
        assert (campaign["budget"], campaign["currency"]) == ("10.50", "EUR")
        assert campaign["data"] == {"tone": "warm", "colour": "red", "budget": "10.50", "currency": "EUR"}
        assert (campaign["definition_id"], campaign["definition_version"]) == (made["id"], "1")
        own = client.post("/api/v1/campaigns", {"definition_id": made["id"], "name": "Mine", "segment_id": None}).json
        assert (own["name"], own["segment_id"]) == ("Mine", None)

    def test_data_are_held_against_the_schema(self, client: Client, runtime: Runtime, tenant: int) -> None:
        make_template(runtime, tenant, name="welcome-series")
        made = make(client, DRIP)
        body = {"definition_id": made["id"], "data": {"subscriber_email": 5, "subscription_date": "soon"}}
        fault = client.post("/api/v1/campaigns", body, status=422).json
        assert {each["path"]: each["code"] for each in fault["errors"]} == {
            "data.subscriber_email": "wrong_type",
            "data.subscriber_name": "required",
            "data.subscription_date": "not_a_date",
        }
        assert client.get("/api/v1/campaigns").json["data"] == []

    def test_names_that_lead_nowhere_are_told(self, client: Client) -> None:
        made = make(client, plain(segment="VIP", template="Hello"))
        fault = client.post("/api/v1/campaigns", {"definition_id": made["id"]}, status=422).json
        assert [each["path"] for each in fault["errors"]] == ["target_segment", "template"]

    def test_an_audience_spelled_out_becomes_a_segment(self, client: Client) -> None:
        rule = {"conditions": [{"field": "lead_score", "operator": ">", "value": 50}], "logic": "AND"}
        made = make(client, plain(targeting={"segment": rule}))
        bodies = [client.post("/api/v1/campaigns", {"definition_id": made["id"]}).json for _ in range(2)]
        assert bodies[0]["segment_id"] == bodies[1]["segment_id"]
        segment = client.get(f"/api/v1/segments/{bodies[0]['segment_id']}").json
        assert (segment["name"][:9], segment["kind"]) == ("seasonal ", "dynamic")

    def test_another_rule_is_another_audience(self, client: Client) -> None:
        made = make(client, plain())
        audiences = [
            {"conditions": [{"field": "score", "operator": ">", "value": value}], "logic": "AND"} for value in (1, 2)
        ]
        bodies = [{"definition_id": made["id"], "data": {"target_segment": rule}} for rule in audiences]
        first, second = (client.post("/api/v1/campaigns", body).json["segment_id"] for body in bodies)
        assert first != second

    def test_a_start_date_is_changed_while_it_waits(self, client: Client, runtime: Runtime, clock: FakeClock) -> None:
        made = make(client, plain())
        body = {"definition_id": made["id"], "data": {"start_date": "2026-03-04"}}
        one = client.post("/api/v1/campaigns", body).json
        client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200)
        client.patch(f"/api/v1/campaigns/{one['id']}", {"data": {"start_date": "2026-03-10"}})
        clock.advance(days=3)
        tick_due(runtime)
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "queued"
        clock.advance(days=6)
        tick_due(runtime)
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "active"

    def test_conditions_that_lead_round_do_not_keep_a_worker_busy(self, client: Client, runtime: Runtime) -> None:
        stages = ["draft", {"name": "a", "status": "active"}, {"name": "b", "status": "active"}]
        moves = {
            "there": {"from": "a", "to": "b", "condition": "data.on == true"},
            "back": {"from": "b", "to": "a", "condition": "data.on == true"},
        }
        made = make(client, plain(stages=stages, transitions=moves))
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"], "data": {"on": True}}).json
        client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200)
        assert [tick_due(runtime) for _ in range(3)] == [1, 0, 0]

    @pytest.mark.parametrize(
        ("fields", "path", "code"),
        [
            ({"definition_id": "4711"}, "definition_id", "not_found"),
            ({"definition_id": "x"}, "definition_id", "not_found"),
            ({"definition_version": "1"}, "name", "required"),
        ],
    )
    def test_a_definition_that_is_not_there_is_named(
        self, client: Client, fields: dict[str, str], path: str, code: str
    ) -> None:
        fault = client.post("/api/v1/campaigns", fields, status=422).json
        assert [(each["path"], each["code"]) for each in fault["errors"]] == [(path, code)]

    def test_what_is_not_published_or_not_active_begins_nothing(self, client: Client) -> None:
        made = make(client, plain(), publish=False)
        body = {"definition_id": made["id"]}
        assert client.post("/api/v1/campaigns", body, status=422).json["errors"][0]["code"] == "not_published"
        client.post(f"{PATH}/{made['id']}/publish", status=200)
        fault = client.post("/api/v1/campaigns", {**body, "definition_version": "9"}, status=422).json
        assert "published are: 1" in fault["errors"][0]["message"]
        client.post("/api/v1/campaigns", body)
        client.post(f"{PATH}/{made['id']}/deactivate", status=200)
        assert client.post("/api/v1/campaigns", body, status=422).json["errors"][0]["code"] == "not_active"
        client.post(f"{PATH}/{made['id']}/activate", status=200)
        client.post("/api/v1/campaigns", body)

    def test_what_runs_stays_on_its_version(self, client: Client) -> None:
        stages = ["draft", {"name": "warm-up", "status": "active"}, {"name": "full", "status": "active"}]
        schema = plain(stages=stages, transitions={"open_up": {"from": "warm-up", "to": "full"}})
        made = make(client, schema)
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"]}).json
        launched = client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200).json
        assert (launched["status"], launched["stage"]) == ("active", "warm-up")
        client.patch(f"{PATH}/{made['id']}", {"schema": plain()})
        client.post(f"{PATH}/{made['id']}/publish", status=200)
        moved = client.post(f"/api/v1/campaigns/{one['id']}/moves", {"action": "open_up"}, status=200).json
        assert (moved["status"], moved["stage"], moved["definition_version"]) == ("active", "full", "1")
        two = client.post("/api/v1/campaigns", {"definition_id": made["id"]}).json
        fault = client.post(f"/api/v1/campaigns/{two['id']}/moves", {"action": "open_up"}, status=409).json
        assert fault["code"] == "transition_refused"

    def test_stages_keep_the_order_in_which_they_are_written(self, client: Client) -> None:
        stages = {"zz-first": "active", "a": "active", "bb": "active"}
        made = make(client, plain(stages=stages))
        assert list(client.get(f"{PATH}/{made['id']}").json["schema"]["stages"]) == list(stages)
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"]}).json
        assert client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200).json["stage"] == "zz-first"

    def test_a_guard_of_the_definition_says_no(self, client: Client) -> None:
        made = make(client, plain(guards={"launch": "data.approved == true"}))
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"], "data": {"approved": False}}).json
        fault = client.post(f"/api/v1/campaigns/{one['id']}/launch", status=409).json
        assert "data.approved == true does not hold" in fault["detail"]
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "draft"

    def test_its_history_is_listed(self, client: Client) -> None:
        made = make(client, plain())
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"]}).json
        client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200)
        client.post(f"/api/v1/campaigns/{one['id']}/pause", {"reason": "holiday"}, status=200)
        lines = client.get(f"/api/v1/campaigns/{one['id']}/history?sort=id").json["data"]
        assert [(each["version"], each["event"], each["after"]["status"]) for each in lines] == [
            (1, "created", "draft"),
            (2, "launch", "active"),
            (3, "pause", "paused"),
        ]
        assert lines[2]["metadata"] == {"reason": "holiday"}


class TestTheClock:
    def test_a_queued_campaign_starts_when_its_condition_holds(
        self, client: Client, runtime: Runtime, tenant: int, clock: FakeClock
    ) -> None:
        segment, _ = (
            make_segment(runtime, tenant),
            make_template(runtime, tenant, name="welcome-series", content=CONTENT),
        )
        sender(runtime, tenant)
        made = make(client, DRIP)
        body = {"definition_id": made["id"], "data": SUBSCRIBER, "segment_id": str(segment)}
        one = client.post("/api/v1/campaigns", body).json
        queued = client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200).json
        assert queued["status"] == "queued"
        assert tick_due(runtime) == 0
        clock.advance(days=2)
        assert tick_due(runtime) == 1
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "active"
        assert tick_due(runtime) == 0

    def test_a_start_date_in_the_future_waits_for_the_worker(
        self, client: Client, runtime: Runtime, clock: FakeClock
    ) -> None:
        made = make(client, plain())
        start = (clock.now().replace(microsecond=0)).isoformat()
        clock.advance(hours=-1)
        one = client.post("/api/v1/campaigns", {"definition_id": made["id"], "data": {"start_date": start}}).json
        queued = client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200).json
        assert (queued["status"], queued["starts_at"][:19]) == ("queued", start[:19])
        clock.advance(minutes=59)
        assert tick_due(runtime) == 0
        clock.advance(minutes=1)
        assert tick_due(runtime) == 1
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "active"

    def test_what_is_missing_at_the_start_pauses_it_with_the_reason(
        self, client: Client, runtime: Runtime, tenant: int, clock: FakeClock
    ) -> None:
        segment, template = make_segment(runtime, tenant), make_template(runtime, tenant, content=CONTENT)
        account = sender(runtime, tenant)
        body = {"name": "Later", "segment_id": str(segment), "template_id": str(template)}
        one = client.post("/api/v1/campaigns", {**body, "data": {"start_date": "2026-03-05"}}).json
        client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200)
        with runtime.work(tenant) as ctx:
            ctx.session.get(ChannelAccount, (tenant, account)).enabled = False  # type: ignore[union-attr]
        clock.advance(days=4)
        assert tick_due(runtime) == 1
        paused = client.get(f"/api/v1/campaigns/{one['id']}").json
        assert paused["status"] == "paused"
        assert "No email sender is set up" in paused["status_reason"]

    def test_what_a_guard_refuses_is_tried_again_and_does_not_spin(
        self, client: Client, runtime: Runtime, tenant: int, clock: FakeClock
    ) -> None:
        made = make(client, plain(guards={"start": "data.approved == true"}))
        body = {"definition_id": made["id"], "data": {"start_date": "2026-03-03", "approved": False}}
        one = client.post("/api/v1/campaigns", body).json
        client.post(f"/api/v1/campaigns/{one['id']}/launch", status=200)
        clock.advance(days=1)
        assert tick_due(runtime) == 1
        assert tick_due(runtime) == 0
        assert "does not hold" in client.get(f"/api/v1/campaigns/{one['id']}").json["status_reason"]
        changed = {"data": {"start_date": "2026-03-03", "approved": True}}
        client.patch(f"/api/v1/campaigns/{one['id']}", changed)
        assert tick_due(runtime) == 1
        with runtime.work(tenant) as ctx:
            assert tick_campaign(ctx, int(one["id"])) is None
        assert client.get(f"/api/v1/campaigns/{one['id']}").json["status"] == "active"


class Product(HasMarketing):
    """A program's own definition, until the database has one."""

    id = 7
    marketing_config = {  # noqa: RUF012 - as a developer writes it
        "campaigns": {"seasonal": {"budget": 5, "guards": {"launch": lambda c: c.budget < 100}}}
    }


class TestOverTheProgramsOwn:
    @pytest.fixture(autouse=True)
    def home(self, runtime: Runtime, tenant: int, clock: FakeClock) -> Any:
        self.seconds = 0.0
        before, HOME.clock = HOME.clock, clock
        restore = use_storage(SqlStorage(runtime, tenant, now_seconds=lambda: self.seconds))
        yield
        restore()
        HOME.clock = before

    def test_the_database_overrides_and_is_read_again_within_seconds(self, client: Client) -> None:
        assert Product().marketing().campaign().budget == 5
        make(client, plain(budget=50))
        self.seconds += 1.5
        assert Product().marketing().campaign().budget == 50
        launched = Product().marketing().launch_campaign()
        assert (launched.budget, launched.definition) == (50, "seasonal@1")
        row = client.get("/api/v1/campaigns?filter=subject_id == '7'").json["data"][0]
        assert (row["definition_version"], row["subject_type"], row["campaign_key"]) == ("1", "Product", "seasonal")

    def test_the_programs_guards_stay_in_force(self, client: Client) -> None:
        make(client, plain(budget=500))
        assert not Product().marketing().can("launch")

    def test_what_was_launched_on_the_programs_own_goes_on_as_it_began(self, client: Client) -> None:
        Product().marketing().launch_campaign()
        make(client, plain(budget=50, stages=["draft", {"name": "elsewhere", "status": "active"}]))
        self.seconds += 1.5
        paused = Product().marketing().pause()
        assert (paused.stage, paused.budget, paused.definition) == ("paused", 5, None)
        assert Product().marketing().resume().stage == "active"

    def test_a_move_that_the_program_has_code_for_is_not_taken_without_it(self, client: Client) -> None:
        Product().marketing().launch_campaign()
        row = client.get("/api/v1/campaigns?filter=subject_id == '7'").json["data"][0]
        client.post(f"/api/v1/campaigns/{row['id']}/pause", status=200)
        fault = client.post(f"/api/v1/campaigns/{row['id']}/launch", status=409).json
        assert "has code of its own for launch" in fault["detail"]

    def test_what_a_program_records_wakes_the_worker(self, client: Client, runtime: Runtime) -> None:
        moves = {"complete": {"from": "active", "to": "completed", "condition": "data.emails_sent >= 2"}}
        make(client, plain(budget=5, transitions=moves))
        self.seconds += 1.5
        marketing = Product().marketing()
        marketing.launch_campaign()
        marketing.record("email_sent")
        assert tick_due(runtime) == 0
        marketing.record("email_sent")
        assert tick_due(runtime) == 1
        assert marketing.campaign().status == "completed"

    def test_what_is_deactivated_gives_way_again(self, client: Client) -> None:
        made = make(client, plain(budget=50))
        client.post(f"{PATH}/{made['id']}/deactivate", status=200)
        assert Product().marketing().campaign().budget == 5


def sender(runtime: Runtime, tenant: int) -> int:
    """An e-mail channel and an account on it; answers the account's id."""
    runtime.channels["email"] = RecordingChannel()  # type: ignore[index]  # a dict in tests
    config = {"from": "news@example.org", "from_name": "Acme", "postal_address": "1 Street", "public_url": "http://x"}
    with runtime.work(tenant) as ctx:
        row = ChannelAccount(
            type="email", name="main", config=config, enabled=True, created_at=ctx.now, updated_at=ctx.now
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row.id
