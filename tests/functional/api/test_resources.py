"""Each resource from the outside: created, shown, listed, changed."""

from typing import Any

import pytest

from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenants import create_member
from tests.common.factories import make_leads, make_segment, make_send, make_template
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-003", "FR-P2-007", "SR-007")

CONTENT = {
    "subject": "Hello {{ first_name }}",
    "html": "<p>Hello</p><p>{{ postal_address }}</p><a href='{{ unsubscribe_url }}'>out</a>",
    "text": "Hello\n{{ postal_address }}\n{{ unsubscribe_url }}",
}


def test_the_root_names_tenant_and_scopes(client: Client) -> None:
    root = client.get("/api/v1").json
    assert root["tenant_id"] == str(client.tenant_id)
    assert "leads:read" in root["scopes"]
    for path in root["resources"].values():
        client.send("GET", path)


def test_a_dynamic_segment_is_created_from_text_and_shown_as_json(client: Client) -> None:
    made = client.post("/api/v1/segments", {"name": "Hot", "conditions": "score > 50 AND country == 'US'"}).json
    assert made["kind"] == "dynamic"
    assert isinstance(made["conditions"], dict)
    assert client.get(f"/api/v1/segments/{made['id']}").json == made
    changed = client.patch(f"/api/v1/segments/{made['id']}", {"conditions": made["conditions"], "name": "Hotter"})
    assert changed.json["name"] == "Hotter"
    assert changed.json["conditions"] == made["conditions"]


def test_recalculation_is_accepted_for_later(client: Client) -> None:
    made = client.post("/api/v1/segments", {"name": "Hot", "conditions": "score > 50"}).json
    client.post(f"/api/v1/segments/{made['id']}/recalculate", status=202)


def test_a_static_segment_lists_its_leads(client: Client, runtime: Runtime, tenant: int) -> None:
    ids = make_leads(runtime, tenant, 3)
    body = {"name": "By hand", "kind": "static", "lead_ids": [str(ids[0]), str(ids[2])]}
    made = client.post("/api/v1/segments", body).json
    listed = client.get(f"/api/v1/segments/{made['id']}/leads?sort=id").json
    assert [row["id"] for row in listed["data"]] == [str(ids[0]), str(ids[2])]


def test_a_segment_in_use_is_not_deleted(client: Client, runtime: Runtime, tenant: int) -> None:
    segment = make_segment(runtime, tenant)
    client.post("/api/v1/campaigns", {"name": "Uses it", "segment_id": str(segment)})
    fault = client.delete(f"/api/v1/segments/{segment}", status=409).json
    assert "Campaigns use this segment" in fault["detail"]


def test_an_unused_segment_is_deleted(client: Client, runtime: Runtime, tenant: int) -> None:
    segment = make_segment(runtime, tenant)
    assert client.delete(f"/api/v1/segments/{segment}", status=204).body == b""
    client.get(f"/api/v1/segments/{segment}", status=404)


def test_changed_content_is_a_new_version_of_a_template(client: Client) -> None:
    made = client.post("/api/v1/templates", {"name": "Welcome", "type": "email", "content": CONTENT}).json
    assert made["version"] == 1
    changed = client.patch(f"/api/v1/templates/{made['id']}", {"content": {**CONTENT, "subject": "Hi"}})
    assert changed.json["version"] == 2
    assert client.get("/api/v1/templates").json["data"] == [changed.json]


def welcome(client: Client, **values: object) -> dict[str, Any]:
    body = {"name": "Welcome", "type": "email", "content": CONTENT, **values}
    made: dict[str, Any] = client.post("/api/v1/templates", body).json
    return made


@pytest.mark.req("FR-P2-011")
def test_a_template_is_duplicated_with_its_newest_content(client: Client) -> None:
    made = welcome(client, variables={"city": {"fallback": "town"}})
    newest = client.patch(f"/api/v1/templates/{made['id']}", {"content": {**CONTENT, "subject": "Newer"}}).json
    answer = client.post(f"/api/v1/templates/{made['id']}/duplicate", {"name": "Welcome back"})
    copy = answer.json
    assert (copy["name"], copy["version"], answer.headers["ETag"]) == ("Welcome back", 1, '"1"')
    assert client.get(answer.headers["Location"]).json == copy
    assert {name: copy[name] for name in ("type", "content", "variables")} == {
        name: newest[name] for name in ("type", "content", "variables")
    }
    client.patch(f"/api/v1/templates/{copy['id']}", {"content": {**CONTENT, "subject": "Elsewhere"}})
    assert client.get(f"/api/v1/templates/{made['id']}").json == newest


@pytest.mark.req("FR-P2-011")
def test_a_duplicate_without_a_name_gets_one(client: Client) -> None:
    made = welcome(client, name="W" * 200)
    path = f"/api/v1/templates/{made['id']}/duplicate"
    assert client.post(path).json["name"] == "W" * 193 + " (copy)"
    assert "choose another name" in client.post(path, status=409).json["detail"]
    client.post(path, {"name": ""}, status=422)
    client.post(path, {"nam": "x"}, status=422)
    once = [client.post(path, {"name": "Once"}, headers={"Idempotency-Key": "d"}) for _ in range(2)]
    assert once[0].json == once[1].json
    assert once[1].headers["Idempotency-Replayed"] == "true"


@pytest.mark.req("FR-P2-011")
def test_a_template_is_deleted(client: Client) -> None:
    made = welcome(client)
    path = f"/api/v1/templates/{made['id']}"
    client.patch(path, {"content": {**CONTENT, "subject": "Newer"}})
    for _ in range(2):
        assert client.delete(path, status=204, headers={"Idempotency-Key": "once"}).body == b""
    client.get(path, status=404)
    client.delete(path, status=404)
    assert client.get("/api/v1/templates").json["data"] == []
    welcome(client)


@pytest.mark.req("FR-P2-011")
def test_a_template_in_use_is_not_deleted(client: Client, runtime: Runtime, tenant: int) -> None:
    template, sent = (make_template(runtime, tenant, name) for name in ("Welcome", "Sent"))
    campaign = client.post("/api/v1/campaigns", {"name": "Uses it", "template_id": str(template)}).json["id"]
    make_send(runtime, tenant, int(campaign), sent, make_leads(runtime, tenant))
    fault = client.delete(f"/api/v1/templates/{template}", status=409).json
    assert f"Campaigns use this template: {campaign}" in fault["detail"]
    fault = client.delete(f"/api/v1/templates/{sent}", status=409).json
    assert "links lead by it" in fault["detail"]
    assert len(client.get("/api/v1/templates").json["data"]) == 2


def test_a_template_with_an_unknown_variable_is_refused_with_the_place(client: Client) -> None:
    content = {**CONTENT, "text": "Hello {{ frist_name }}"}
    fault = client.post("/api/v1/templates", {"name": "W", "type": "email", "content": content}, status=422).json
    assert fault["errors"][0]["path"].startswith("content.text")
    assert "frist_name" in fault["errors"][0]["message"]


def test_money_is_in_major_units(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring", "budget": "1000.50", "currency": "EUR"}).json
    assert made["budget"] == "1000.50"
    listed = client.get("/api/v1/campaigns?fields=budget").json["data"]
    assert listed == [{"budget": "1000.50", "currency": "EUR"}]
    fault = client.post("/api/v1/campaigns", {"name": "x", "budget": 1.005, "currency": "EUR"}, status=422).json
    assert fault["errors"][0]["path"] == "budget"


def test_a_campaign_without_audience_is_not_launched(client: Client, runtime: Runtime, tenant: int) -> None:
    template = make_template(runtime, tenant)
    made = client.post("/api/v1/campaigns", {"name": "Spring", "template_id": str(template)}).json
    fault = client.post(f"/api/v1/campaigns/{made['id']}/launch", status=422).json
    assert "no_audience" in [error["code"] for error in fault["errors"]]
    assert client.get(f"/api/v1/campaigns/{made['id']}").json["status"] == "draft"


def test_deleting_a_campaign_cancels_it(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"}).json
    assert client.delete(f"/api/v1/campaigns/{made['id']}").json["status"] == "cancelled"
    fault = client.delete(f"/api/v1/campaigns/{made['id']}", status=409).json
    assert fault["code"] == "transition_refused"


def test_analytics_of_a_draft_are_zeros(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"}).json
    numbers = client.get(f"/api/v1/campaigns/{made['id']}/analytics").json
    assert numbers["planned"] == 0
    assert numbers["skipped"] == {}


def test_members_are_shown(client: Client, runtime: Runtime, tenant: int) -> None:
    with runtime.work(tenant, role="app") as ctx:
        boss = create_member(ctx, "Bo", "bo@example.org", "owner")
        create_member(ctx, "Cy", "cy@example.org", "marketer", manager_id=boss.id)
    listed = client.get("/api/v1/members?sort=id").json["data"]
    assert [row["name"] for row in listed] == ["Bo", "Cy"]
    assert listed[1]["manager_id"] == listed[0]["id"]
    assert client.get(f"/api/v1/members/{listed[0]['id']}").json == listed[0]


def test_one_engagement_is_accepted_once(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    body = {"type": "form_submitted", "lead_id": str(lead), "event_id": "e-1", "metadata": {"form": "demo"}}
    assert client.post("/api/v1/engagements", body).json["status"] == "accepted"
    assert client.post("/api/v1/engagements", body, status=200).json["status"] == "duplicate"
    shown = client.get(f"/api/v1/leads/{lead}/engagements").json["data"]
    assert [(row["type"], row["lead_id"], row["metadata"]) for row in shown] == [
        ("form_submitted", str(lead), {"form": "demo"})
    ]


def test_many_engagements_are_judged_row_by_row(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    good = {"type": "page_visited", "lead_id": str(lead)}
    rows = [good, {"type": "page_visited", "lead_id": "999999"}, {"type": "Bad Type", "lead_id": str(lead)}, 7, good]
    answer = client.post("/api/v1/engagements", rows, status=200).json
    assert [row["status"] for row in answer["data"]] == ["accepted", "rejected", "rejected", "rejected", "accepted"]
    assert (answer["accepted"], answer["rejected"], answer["duplicate"]) == (2, 3, 0)
    assert answer["data"][2]["errors"][0]["path"] == "type"


def test_a_single_engagement_of_an_unknown_lead_is_refused(client: Client) -> None:
    fault = client.post("/api/v1/engagements", {"type": "page_visited", "lead_id": "999"}, status=422).json
    assert fault["errors"] == [{"path": "lead_id", "code": "not_found", "message": "There is no such lead."}]


def test_a_score_is_set_with_a_reason(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    assert (
        client.post(f"/api/v1/leads/{lead}/score", {"score": 72.5, "reason": "demo"}, status=200).json["score"] == 72.5
    )
