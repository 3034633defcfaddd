"""Scores over REST and GraphQL: rules as drafts, published as versions, and every score explained."""

from typing import Any

import pytest

from nexus_marketing.runtime import Runtime
from nexus_marketing.tasks.loops import tend_scores
from tests.common.factories import make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-010", "FR-P2-003")

RULES = {
    "rules": [
        {"key": "visit", "event": "page_visited", "points": 5, "group": "web"},
        {"key": "demo", "event": "form_submitted", "where": "metadata.form == 'demo'", "points": 30, "counts": "once"},
        {"key": "us", "when": "country == 'US'", "points": 10},
    ],
    "groups": {"web": {"max": 12}},
    "max": 100,
    "thresholds": [{"key": "hot", "up": 40, "down": 30}],
}


@pytest.fixture
def lead(runtime: Runtime, tenant: int) -> int:
    return make_leads(runtime, tenant, score=0.0, country="US")[0]


def publish(client: Client, runtime: Runtime, name: str = "score", draft: Any = RULES) -> str:
    id_: str = client.post("/api/v1/scores", {"name": name, "draft": draft}).json["id"]
    client.post(f"/api/v1/scores/{id_}/publish", {}, status=202)
    work(client, runtime, id_)
    return id_


def work(client: Client, runtime: Runtime, score: str) -> None:
    """Until the recompute is done, which waits for transactions of other tests."""
    for _ in range(2_000):
        tend_scores(runtime)
        if client.get(f"/api/v1/scores/{score}/recompute").json["status"] != "running":
            break
    while tend_scores(runtime):
        pass


def track(client: Client, lead: int, type_: str, **values: Any) -> None:
    client.post("/api/v1/engagements", {"type": type_, "lead_id": str(lead), **values})


def errors(answer: Any) -> dict[str, str]:
    return {each["path"]: each["code"] for each in answer.json["errors"]}


def test_a_score_is_drafted_published_and_counts(client: Client, runtime: Runtime, lead: int, unlimited: None) -> None:
    id_ = client.post("/api/v1/scores", {"name": "fit", "description": "Fits us?"}).json["id"]
    assert client.post(f"/api/v1/scores/{id_}/publish", {}, status=409).json["code"] == "conflict"
    made = client.patch(f"/api/v1/scores/{id_}", {"draft": RULES, "version": 1}).json
    assert made["draft"]["rules"][2]["when"]["field"] == "country"  # conditions are kept as trees
    client.patch(f"/api/v1/scores/{id_}", {"description": "x", "version": 1}, status=409)
    begun = client.post(f"/api/v1/scores/{id_}/publish", {"version": made["version"]}, status=202).json
    assert (begun["status"], begun["version"]) == ("running", 1)
    work(client, runtime, id_)
    done = client.get(f"/api/v1/scores/{id_}/recompute").json
    assert (done["status"], done["leads"], done["changed"]) == ("finished", 1, 1)
    shown = client.get(f"/api/v1/scores/{id_}").json
    assert (shown["published"], shown["draft"]) == (1, None)
    (version,) = client.get(f"/api/v1/scores/{id_}/versions").json["data"]
    assert [rule["since"] for rule in version["rules"]["rules"]] == [1, 1, 1]
    assert [row["name"] for row in client.get("/api/v1/scores").json["data"]] == ["fit"]
    scores = client.get(f"/api/v1/leads/{lead}/scores").json["data"]
    assert [(row["name"], row["value"], row["version"]) for row in scores] == [("score", 0.0, None), ("fit", 10.0, 1)]
    assert scores[1]["thresholds"] == {"hot": {"above": False, "told_at": None}}


def test_what_is_published_goes_on_as_the_next_draft(client: Client, runtime: Runtime, unlimited: None) -> None:
    id_ = publish(client, runtime)
    (version,) = client.get(f"/api/v1/scores/{id_}/versions").json["data"]
    client.patch(f"/api/v1/scores/{id_}", {"draft": {**version["rules"], "max": 50}})
    client.post(f"/api/v1/scores/{id_}/publish", status=202)
    newest, _ = client.get(f"/api/v1/scores/{id_}/versions").json["data"]
    assert (newest["version"], newest["rules"]["max"]) == (2, 50)
    assert [rule["since"] for rule in newest["rules"]["rules"]] == [1, 1, 1]  # none of them was changed


def test_a_score_explains_itself(client: Client, runtime: Runtime, lead: int, unlimited: None) -> None:
    publish(client, runtime)
    for _ in range(3):
        track(client, lead, "page_visited")
    track(client, lead, "form_submitted", metadata={"form": "demo"})
    while tend_scores(runtime):
        pass
    client.post(f"/api/v1/leads/{lead}/score", {"score": 60, "reason": "met at the fair"}, status=200)
    found = client.get(f"/api/v1/leads/{lead}/scores/score/explanation").json
    assert (found["value"], found["exact"], found["max"], found["groups"]) == (60.0, 60.0, 100, {"web": 12.0})
    listed = {(row["kind"], row["rule"]): row for row in found["contributions"]}
    assert sum(row["present"] for row in found["contributions"]) == 63.0  # the group lets 12 of 15 through
    assert listed["manual", None]["reason"] == "met at the fair"
    assert listed["manual", None]["actor"].startswith("key:")
    (engagement,) = [
        row["id"]
        for row in client.get(f"/api/v1/leads/{lead}/engagements").json["data"]
        if row["type"] == "form_submitted"
    ]
    assert listed["event", "demo"]["engagement_id"] == engagement
    assert [(row["direction"], row["after"]) for row in found["crossings"]] == [("up", 52.0)]
    assert client.get(f"/api/v1/leads/{lead}").json["score"] == 60.0


def test_a_draft_is_tried_without_a_trace(client: Client, runtime: Runtime, lead: int, unlimited: None) -> None:
    id_ = publish(client, runtime)
    track(client, lead, "page_visited")
    while tend_scores(runtime):
        pass
    draft = {"rules": [{"key": "visit", "event": "page_visited", "points": 50}]}
    before = client.get(f"/api/v1/leads/{lead}/scores").json
    found = client.post(f"/api/v1/scores/{id_}/preview", {"draft": draft, "lead_ids": [str(lead)]}, status=200).json
    assert [(row["lead_id"], row["before"], row["after"]) for row in found["data"]] == [(str(lead), 15.0, 50.0)]
    assert [row["points"] for row in found["data"][0]["contributions"]] == [50.0]
    assert client.get(f"/api/v1/leads/{lead}/scores").json == before
    sample = client.post(f"/api/v1/scores/{id_}/preview", {"draft": draft, "sample": 5}, status=200).json["data"]
    assert len(sample) == 1
    assert client.post(f"/api/v1/scores/{id_}/preview", {}, status=409).json["code"] == "conflict"


def test_every_fault_of_a_draft_is_named_at_once(client: Client) -> None:
    draft = {
        "rules": [
            {"key": "a", "event": "page_visited", "points": 1, "where": "metadata.plan = "},
            {"key": "a", "points": 1},
            {"key": "c", "when": "score > 3", "points": 1, "counts": "once"},
            {"key": "d", "event": "page_visited", "points": 1, "group": "wbe"},
            {"key": "e", "when": "cuntry == 'US'", "points": 1},
        ],
        "groups": {"web": {"min": 3, "max": 1}},
        "decay": {"half_life": "1 day", "steps": [{"after": "1 day", "keep": 0}]},
        "thresholds": [{"key": "hot", "up": 10, "down": 20}],
    }
    answer = client.post("/api/v1/scores", {"name": "fit", "draft": draft}, status=422)
    assert set(errors(answer)) == {
        "draft.rules.0.where",
        "draft.rules.1",
        "draft.rules.1.key",
        "draft.rules.2.when",
        "draft.rules.2.counts",
        "draft.rules.3.group",
        "draft.rules.4.when",
        "draft.groups.web.min",
        "draft.decay",
        "draft.thresholds.0.down",
    }
    assert "did you mean" in str(answer.json)
    form = {"rules": [{"key": "A B", "event": "page_visited", "points": "5"}], "decays": {}}
    answer = client.post("/api/v1/scores", {"name": "Not a name", "draft": {}}, status=422)
    assert errors(answer)["name"] == "not_well_formed"
    answer = client.post("/api/v1/scores", {"name": "fit", "draft": form}, status=422)
    assert errors(answer) == {
        "draft.rules.0.key": "not_well_formed",
        "draft.rules.0.points": "wrong_type",
        "draft.decays": "unknown_field",
    }


def test_a_score_is_removed_but_never_the_leads_own(client: Client, runtime: Runtime, unlimited: None) -> None:
    own, fit = publish(client, runtime), publish(client, runtime, "fit")
    client.delete(f"/api/v1/scores/{own}", status=409)
    client.delete(f"/api/v1/scores/{fit}", status=202)
    client.get(f"/api/v1/scores/{fit}", status=404)
    assert [row["name"] for row in client.get("/api/v1/scores").json["data"]] == ["score"]
    client.post("/api/v1/scores", {"name": "score"}, status=409)


def test_scores_of_many_leads_are_asked_for_at_once(
    client: Client, runtime: Runtime, tenant: int, count_statements: Any, unlimited: None
) -> None:
    publish(client, runtime, "fit")
    make_leads(runtime, tenant, 5, first=10)
    query = "{ leads(limit: 20) { id scores { name value version } } }"
    with count_statements() as few:
        client.post("/graphql", {"query": query.replace("20", "1")}, status=200)
    with count_statements() as statements:
        found = client.post("/graphql", {"query": query}, status=200).json["data"]["leads"]
    assert {each["name"] for row in found for each in row["scores"]} == {"score", "fit"}
    assert len(statements) == len(few)


def test_a_tenants_own_fields_are_pinned_as_they_were(client: Client, runtime: Runtime, unlimited: None) -> None:
    client.post("/api/v1/lead-fields", {"name": "seats", "type": "number"})
    draft = {"rules": [{"key": "large", "when": "seats >= 50", "points": 20}]}
    id_ = publish(client, runtime, "fit", draft)
    (version,) = client.get(f"/api/v1/scores/{id_}/versions").json["data"]
    assert version["rules"]["fields"] == {"seats": "number"}
    lead = client.post("/api/v1/leads", {"email": "ann@example.org", "metadata": {"seats": 80}}).json["id"]
    while tend_scores(runtime):
        pass
    scores = client.get(f"/api/v1/leads/{lead}/scores").json["data"]
    assert [row["value"] for row in scores] == [0.0, 20.0]
