"""Events from browsers: a key that anybody has does little, tells nothing and can be told to wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from webtest import TestApp

from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import Engagement, PublicEvent
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.public_events import take_in_public_events
from tests.common.factories import make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-016", "FR-P2-007", "SR-001")

EVENTS = "/api/v1/events"
PEOPLE = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def page(make_client: Callable[..., Client], tenant: int) -> Client:
    """A page with a public key."""
    found = make_client(tenant, ["events:write_public"])
    found.headers["User-Agent"] = PEOPLE
    return found


def engagements(runtime: Runtime, tenant: int) -> list[Engagement]:
    while take_in_public_events(runtime, tenant):
        pass
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(Engagement).order_by(Engagement.id)))


def test_an_event_with_a_token_is_the_leads_own(page: Client, client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    token = client.get(f"/api/v1/leads/{lead}/token").json["token"]
    body = {"type": "page_visited", "token": token, "event_id": "v1", "properties": {"url": "/pricing", "depth": 3}}
    for _ in range(2):
        assert page.post(EVENTS, body, status=202).json == {"status": "received"}
    (row,) = engagements(runtime, tenant)
    assert (row.lead_id, row.type, row.verdict, row.attributes) == (
        lead,
        "page_visited",
        "human",
        {"url": "/pricing", "depth": 3},
    )


def test_an_address_is_only_a_claim_and_a_bot_is_a_bot(page: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, email="ann@example.org")
    body = {"type": "form_submitted", "email": "Ann@Example.org"}
    page.post(EVENTS, body, status=202)
    page.post(EVENTS, body, status=202, headers={"User-Agent": "Googlebot/2.1"})
    assert [row.verdict for row in engagements(runtime, tenant)] == ["unknown", "machine"]


def test_the_answer_does_not_tell_whether_there_is_such_a_lead(
    page: Client, runtime: Runtime, tenant: int, other_tenant: int, count_statements: Callable[[], Any]
) -> None:
    make_leads(runtime, tenant, email="ann@example.org")
    (theirs,) = make_leads(runtime, other_tenant)
    foreign = runtime.keys.tokens.sign(Token(TokenKind.LEAD, other_tenant, 0, 0, theirs))
    click = runtime.keys.tokens.sign(Token(TokenKind.CLICK, tenant, 1, 1, 1))
    names = [
        {"email": "ann@example.org"},
        {"email": "nobody@example.org"},
        {"token": foreign},
        {"token": click},
        {"token": "x"},
    ]
    answers, costs = set(), set()
    page.post(EVENTS, {"type": "page_visited", "email": "warm@example.org"}, status=202)
    for name in names:
        with count_statements() as statements:
            response = page.post(EVENTS, {"type": "page_visited", **name}, status=202)
        answers.add((response.body, str(sorted(name for name, _ in response.headerlist))))
        costs.add(tuple(statements))
    assert len(answers) == len(costs) == 1
    assert len(engagements(runtime, tenant)) == 1
    assert engagements(runtime, other_tenant) == []


@pytest.mark.parametrize(
    "change",
    [
        {"type": "conversion"},
        {"type": "custom", "name": "x"},
        {"verdict": "human"},
        {"tracked_at": "2026-03-02T09:00:00Z"},
        {"lead_id": "1"},
        {"campaign_id": "1"},
        {"email": "ann@example.org"},
        {"token": None},
        {"properties": {"a": {"b": 1}}},
        {"properties": {"a": "x" * 1001}},
        {"properties": {f"k{n}": 1 for n in range(21)}},
        {"properties": {"$where": "1"}},
    ],
)
def test_what_is_not_foreseen_is_refused(page: Client, runtime: Runtime, tenant: int, change: dict[str, Any]) -> None:
    page.post(EVENTS, {"type": "page_visited", "token": "x", **change}, status=422)
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(PublicEvent)).all() == []


def test_a_long_body_is_refused(page: Client) -> None:
    assert page.send("POST", EVENTS, b" " * 8193).status_int == 413


def test_a_public_key_opens_nothing_else(page: Client, make_client: Callable[..., Client], tenant: int) -> None:
    for method, path in (
        ("GET", "/api/v1"),
        ("POST", "/graphql"),
        ("GET", "/api/v1/leads"),
        ("POST", "/api/v1/engagements"),
    ):
        assert page.send(method, path, {}).status_int == 403
    assert make_client(tenant, ["engagements:write"]).send("POST", EVENTS, {}).status_int == 403


def test_public_ids_are_not_those_of_programs(page: Client, client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant, email="ann@example.org")
    page.post(EVENTS, {"type": "page_visited", "email": "ann@example.org", "event_id": "order-1"}, status=202)
    engagements(runtime, tenant)
    body = {"type": "conversion", "lead_id": str(lead), "event_id": "order-1"}
    assert client.post("/api/v1/engagements", body).json["status"] == "accepted"


class TestLimits:
    @pytest.fixture
    def runtime(self, runtime: Runtime) -> Runtime:
        return replace(runtime, settings=replace(runtime.settings, public_events_per_minute=2, rate_limit_per_minute=5))

    def send(self, page: Client, address: str) -> int:
        body = b'{"type": "page_visited", "token": "x"}'
        environ = {"REMOTE_ADDR": address}
        options: dict[str, Any] = {"extra_environ": environ, "headers": page.headers, "status": "*"}
        return page.app.post(EVENTS, body, content_type="application/json", **options).status_int

    def test_each_address_and_each_key_has_a_bound(self, page: Client) -> None:
        assert [self.send(page, "192.0.2.1") for _ in range(3)] == [202, 202, 429]
        assert [self.send(page, f"2001:db8::{n}") for n in range(1, 4)] == [202, 202, 429]
        assert [self.send(page, "192.0.2.9") for _ in range(2)] == [202, 429]

    def test_strangers_do_not_use_up_what_programs_may_do(self, page: Client, client: Client) -> None:
        for number in range(9):
            self.send(page, f"192.0.2.{number}")
        client.get("/api/v1/leads")


class TestBrowsers:
    def test_they_may_ask_before_they_send(self, app: TestApp) -> None:
        answer = app.options(EVENTS, headers={"Origin": "https://shop.example.org"}, status=204)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
        assert "Access-Control-Allow-Credentials" not in answer.headers

    def test_they_may_read_answers_and_faults(self, app: TestApp, page: Client) -> None:
        for response in (
            page.send("POST", EVENTS, {"type": "page_visited", "token": "x"}),
            app.post(EVENTS, status=401),
        ):
            assert response.headers["Access-Control-Allow-Origin"] == "*"

    def test_other_paths_stay_closed_to_them(self, client: Client) -> None:
        assert "Access-Control-Allow-Origin" not in client.get("/api/v1/leads").headers
