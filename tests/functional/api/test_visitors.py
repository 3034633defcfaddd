"""Strangers who ask for too much: bounded by address, and nobody loses their pixel, their link or their way out."""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from webtest import TestApp, TestResponse

from nexus_marketing.api import tracking
from nexus_marketing.core.clock import FakeClock, SystemClock
from nexus_marketing.core.errors import Unavailable
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import Hit, Lead, Suppression, TemplateVersion
from nexus_marketing.plugin.circuits import read_back, write_down
from nexus_marketing.runtime import Runtime
from nexus_marketing.security.routes import PUBLIC
from nexus_marketing.security.visitors import FLOODS, Flood
from nexus_marketing.services.privacy import lift
from nexus_marketing.settings import VisitorSettings
from nexus_marketing.telemetry import NullTelemetry
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("SR-003", "FR-P2-011", "BR-012")

on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
DESTINATION = "https://shop.example.org/sale"
FLOODER, OTHER = "8.8.4.4", "9.9.9.9"
FEW = VisitorSettings(engagements_per_minute=3, pages_per_minute=3, calls_per_minute=3, guesses_per_minute=2)


class Counts(NullTelemetry):
    """What was counted, by crowd."""

    def __init__(self) -> None:
        self.limited: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        if name == "visitors.limited":
            self.limited[labels["crowd"]] += amount


@pytest.fixture
def visitors() -> VisitorSettings:
    return FEW


@pytest.fixture
def runtime(runtime: Runtime, visitors: VisitorSettings) -> Runtime:
    """With limits that a test can reach."""
    return replace(runtime, settings=replace(runtime.settings, visitors=visitors), telemetry=Counts())


@pytest.fixture
def sign(runtime: Runtime, tenant: int) -> Callable[[TokenKind], str]:
    """Makes links of a message that was delivered."""
    (lead,) = make_leads(runtime, tenant)
    template = make_template(runtime, tenant)
    with runtime.work(tenant, role="owner") as ctx:
        ctx.session.scalars(select(TemplateVersion)).one().links = [DESTINATION]
    campaign = make_campaign(runtime, tenant, template_id=template, status="completed")
    send = make_send(runtime, tenant, campaign, template, [lead], status="completed")
    return lambda kind: runtime.keys.tokens.sign(Token(kind, tenant_id=tenant, send_id=send, seq=1, lead_id=lead))


@pytest.fixture
def ask(app: TestApp) -> Callable[..., TestResponse]:
    """A request from somewhere."""

    def asked(path: str, method: str = "GET", address: str = FLOODER, **options: Any) -> TestResponse:
        app.extra_environ = {"REMOTE_ADDR": address}
        return app.request(path, method=method, status="*", **options)

    return asked


def count(runtime: Runtime, tenant: int, model: Any) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(model)) or 0


def test_opens_and_clicks_of_a_flood_are_answered_and_not_recorded(
    ask, sign, runtime, tenant, clock: FakeClock
) -> None:
    pixel, link = f"/t/o/{sign(TokenKind.OPEN)}", f"/t/c/{sign(TokenKind.CLICK)}"
    for _ in range(4):
        assert ask(pixel).body.startswith(b"GIF89a")
        assert (ask(link).status_int, ask(link).headers["Location"]) == (302, DESTINATION)
    assert count(runtime, tenant, Hit) == 3
    assert runtime.telemetry.limited == {"engagements": 9}
    ask(pixel, address=OTHER)
    assert count(runtime, tenant, Hit) == 4
    clock.advance(seconds=60)
    ask(link)
    assert count(runtime, tenant, Hit) == 5


def full() -> Exception:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    return OperationalError("INSERT", {}, error)


@on_sqlite
@pytest.mark.parametrize("trouble", [full(), PoolTimeout("no connection"), Unavailable("away")])
def test_a_link_leads_on_where_the_click_cannot_be_kept(
    ask, sign, runtime, tenant, clock: FakeClock, monkeypatch, trouble: Exception
) -> None:
    def fails(*_args: Any, **_options: Any) -> None:
        raise trouble

    link, pixel = f"/t/c/{sign(TokenKind.CLICK)}", f"/t/o/{sign(TokenKind.OPEN)}"
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "record_hit", fails)
        assert ask(link).headers["Location"] == DESTINATION
        assert ask(pixel).body.startswith(b"GIF89a")
    assert count(runtime, tenant, Hit) == 0
    for _ in range(3):
        ask(link)
    assert count(runtime, tenant, Hit) == 1  # however often we tried, that was one click
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "click_destination", fails)
        clock.advance(seconds=60)
        assert ask(link).headers["Location"] == DESTINATION  # it was seen before
        clock.advance(days=2)
        assert ask(link).headers["Retry-After"] == "1"


@on_sqlite
def test_clicks_of_a_flood_cost_no_statement(ask, sign, count_statements) -> None:
    link = f"/t/c/{sign(TokenKind.CLICK)}"
    for _ in range(3):
        ask(link)
    with count_statements() as statements:
        assert ask(link).headers["Location"] == DESTINATION
    assert statements == []


@on_sqlite
def test_pages_say_when_to_come_again_and_the_way_out_stays_open(ask, sign, runtime, tenant) -> None:
    way_out = f"/u/{sign(TokenKind.UNSUBSCRIBE)}"
    assert [ask(way_out).status_int for _ in range(4)] == [200, 200, 200, 429]
    refused = ask(way_out)
    assert refused.content_type == "text/html"
    assert refused.headers["Retry-After"] == "60"
    assert refused.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for _ in range(3):
        ask(f"/u/{sign(TokenKind.UNSUBSCRIBE)}", "POST", POST={}).mustcontain("Press the button")
    done = ask(way_out, "POST", POST=ONE_CLICK)
    assert done.status_int == 200
    assert "You are unsubscribed" in done.text
    assert count(runtime, tenant, Suppression) == 1


def test_a_flood_on_the_way_out_costs_nothing_and_hides_no_change_of_mind(
    ask, sign, runtime, tenant, clock: FakeClock, count_statements
) -> None:
    way_out = f"/u/{sign(TokenKind.UNSUBSCRIBE)}"
    for _ in range(4):
        ask(way_out, "POST", POST=ONE_CLICK)
    with count_statements() as statements:
        for _ in range(5):
            assert "You are unsubscribed" in ask(way_out, "POST", POST=ONE_CLICK).text
    assert statements == []
    assert comes_back(runtime, tenant)
    clock.advance(seconds=2)
    ask(way_out, "POST", POST=ONE_CLICK)
    assert comes_back(runtime, tenant)  # it had been done again


def comes_back(runtime: Runtime, tenant: int) -> bool:
    """Whether the person had left."""
    with runtime.work(tenant) as ctx:
        address = ctx.session.scalars(select(Lead.email)).one()
        return lift(ctx, address, reason="asked", source="phone") is not None


@on_sqlite
def test_a_form_that_is_no_form_of_ours_is_not_taken_apart(ask, sign, runtime, tenant) -> None:
    form = {**ONE_CLICK, "more": "x" * 20_000}
    answer = ask(f"/u/{sign(TokenKind.UNSUBSCRIBE)}", "POST", POST=form)
    assert (answer.status_int, '<form method="post">' in answer.text) == (400, True)
    assert count(runtime, tenant, Suppression) == 0


@on_sqlite
def test_guessing_ends_sooner_and_harms_no_neighbour(ask, sign) -> None:
    good = sign(TokenKind.UNSUBSCRIBE)
    assert [ask(f"/t/c/{good[:-4]}AAA{letter}").status_int for letter in "ABC"] == [404, 404, 429]
    guess = ask(f"/u/{good[:-4]}AAAA", "POST", POST=ONE_CLICK)
    assert (guess.status_int, guess.content_type) == (429, "text/html")
    assert ask(f"/u/{good}").status_int == 200
    assert ask(f"/t/c/{good[:-4]}AAAA", address=OTHER).status_int == 404


@on_sqlite
def test_whoever_guesses_at_an_entrance_is_not_heard_there_any_more(ask, count_statements) -> None:
    guesses = [ask(f"/entrances/1-1-{number:032x}", "POST") for number in range(2)]
    assert {each.status_int for each in guesses} == {404}
    with count_statements() as statements:
        refused = ask(f"/entrances/1-1-{7:032x}", "POST")
    assert statements == []
    assert (refused.status_int, refused.content_type) == (429, "application/problem+json")
    assert (refused.json["code"], refused.headers["Retry-After"]) == ("rate_limited", "60")
    assert ask(f"/entrances/1-2-{7:032x}", "POST", address=OTHER).status_int == 404


@pytest.mark.parametrize("visitors", [replace(FEW, calls_per_minute=0)])
@on_sqlite
def test_one_wrong_key_of_a_provider_does_not_shut_out_its_other_reports(ask) -> None:
    assert [ask("/hooks/acme/nobody", "POST").status_int for _ in range(3)] == [404, 404, 429]
    assert ask("/hooks/globex/nobody", "POST").status_int == 404


@pytest.mark.parametrize(
    "visitors", [replace(FEW, limited=False), replace(FEW, pages_per_minute=0, guesses_per_minute=0)]
)
@on_sqlite
def test_limits_can_be_switched_off(ask, sign) -> None:
    page = f"/u/{sign(TokenKind.UNSUBSCRIBE)}"
    assert {ask(page).status_int for _ in range(6)} == {200}
    assert {ask(f"{page}x").status_int for _ in range(6)} == {404}


@pytest.mark.parametrize(
    ("addresses", "told_apart"),
    [
        (["2606:4700::1", "2606:4700::2", "2606:4700::ffff:1", "2606:4700:0:0:9::"], False),
        (["::ffff:8.8.4.4", "8.8.4.4", "8.8.4.4:1234", "::ffff:808:404"], False),
        (["2606:4700::1", "2606:4700:0:1::1", "2606:4700:0:2::1", "2606:4700:0:3::1"], True),
        (["127.0.0.1"] * 4, True),  # a proxy that nobody named: better no limit than one for everybody together
        (["10.1.2.3"] * 4, True),
        ([""] * 4, True),
        (["unix:"] * 4, True),
    ],
)
@on_sqlite
def test_who_is_one_visitor(ask, sign, addresses: list[str], told_apart: bool) -> None:
    page = f"/u/{sign(TokenKind.UNSUBSCRIBE)}"
    assert [ask(page, address=each).status_int for each in addresses] == [200, 200, 200, 200 if told_apart else 429]


@on_sqlite
def test_nobody_becomes_another_by_a_header(ask, sign) -> None:
    page = f"/u/{sign(TokenKind.UNSUBSCRIBE)}"
    names = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP")
    answers = [ask(page, headers={name: OTHER}).status_int for name in names]
    assert answers == [200, 200, 200, 429, 429]


@on_sqlite
def test_everything_without_a_key_is_bounded_or_said_to_be_open(app: TestApp, ask, runtime, clock: FakeClock) -> None:
    """Whoever adds a public route is limited by address unless they say otherwise."""
    answered = set()
    for route in app.app.registry["nexus.routes"]:
        if route.permission != PUBLIC:
            continue
        clock.advance(seconds=60)
        path = route.pattern.format(token="x", tenant="acme", channel="c", provider="p")
        before = sum(runtime.telemetry.limited.values())
        for _ in range(5):
            ask(path, route.method)
        if sum(runtime.telemetry.limited.values()) == before:
            answered.add(f"{route.method} {route.pattern}")
    assert answered == {"GET /__heartbeat__", "GET /__lbheartbeat__", "OPTIONS /api/v1/events"}


@on_sqlite
def test_what_was_turned_away_is_kept_for_the_operator(ask, runtime) -> None:
    left = runtime.settings.state_dir / FLOODS / "4.json"
    write_down(left, Flood("", ""))
    os.utime(left, (0, 0))
    for _ in range(9):
        ask("/t/o/x")
    (flood,) = read_back(runtime.settings.state_dir / FLOODS, Flood)
    assert flood.is_recent(SystemClock().now())
    assert flood.turned_away["engagements"] in range(3, 7)  # written whenever it has doubled
    assert not flood.unnamed_proxy
    ask("/t/o/x", address="127.0.0.1", headers={"X-Forwarded-For": OTHER})
    (flood,) = read_back(runtime.settings.state_dir / FLOODS, Flood)
    assert flood.unnamed_proxy


@on_sqlite
def test_a_disk_without_room_for_that_note_fails_nobody(ask, runtime) -> None:
    (runtime.settings.state_dir / FLOODS).write_text("a file in the way")
    assert {ask("/t/o/x").status_int for _ in range(6)} == {200}
