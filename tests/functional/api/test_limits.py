"""How many requests a tenant may make."""

import pytest

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.runtime import Runtime
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-003")


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """With a limit that a test can reach."""
    from dataclasses import replace

    return replace(runtime, settings=replace(runtime.settings, rate_limit_per_minute=5))


def test_the_limit_is_exact_and_told(client: Client, clock: FakeClock) -> None:
    remaining = [client.get("/api/v1").headers["RateLimit-Remaining"] for _ in range(5)]
    assert remaining == ["4", "3", "2", "1", "0"]
    clock.advance(seconds=10)
    refused = client.get("/api/v1", status=429)
    assert refused.headers["Retry-After"] == "50"
    assert refused.headers["RateLimit-Limit"] == "5"
    assert refused.json["code"] == "rate_limited"
    clock.advance(seconds=50)
    client.get("/api/v1")


def test_refused_requests_count_for_nothing(client: Client, clock: FakeClock) -> None:
    for _ in range(5):
        client.get("/api/v1")
    for _ in range(20):
        clock.advance(seconds=1)
        client.get("/api/v1", status=429)
    clock.advance(seconds=40)
    client.get("/api/v1")


def test_one_tenant_does_not_use_up_the_other(client: Client, stranger: Client) -> None:
    for _ in range(7):
        client.send("GET", "/api/v1")
    stranger.get("/api/v1")
