"""Caps, priorities and quiet hours as a tenant and a campaign say them, and the explanation of what came of them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.pacing.frequency import Period, caps_of
from nexus_marketing.core.pacing.quiet import quiet_hours_of
from nexus_marketing.core.pacing.rates import rates_of
from nexus_marketing.core.pacing.warm_up import warm_ups_of
from nexus_marketing.db.models import Campaign, Delivery, Send
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenant_settings import check_settings
from tests.common.factories import make_campaign, make_leads, make_send, make_template
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("BR-001", "FR-P2-004")

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "limit-messages.md"


def test_the_page_shows_settings_that_can_be_applied() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    settings = check_settings(tomllib.loads("".join(blocks))["settings"])
    assert [(cap.count, cap.window) for cap in caps_of(settings)] == [(1, Period.DAY), (3, Period.WEEK)]
    assert len(quiet_hours_of(settings, "email")) == 1
    assert [limit.count for limit in rates_of(settings, "email")] == [14, 50_000, 100, 2000]
    assert [len(plan.daily) for plan in warm_ups_of(settings)] == [11]


def test_every_fault_of_the_settings_has_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        check_settings({"frequency_caps": [{"count": 0}], "quiet_hours": [{"from": "9", "to": "10:00"}]})
    assert [problem.path for problem in caught.value.problems] == [
        "settings.frequency_caps[0].count",
        "settings.quiet_hours[0].from",
    ]


def test_a_campaign_says_how_it_takes_part(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "plain"}).json
    assert (made["priority"], made["obeys_caps"], made["counts_toward_caps"]) == (50, True, True)
    made = client.post("/api/v1/campaigns", {"name": "urgent", "priority": 90, "obeys_caps": False}).json
    changed = client.patch(f"/api/v1/campaigns/{made['id']}", {"priority": 10, "counts_toward_caps": False}).json
    assert (changed["priority"], changed["obeys_caps"], changed["counts_toward_caps"]) == (10, False, False)
    for wrong in ({"priority": 101}, {"priority": "high"}, {"obeys_caps": "no"}):
        refused = client.post("/api/v1/campaigns", {"name": "x", **wrong}, status=422).json
        assert [each["path"] for each in refused["errors"]] == list(wrong)


def test_a_campaign_has_rates_of_its_own(client: Client) -> None:
    rates = [{"count": 100, "per": "1 minute"}, {"count": 5000, "per": "1 day"}]
    made = client.post("/api/v1/campaigns", {"name": "slow", "send_rates": rates}).json
    assert made["send_rates"] == client.get(f"/api/v1/campaigns/{made['id']}").json["send_rates"] == rates
    assert client.patch(f"/api/v1/campaigns/{made['id']}", {"send_rates": None}).json["send_rates"] is None
    wrong = [{"count": 0, "per": "1 minute"}, {"count": 1, "per": "1 day", "domains": ["gmail.com"]}]
    refused = client.post("/api/v1/campaigns", {"name": "x", "send_rates": wrong}, status=422).json
    assert [each["path"] for each in refused["errors"]] == ["send_rates[0].count", "send_rates[1].domains"]
    refused = client.post("/api/v1/campaigns", {"name": "x", "send_rates": [{"count": 1}, wrong[1]]}, status=422).json
    assert [each["path"] for each in refused["errors"]] == ["send_rates[0].per", "send_rates[1].domains"]
    asked = "mutation ($input: CreateCampaignInput!) { createCampaign(input: $input) { sendRates } }"
    given = {"query": asked, "variables": {"input": {"name": "g", "sendRates": rates}}}
    assert client.post("/graphql", given, status=200).json["data"]["createCampaign"] == {"sendRates": rates}


@pytest.mark.req("BR-008", "US-013")
def test_a_campaign_says_what_it_goes_out_by(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "plain"}).json
    assert (made["channel"], made["channels"], made["wait_for"]) == ("email", None, "all")
    both = {"sms": {"template_id": None}, "email": {"template_id": None}}
    made = client.post("/api/v1/campaigns", {"name": "both", "channels": both, "wait_for": "any"}).json
    assert (made["channel"], made["channels"], made["wait_for"]) == ("sms", both, "any")
    assert list(client.get(f"/api/v1/campaigns/{made['id']}").json["channels"]) == ["sms", "email"]
    changed = client.patch(f"/api/v1/campaigns/{made['id']}", {"wait_for": 2}).json
    assert changed["wait_for"] == "2"
    asked = "mutation ($input: CreateCampaignInput!) { createCampaign(input: $input) { channel channels waitFor } }"
    answer = client.post(
        "/graphql", {"query": asked, "variables": {"input": {"name": "g", "channels": both}}}, status=200
    ).json
    assert answer["data"]["createCampaign"] == {"channel": "sms", "channels": both, "waitFor": "all"}


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"channels": {}}, "channels"),
        ({"channels": {"sms": {}}}, "channels.sms.template_id"),
        ({"channels": {"sms": {"template": "7"}}}, "channels.sms.template"),
        ({"channels": {"sms": "7"}}, "channels.sms"),
        ({"channels": {f"c{n}": {"template_id": None} for n in range(11)}}, "channels"),
        ({"wait_for": 0}, "wait_for"),
        ({"wait_for": "both"}, "wait_for"),
        ({"wait_for": "9" * 5000}, "wait_for"),
        ({"wait_for": True}, "wait_for"),
    ],
)
def test_channels_that_cannot_be_are_refused_with_their_place(client: Client, wrong: dict[str, Any], path: str) -> None:
    refused = client.post("/api/v1/campaigns", {"name": "x", **wrong}, status=422).json
    assert path in [each["path"] for each in refused["errors"]]


def test_an_explanation_is_for_a_lead_and_a_campaign(client: Client, stranger: Client, runtime: Runtime) -> None:
    lead, absent = make_leads(runtime, client.tenant_id, 2)
    campaign = make_campaign(runtime, client.tenant_id)
    make_send(runtime, client.tenant_id, campaign, make_template(runtime, client.tenant_id), [lead])
    found = client.get(f"/api/v1/leads/{lead}/explanation?campaign_id={campaign}").json
    assert found["sentence"] == "The message is planned and has not been handed over yet."
    assert [each["state"] for each in found["deliveries"]] == ["planned"]
    assert (
        "not in the campaign's segment"
        in client.get(f"/api/v1/leads/{absent}/explanation?campaign_id={campaign}").json["sentence"]
    )
    client.get(f"/api/v1/leads/{lead}/explanation", status=422)
    client.get(f"/api/v1/leads/{lead}/explanation?campaign_id=987654", status=404)
    stranger.get(f"/api/v1/leads/{lead}/explanation?campaign_id={campaign}", status=404)


def test_dead_letters_are_listed_in_pages_and_replayed(client: Client, stranger: Client, runtime: Runtime) -> None:
    leads = make_leads(runtime, client.tenant_id, 5)
    campaign = make_campaign(runtime, client.tenant_id, status="completed")
    send = make_send(runtime, client.tenant_id, campaign, make_template(runtime, client.tenant_id), leads)
    with runtime.work(client.tenant_id) as ctx:
        ctx.session.execute(update(Delivery).values(state="failed", reason="exhausted", settled_at=ctx.now))
        ctx.session.execute(update(Send).values(status="completed", finished_at=ctx.now))
    path = f"/api/v1/campaigns/{campaign}/dead-letters"
    first = client.get(f"{path}?limit=3").json
    second = client.get(f"{path}?limit=3&cursor={first['next']}").json
    rows = [*first["data"], *second["data"]]
    assert [row["lead_id"] for row in rows] == list(map(str, leads))
    assert {(row["send_id"], row["state"], row["reason"]) for row in rows} == {(str(send), "failed", "exhausted")}
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)
    assert client.get(f"{path}?state=unknown").json["data"] == []
    client.get(f"{path}?state=accepted", status=422)
    client.post(f"{path}/replay", {"reason": "because"}, status=422)
    stranger.get(path, status=404)
    stranger.post(f"{path}/replay", {}, status=404)
    assert client.post(f"{path}/replay", {"lead_id": str(leads[0])}, status=202).json == {
        "replayed": 1,
        "has_more": False,
    }
    assert client.post(f"{path}/replay", {}, status=202).json["replayed"] == 4
    assert client.post(f"{path}/accept", {}, status=200).json["accepted"] == 0


def test_a_strangers_template_is_as_unknown_as_any(client: Client, stranger: Client) -> None:
    content = {"name": "t", "type": "text", "content": {"text": "Hi"}}
    theirs = stranger.post("/api/v1/templates", content).json["id"]
    bodies = [{"name": "x", "channels": {"sms": {"template_id": each}}} for each in (theirs, "987654321")]
    foreign, unknown = [client.post("/api/v1/campaigns", body, status=422).json["errors"] for body in bodies]
    assert foreign == unknown
    assert foreign[0]["path"] == "channels.sms.template_id"


@pytest.mark.req("US-013")
def test_a_preflight_is_asked_for_looked_at_and_launched_by(client: Client, stranger: Client, runtime: Runtime) -> None:
    campaign = client.post("/api/v1/campaigns", {"name": "soon"}).json["id"]
    path = f"/api/v1/campaigns/{campaign}/preflights"
    asked = client.post(path, {}, status=202).json
    assert (asked["status"], [each["code"] for each in asked["problems"]]) == (
        "done",
        ["no_audience", "no_template", "no_sender", "unknown_channel"],
    )
    assert client.get(f"{path}/{asked['id']}").json["campaign_id"] == campaign
    other = client.post("/api/v1/campaigns", {"name": "other"}).json["id"]
    client.get(f"/api/v1/campaigns/{other}/preflights/{asked['id']}", status=404)
    stranger.get(f"{path}/{asked['id']}", status=404)
    launch = f"/api/v1/campaigns/{campaign}/launch"
    refused = client.post(launch, {"preflight_id": asked["id"]}, status=409).json
    assert "found problems" in refused["detail"]
    wrong = client.post(launch, {"tolerance": 3}, status=422).json
    assert [each["path"] for each in wrong["errors"]] == ["tolerance"]
    client.post(launch, {"preflight_id": "999999"}, status=404)
    graph = "mutation ($id: ID!, $seen: ID) { launchCampaign(id: $id, preflightId: $seen) { id } }"
    body = {"query": graph, "variables": {"id": campaign, "seen": asked["id"]}}
    answer = client.post("/graphql", body, status=200).json
    assert "found problems" in answer["errors"][0]["message"]


@pytest.mark.req("FR-P3-006")
def test_a_recurring_campaign_shows_its_rule_and_its_next_run(client: Client, runtime: Runtime) -> None:
    rule = {"cron": "0 9 * * mon", "time_zone": "Europe/Berlin", "count": 4}
    made = client.post("/api/v1/campaigns", {"name": "weekly", "recurrence": rule}).json
    assert (made["recurrence"], made["next_run_at"]) == (rule, None)
    path = f"/api/v1/campaigns/{made['id']}/next-run"
    assert "waits for no run" in client.put(path, {"at": "2026-12-01T09:00:00Z"}, status=409).json["detail"]
    client.put(path, {}, status=422)
    client.put(path, {"at": "noon"}, status=422)
    with runtime.work(client.tenant_id) as ctx:
        campaign = ctx.session.get_one(Campaign, (client.tenant_id, int(made["id"])))
        campaign.status, campaign.next_run_at = "active", ctx.now
    moved = client.put(path, {"at": "2026-12-01T09:00:00Z"}, status=200).json
    assert moved["next_run_at"].startswith("2026-12-01T09:00:00")
    assert client.put(path, {"at": None}, status=200).json["next_run_at"].startswith("2026-12-07T08:00:00")
    asked = "mutation ($i: CreateCampaignInput!) { createCampaign(input: $i) { recurrence nextRunAt } }"
    body = {"query": asked, "variables": {"i": {"name": "g", "recurrence": rule}}}
    answer = client.post("/graphql", body, status=200).json["data"]["createCampaign"]
    assert answer == {"recurrence": rule, "nextRunAt": None}
    for wrong, where in (
        ({"cron": "x"}, "recurrence.cron"),
        ({}, "recurrence.cron"),
        ({**rule, "count": 0}, "recurrence.count"),
    ):
        refused = client.post("/api/v1/campaigns", {"name": "x", "recurrence": wrong}, status=422).json
        assert [each["path"] for each in refused["errors"]] == [where]
