"""``/graphql`` from the outside."""

from collections.abc import Callable
from typing import Any

import pytest

from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_segment
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-003", "SR-007")


def ask(client: Client, query: str, status: int = 200, **variables: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/graphql", {"query": query, "variables": variables}, status=status).json
    return answer


def test_campaigns_with_their_leads_and_segments_are_asked_in_one_go(
    client: Client, runtime: Runtime, tenant: int
) -> None:
    ids = make_leads(runtime, tenant, 3)
    segment = make_segment(runtime, tenant, ids, name="Everybody")
    for name in ("One", "Two"):
        make_campaign(runtime, tenant, name, segment_id=segment, budget_minor=150050, currency="EUR")
    make_campaign(runtime, tenant, "Nobody")
    query = "{ campaigns { name status budget leads(limit: 2) { id email score segments { name leadCount } } } }"
    data = ask(client, query)["data"]["campaigns"]
    assert [row["name"] for row in data] == ["Nobody", "Two", "One"]
    assert data[0]["leads"] == []
    assert data[1]["status"] == "DRAFT"
    assert data[1]["budget"] == 1500.5
    assert [lead["id"] for lead in data[1]["leads"]] == [str(ids[0]), str(ids[1])]
    assert data[1]["leads"][0]["segments"] == [{"name": "Everybody", "leadCount": 3}]


def test_nested_lists_take_one_statement_per_level(
    client: Client, runtime: Runtime, tenant: int, count_statements: Callable[[], Any]
) -> None:
    ids = make_leads(runtime, tenant, 5)
    for number in range(5):
        segment = make_segment(runtime, tenant, ids, name=f"Segment {number}")
        make_campaign(runtime, tenant, f"Campaign {number}", segment_id=segment)
    ask(client, "{ campaigns { id } }")  # the key is known now
    with count_statements() as statements:
        ask(client, "{ campaigns { leads { segments { name } } } }")
    assert len(statements) == 3


def test_campaigns_are_filtered_by_status(client: Client, runtime: Runtime, tenant: int) -> None:
    make_campaign(runtime, tenant, "Draft")
    make_campaign(runtime, tenant, "Running", status="active")
    query = "query Some($status: CampaignStatus) { campaigns(status: $status) { name } }"
    body = {"query": query, "variables": {"status": "ACTIVE"}}
    assert client.post("/graphql", body, status=200).json["data"]["campaigns"] == [{"name": "Running"}]


def test_leads_are_filtered_by_segment_and_score(client: Client, runtime: Runtime, tenant: int) -> None:
    ids = make_leads(runtime, tenant, 4, first=50)
    segment = make_segment(runtime, tenant, ids[:3])
    query = "query Some($segment: ID, $score: Int) { leads(segment: $segment, score: $score) { id score } }"
    found = ask(client, query, segment=str(segment), score=51)["data"]["leads"]
    assert sorted(row["id"] for row in found) == [str(ids[1]), str(ids[2])]


def test_an_unknown_id_is_null(client: Client) -> None:
    assert ask(client, '{ lead(id: "999") { id } campaign(id: "x") { id } }')["data"] == {
        "lead": None,
        "campaign": None,
    }


def test_analytics_are_part_of_a_campaign(client: Client, runtime: Runtime, tenant: int) -> None:
    campaign = make_campaign(runtime, tenant)
    query = "query One($id: ID!) { campaign(id: $id) { analytics { planned skipped opens unsubscribes } } }"
    numbers = ask(client, query, id=str(campaign))["data"]["campaign"]["analytics"]
    assert numbers["planned"] == 0
    assert numbers["skipped"] == {}


def test_a_launch_that_is_refused_changes_nothing(client: Client, runtime: Runtime, tenant: int) -> None:
    campaign = make_campaign(runtime, tenant)
    answer = ask(client, "mutation Go($id: ID!) { launchCampaign(id: $id) { status } }", id=str(campaign))
    assert answer["data"] is None
    assert answer["errors"][0]["extensions"]["code"] == "validation_failed"
    assert "no_audience" in [problem["code"] for problem in answer["errors"][0]["extensions"]["errors"]]
    assert client.get(f"/api/v1/campaigns/{campaign}").json["status"] == "draft"


def test_introspection_works_with_a_key(client: Client) -> None:
    from graphql import get_introspection_query

    kinds = ask(client, get_introspection_query())["data"]["__schema"]["types"]
    assert {"Campaign", "Lead", "Segment", "CampaignStatus"} <= {kind["name"] for kind in kinds}


@pytest.mark.parametrize("query", ["{ leads { id } }", "{ __schema { types { name } } }"])
def test_nothing_is_answered_without_a_key(client: Client, query: str) -> None:
    client.headers = {}
    client.post("/graphql", {"query": query}, status=401)


def test_get_is_refused(client: Client) -> None:
    assert client.get("/graphql?query={leads{id}}", status=405).headers["Allow"] == "POST"


def test_a_form_is_no_way_in(client: Client) -> None:
    response = client.app.post(
        "/graphql",
        params=b"query={leads{id}}",
        headers={**client.headers, "Content-Type": "application/x-www-form-urlencoded"},
        status=415,
    )
    assert response.json["errors"][0]["code"] == "unsupported_media_type"


def test_a_syntax_error_names_the_place(client: Client) -> None:
    error = ask(client, "{ leads { id ", status=400)["errors"][0]
    assert error["extensions"]["code"] == "graphql_invalid"
    assert error["locations"] == [{"line": 1, "column": 14}]


@pytest.mark.req("SR-003")
@pytest.mark.parametrize("limit", [0, -1, 101, 1_000_000])
def test_a_list_is_bounded(client: Client, limit: int) -> None:
    answer = ask(client, "query Some($limit: Int) { leads(limit: $limit) { id } }", limit=limit)
    assert answer["errors"][0]["extensions"]["errors"][0]["path"] == "limit"


def test_fields_have_permissions_of_their_own(
    make_client: Callable[..., Client], runtime: Runtime, tenant: int
) -> None:
    make_campaign(runtime, tenant)
    client = make_client(tenant, ["campaigns:read"])
    assert ask(client, "{ campaigns { name } }")["data"]["campaigns"] == [{"name": "Spring"}]
    for query in ("{ leads { id } }", "{ campaigns { leads { id } } }", 'mutation { launchCampaign(id: "1") { id } }'):
        answer = ask(client, query)
        assert answer["errors"][0]["extensions"]["code"] == "permission_denied"
        assert answer["data"] is None


@pytest.mark.req("FR-P2-009")
def test_a_lead_has_the_fields_that_rest_shows(client: Client, runtime: Runtime, tenant: int) -> None:
    leads = make_leads(runtime, tenant, 1, phone="+4930123456", external_id="crm-1", tags=["vip"])
    campaign = make_campaign(runtime, tenant, segment_id=make_segment(runtime, tenant, leads))
    fields = "phone externalId tags country locale timeZone firstName lastName ownerId version createdAt metadata"
    query = f'{{ lead(id: "{leads[0]}") {{ {fields} }} campaign(id: "{campaign}") {{ leads {{ {fields} }} }} }}'
    data = client.post("/graphql", {"query": query}, status=200).json["data"]
    assert data["campaign"]["leads"] == [data["lead"]]
    assert (data["lead"]["phone"], data["lead"]["externalId"], data["lead"]["tags"]) == (
        "+4930123456",
        "crm-1",
        ["vip"],
    )
    assert (data["lead"]["timeZone"], data["lead"]["ownerId"], data["lead"]["version"]) == ("UTC", None, 1)


@pytest.mark.req("US-016", "FR-P2-007")
def test_engagements_of_leads_and_campaigns_are_the_newest_by_type(
    client: Client, runtime: Runtime, tenant: int, count_statements: Callable[[], Any]
) -> None:
    first, second = make_leads(runtime, tenant, 2)
    campaign = make_campaign(runtime, tenant)
    rows = [
        {"type": kind, "lead_id": str(lead), "campaign_id": str(campaign), "tracked_at": f"2026-03-02T0{hour}:00:00Z"}
        for hour, (kind, lead) in enumerate(
            [("conversion", first), ("page_visited", first), ("page_visited", second), ("page_visited", first)]
        )
    ]
    client.post("/api/v1/engagements", rows, status=200)
    query = "{ leads { id engagements(type: PAGE_VISITED, limit: 1) { type trackedAt leadId metadata } } }"
    ask(client, "{ leads { id } }")
    with count_statements() as statements:
        found = {row["id"]: row["engagements"] for row in ask(client, query)["data"]["leads"]}
    assert len(statements) == 2
    assert [row["trackedAt"][11:13] for row in found[str(first)]] == ["03"]
    assert found[str(second)][0] == {
        "type": "PAGE_VISITED", "trackedAt": "2026-03-02T02:00:00+00:00", "leadId": str(second), "metadata": {},
    }  # fmt: skip
    data = ask(client, "{ campaigns { engagements { type } } }")["data"]["campaigns"][0]["engagements"]
    assert [row["type"] for row in data] == ["PAGE_VISITED"] * 3 + ["CONVERSION"]


def test_journeys_are_put_in_force_entered_and_held(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant, 1)
    draft = {"id": "way", "nodes": {"wait": {"type": "delay", "for": "1 day"}}}
    make = 'mutation ($draft: JSON!) { createJourney(name: "Way", draft: $draft) { id status published } }'
    made = ask(client, make, draft=draft)["data"]["createJourney"]
    assert (made["status"], made["published"]) == ("DRAFT", None)
    go = "mutation ($id: ID!) { publishJourney(id: $id) { status published } }"
    assert ask(client, go, id=made["id"])["data"]["publishJourney"] == {"status": "PUBLISHED", "published": 1}
    come = "mutation ($it: EnterJourneyInput!) { enterJourney(input: $it) { leadId outcome runId } }"
    (entry,) = ask(client, come, it={"journeyId": made["id"], "leadIds": [str(lead)]})["data"]["enterJourney"]
    assert (entry["leadId"], entry["outcome"]) == (str(lead), "entered")
    asked = 'query ($id: ID!) { journeyRuns(journey: $id, state: "ready") { id leadId node state } }'
    (run,) = ask(client, asked, id=made["id"])["data"]["journeyRuns"]
    assert run == {"id": entry["runId"], "leadId": str(lead), "node": "wait", "state": "ready"}
    hold = "mutation ($id: ID!) { pauseJourney(id: $id) { status } resumeJourney(id: $id, policy: SHIFT) { status } }"
    held = ask(client, hold, id=made["id"])["data"]
    assert (held["pauseJourney"], held["resumeJourney"]) == ({"status": "PAUSED"}, {"status": "PUBLISHED"})
    assert ask(client, "{ journeys(status: PUBLISHED) { name } }")["data"]["journeys"] == [{"name": "Way"}]
    back = "mutation ($it: ReviveJourneyInput!) { reviveJourney(input: $it) { node reason runs what } }"
    assert ask(client, back, it={"journeyId": made["id"], "dryRun": True})["data"]["reviveJourney"] == []
    words = ask(client, "mutation ($id: ID!) { patchJourney(id: $id) { published } }", id=made["id"])
    assert "Nothing differs" in words["errors"][0]["message"]
    end = "mutation ($id: ID!) { stopJourney(id: $id, compensate: true) { status } }"
    assert ask(client, end, id=made["id"])["data"]["stopJourney"] == {"status": "STOPPED"}
