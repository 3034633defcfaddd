"""``Idempotency-Key``: once, however often it is sent (DATABASE.md, Idempotency keys)."""

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.models import Campaign, IdempotencyKey, Lead
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.idempotency import Answer, KeyInFlight, forget_answers, keep, recall
from tests.common.factories import make_campaign, make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-007")

KEY = {"Idempotency-Key": "order-4711"}


def count(runtime: Runtime, tenant: int, model: Any) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(model)) or 0


def test_a_repeat_gets_the_first_answer(client: Client, runtime: Runtime, tenant: int) -> None:
    body = {"email": "ann@example.org"}
    first = client.post("/api/v1/leads", body, headers=KEY)
    assert "Idempotency-Replayed" not in first.headers
    again = client.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.body == first.body
    assert count(runtime, tenant, Lead) == 1


def test_the_order_of_members_is_no_difference(client: Client) -> None:
    first = client.post("/api/v1/leads", b'{"email": "a@example.org", "name": "A"}', headers=KEY)
    assert client.post("/api/v1/leads", b'{"name":"A","email":"a@example.org"}', headers=KEY).body == first.body


def test_another_request_under_the_same_key_is_refused(client: Client) -> None:
    client.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)
    fault = client.post("/api/v1/leads", {"email": "bob@example.org"}, headers=KEY, status=422).json
    assert fault["code"] == "idempotency_key_reused"
    client.post("/api/v1/segments", {"name": "x", "conditions": "score > 1"}, headers=KEY, status=422)


def test_a_failure_is_not_kept(client: Client, runtime: Runtime, tenant: int) -> None:
    client.post("/api/v1/leads", {"email": "broken"}, headers=KEY, status=422)
    assert count(runtime, tenant, IdempotencyKey) == 0
    client.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)


def test_keys_of_tenants_are_their_own(client: Client, stranger: Client) -> None:
    client.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)
    other = stranger.post("/api/v1/leads", {"email": "bob@example.org"}, headers=KEY)
    assert other.json["email"] == "bob@example.org"
    assert "Idempotency-Replayed" not in other.headers


def test_patch_and_delete_are_kept_too(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    patched = client.patch(f"/api/v1/leads/{lead}", {"first_name": "Ann"}, headers=KEY)
    assert client.patch(f"/api/v1/leads/{lead}", {"first_name": "Ann"}, headers=KEY).json == patched.json
    campaign = make_campaign(runtime, tenant)
    cancelled = client.delete(f"/api/v1/campaigns/{campaign}", headers={"Idempotency-Key": "c"})
    again = client.delete(f"/api/v1/campaigns/{campaign}", headers={"Idempotency-Key": "c"})
    assert again.body == cancelled.body
    segment = client.post("/api/v1/segments", {"name": "x", "conditions": "score > 1"}).json["id"]
    client.delete(f"/api/v1/segments/{segment}", status=204, headers={"Idempotency-Key": "s"})
    again = client.delete(f"/api/v1/segments/{segment}", status=204, headers={"Idempotency-Key": "s"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.body == b""


def test_a_mutation_is_kept(client: Client, runtime: Runtime, tenant: int) -> None:
    campaign = make_campaign(runtime, tenant)
    body = {"query": f'mutation {{ launchCampaign(id: "{campaign}") {{ status }} }}'}
    refused = client.post("/graphql", body, status=200, headers=KEY)
    assert refused.json["errors"]
    assert count(runtime, tenant, IdempotencyKey) == 0


def test_a_long_answer_is_kept_by_reference(client: Client, runtime: Runtime, tenant: int) -> None:
    body = {"name": "Long", "data": {str(n): "x" * 10_000 for n in range(8)}}
    first = client.post("/api/v1/campaigns", body, headers=KEY)
    again = client.post("/api/v1/campaigns", body, headers=KEY)
    assert again.json == first.json
    assert again.headers["Idempotency-Replayed"] == "true"
    with runtime.work(tenant, mode="read") as ctx:
        kept = ctx.session.scalars(select(IdempotencyKey)).one()
    assert len(kept.body) < 100
    assert count(runtime, tenant, Campaign) == 1


def test_a_key_may_be_used_again_after_its_time(client: Client, runtime: Runtime, clock: FakeClock) -> None:
    client.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)
    clock.advance(hours=47)
    client.post("/api/v1/leads", {"email": "bob@example.org"}, headers=KEY, status=422)
    clock.advance(hours=2)
    client.post("/api/v1/leads", {"email": "bob@example.org"}, headers=KEY)


def test_workers_forget_what_has_had_its_time(
    client: Client, stranger: Client, runtime: Runtime, tenant: int, other_tenant: int, clock: FakeClock
) -> None:
    for each in (client, stranger):
        each.post("/api/v1/leads", {"email": "ann@example.org"}, headers=KEY)
    clock.advance(hours=47)
    client.post("/api/v1/leads", {"email": "bob@example.org"}, headers={"Idempotency-Key": "later"})
    assert forget_answers(runtime) == 0
    clock.advance(hours=2)
    assert forget_answers(runtime) == 2
    assert count(runtime, tenant, IdempotencyKey) == 1
    assert count(runtime, other_tenant, IdempotencyKey) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "ö"])
def test_a_key_that_is_no_key_is_refused(client: Client, key: str) -> None:
    fault = client.post("/api/v1/leads", {"email": "a@example.org"}, status=400, headers={"Idempotency-Key": key}).json
    assert fault["errors"][0]["code"] == "bad_idempotency_key"


def test_the_second_of_two_at_once_hears_so_at_once(client: Client, runtime: Runtime, tenant: int) -> None:
    """While the first is running, the second waits for nothing."""
    app = client.app.app
    if runtime.engines.dialect == "sqlite":
        leave = app.registry["nexus.keys_in_flight"].enter(tenant, KEY["Idempotency-Key"])
        answer = client.post("/api/v1/leads", {"email": "a@example.org"}, status=409, headers=KEY)
        leave()
    else:
        with runtime.work(tenant, role="app") as ctx:
            recall(ctx, KEY["Idempotency-Key"], b"")
            answer = client.post("/api/v1/leads", {"email": "a@example.org"}, status=409, headers=KEY)
    assert answer.json["code"] == "idempotency_key_in_flight"
    assert answer.headers["Retry-After"] == "1"
    client.post("/api/v1/leads", {"email": "a@example.org"}, headers=KEY)


def test_of_many_at_once_one_has_the_effect(client: Client, runtime: Runtime, tenant: int) -> None:
    answers: list[tuple[int, bytes]] = []

    def call() -> None:
        answer = client.send("POST", "/api/v1/leads", {"email": "ann@example.org"}, KEY)
        answers.append((answer.status_int, answer.body))

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} <= {201, 409}
    assert len({body for status, body in answers if status == 201}) == 1
    assert count(runtime, tenant, Lead) == 1


def test_nothing_is_kept_when_the_effect_is_rolled_back(runtime: Runtime, tenant: int) -> None:
    with pytest.raises(KeyInFlight), runtime.work(tenant, role="app") as ctx:
        assert recall(ctx, "k", b"f") is None
        keep(ctx, "k", b"f", Answer(201, b"{}"))
        raise KeyInFlight
    assert count(runtime, tenant, IdempotencyKey) == 0
