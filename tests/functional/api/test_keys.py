"""Keys: who is let in, who is not, and how little the answer tells."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from webtest import TestApp, TestResponse

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.models import ApiKey
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenants import suspend_tenant
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-007", "SR-001")

STRANGE = [
    "",
    "Bearer",
    "Bearer ",
    "Basic YTpi",
    "bearer-ish nmk_live_abcdefgh",
    "Bearer nmk_live_abcdefgh_" + "a" * 43 + "_00000000",
    "Bearer " + "x" * 5000,
    "Bearer \x01\x02",
    "Bearer nmk_live_'OR'1'='1",
]


def refused(response: TestResponse) -> dict[str, object]:
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    body: dict[str, object] = response.json
    body.pop("request_id")
    return body


@pytest.mark.parametrize("header", STRANGE)
def test_a_key_that_is_none_is_refused(app: TestApp, header: str) -> None:
    app.get("/api/v1/leads", headers={"Authorization": header}, status=401)


def test_unknown_expired_revoked_and_suspended_look_the_same(
    app: TestApp, make_client: Callable[..., Client], runtime: Runtime, tenant: int, other_tenant: int, clock: FakeClock
) -> None:
    expired = make_client(tenant, expires_at=clock.now() + timedelta(minutes=1))
    revoked, suspended = make_client(tenant), make_client(other_tenant)
    clock.advance(minutes=2)
    with runtime.work(tenant, role="app") as ctx:
        ctx.session.execute(update(ApiKey).where(ApiKey.id == 2).values(revoked_at=ctx.now))
    suspend_tenant(runtime, "globex")
    unknown = app.get("/api/v1", headers={"Authorization": STRANGE[5]}, status=401)
    answers = [refused(unknown), refused(app.get("/api/v1", status=401))]
    answers += [refused(each.get("/api/v1", status=401)) for each in (expired, revoked, suspended)]
    assert all(answer == answers[0] for answer in answers)


def test_the_right_name_with_another_secret_is_refused(client: Client) -> None:
    good = client.key
    other = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    client.headers = {"Authorization": f"Bearer {other}"}
    client.get("/api/v1", status=401)


def test_revocation_is_effective_within_a_second(client: Client, runtime: Runtime, clock: FakeClock) -> None:
    client.get("/api/v1")
    with runtime.work(client.tenant_id, role="app") as ctx:
        ctx.session.execute(update(ApiKey).values(revoked_at=ctx.now))
    clock.advance(seconds=1)
    client.get("/api/v1", status=401)


def test_a_known_key_costs_no_look_up(client: Client, count_statements: Callable[..., object]) -> None:
    client.get("/api/v1")
    with count_statements() as statements:  # type: ignore[attr-defined]
        client.get("/api/v1")
    assert statements == []


def test_a_key_in_the_address_is_not_looked_at(app: TestApp, client: Client) -> None:
    app.get(f"/api/v1?api_key={client.key}", status=401)


@pytest.mark.req("SR-003")
def test_wrong_keys_are_throttled_and_right_ones_are_not(
    app: TestApp, client: Client, clock: FakeClock, count_statements: Callable[..., object]
) -> None:
    client.get("/api/v1")
    wrong = {"Authorization": STRANGE[5]}
    statuses = [app.get("/api/v1", headers=wrong, status="*").status_int for _ in range(100)]
    assert statuses.count(401) == 60
    assert statuses[-1] == 429
    with count_statements() as statements:  # type: ignore[attr-defined]
        response = app.get("/api/v1", headers=wrong, status=429)
    assert statements == []
    assert int(response.headers["Retry-After"]) <= 60
    clock.advance(seconds=2)
    client.get("/api/v1")
    clock.advance(seconds=61)
    app.get("/api/v1", headers=wrong, status=401)


def test_guessing_one_name_is_throttled_from_every_address(app: TestApp, client: Client) -> None:
    from nexus_marketing.core.api_keys import build_key, parse_key

    parsed = parse_key(client.key)
    assert parsed is not None
    statuses = []
    for number in range(25):
        guess = build_key(parsed.key_id, number.to_bytes(32)).text
        environ = {"REMOTE_ADDR": f"198.51.100.{number}"}
        answer = app.get("/api/v1", headers={"Authorization": f"Bearer {guess}"}, extra_environ=environ, status="*")
        statuses.append(answer.status_int)
    assert statuses == [401] * 20 + [429] * 5


def test_the_forwarded_address_is_not_believed(app: TestApp) -> None:
    wrong = {"Authorization": STRANGE[5]}
    statuses = {
        app.get("/api/v1", headers={**wrong, "X-Forwarded-For": f"203.0.113.{n}"}, status="*").status_int
        for n in range(70)
    }
    assert statuses == {401, 429}
