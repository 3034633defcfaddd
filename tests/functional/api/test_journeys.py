"""Journeys at the door: programs that bring leads in, members who answer, operators who move runs."""

from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.actors import Actor
from nexus_marketing.db.models import JourneyArrival
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenants import create_key, create_member
from nexus_marketing.tasks.loops import WorkerLoop
from tests.common.factories import make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-020", "FR-P3-004", "FR-P3-011", "SR-001")

BYE = {"bye": {"type": "exit", "reason": "seen"}}


@pytest.fixture
def runtime(sqlite_only_runtime: Runtime) -> Runtime:
    """One database: nothing here is put another way in SQL."""
    return sqlite_only_runtime


def work(runtime: Runtime) -> None:
    loop = WorkerLoop(runtime, lambda: False)
    try:
        while loop.turn():
            pass
    finally:
        loop.finish()


def publish(client: Client, nodes: dict[str, Any], **entry: Any) -> str:
    draft = {"id": "way", "entry": entry or {"triggers": [{"on": "api"}]}, "nodes": nodes}
    journey = client.post("/api/v1/journeys", {"name": "Way", "draft": draft}).json
    client.post(f"/api/v1/journeys/{journey['id']}/publish", status=200)
    return f"/api/v1/journeys/{journey['id']}"


def test_a_program_brings_a_lead_in_once_an_occurrence(client, runtime):
    make_leads(runtime, client.tenant_id, 2)
    nodes = {
        "which": {"type": "branch", "branches": [{"when": "event.metadata.order > 5", "to": "bye"}], "else": "end"}
    }
    path = publish(client, {**nodes, **BYE}, triggers=[{"on": "webhook"}], reentry={"policy": "always"})
    url = client.post(f"{path}/entrance").json["url"]
    door = url[url.index("/entrances/") :]

    def call(body: Any, **options: Any) -> Any:
        return client.app.post_json(door, body, **options).json

    order = {"id": "order-7", "lead": "person1@example.org", "data": {"order": 7}}
    assert call(order)["status"] == "entered"
    assert call(order) == {"lead_id": call(order)["lead_id"], "status": "refused", "reason": "duplicate"}
    work(runtime)
    assert call({"lead": order["lead"]}, headers={"webhook-id": "order-8"})["status"] == "entered"
    work(runtime)
    named = {"webhook-id": "ann.canary@example.org " * 200}
    assert call({"lead": order["lead"]}, headers=named)["status"] == "entered"
    assert call({"lead": order["lead"]}, headers=named)["reason"] == "duplicate"
    with runtime.work(client.tenant_id, mode="read") as ctx:  # no erasure would find what a program calls it
        kept = ctx.session.scalars(select(JourneyArrival.occurrence)).all()
    assert [each for each in kept if "canary" in each or "order" in each or len(each) > 40] == []
    work(runtime)
    assert call({"lead": order["lead"]}, status=422)["errors"][0]["path"] == "id"
    assert call([], status=422)["code"] == "validation_failed"
    call({"id": "a", "lead": "nobody@example.org"}, status=404)
    work(runtime)
    assert [run["reason"] for run in client.get(f"{path}/runs?sort=id").json["data"]] == ["seen", "end", "end"]
    forged = door[:-1] + ("0" if door[-1] != "0" else "1")
    client.app.post_json(forged, order, status=404)
    client.post(f"{path}/entrance")
    call(order, status=404)
    client.delete(f"{path}/entrance", status=204)


def test_no_address_is_made_for_a_journey_that_nobody_may_call(client):
    path = publish(client, BYE)
    assert "webhook" in client.post(f"{path}/entrance", status=409).json["detail"]


def test_a_member_answers_what_a_run_asks(client, runtime):
    (lead,) = make_leads(runtime, client.tenant_id, 1)
    timeout = {"after": "2 days", "to": "end"}
    ask = {"type": "approval", "by": "approver", "approved": "bye", "timeout": timeout}
    path = publish(client, {"ask": ask, **BYE})
    client.post(f"{path}/entries", {"lead_ids": [str(lead)]}, status=200)
    work(runtime)
    (question,) = client.get("/api/v1/journey-approvals?filter=answer%20is%20null").json["data"]
    assert (question["node"], question["asked"], question["closed_at"]) == ("ask", "approver", None)
    answer = f"/api/v1/journey-approvals/{question['id']}/answer"
    assert client.post(answer, {"approved": True}, status=403).json["code"] == "permission_denied"
    with runtime.work(client.tenant_id, Actor("cli")) as ctx:
        member = create_member(ctx, "Ann", "ann@shop.example", "approver")
        _, key = create_key(ctx, "ann", ["campaigns:launch"], member_id=member.id)
    ann = Client(client.app, key, client.tenant_id)
    assert ann.post(answer, {"approved": True}, status=200).json["answer"] == "approved"
    ann.post(answer, {"approved": False}, status=409)
    work(runtime)
    assert [run["reason"] for run in client.get(f"{path}/runs").json["data"]] == ["seen"]


def test_operators_patch_revive_and_take_back(client, runtime):
    (lead,) = make_leads(runtime, client.tenant_id, 1)
    nodes = {"wait": {"type": "delay", "for": "1 day", "next": "bye"}, **BYE}
    path = publish(client, nodes)
    client.post(f"{path}/entries", {"lead_ids": [str(lead)]}, status=200)
    work(runtime)
    draft = {"id": "way", "name": "The way", "entry": {"triggers": [{"on": "api"}]}, "nodes": nodes}
    client.patch(path, {"draft": draft})
    found = client.post(f"{path}/patch", {"dry_run": True}, status=200).json
    assert (found["version"], found["runs"]) == (2, {"wait": 1})
    client.post(f"{path}/patch", status=202)
    work(runtime)
    assert [each["patches"] for each in client.get(f"{path}/versions").json["data"]] == [1, None]
    assert [run["version"] for run in client.get(f"{path}/runs").json["data"]] == [2]
    client.patch(path, {"draft": {**draft, "nodes": BYE}})
    problems = client.post(f"{path}/patch", status=422).json["errors"]
    assert ("draft.nodes.wait", "not_content") in [(each["path"], each["code"]) for each in problems]
    assert client.post(f"{path}/revive", {"dry_run": True}, status=200).json == {"dry_run": True, "nodes": []}
    assert client.post(f"{path}/revive", {"node": "wait"}, status=422).json["errors"][0]["path"] == "why"
    assert client.post(f"{path}/revive", {"why": "it is repaired"}, status=202).json["nodes"] == []
    assert client.post(f"{path}/stop", {"compensate": True}, status=200).json["status"] == "stopped"
