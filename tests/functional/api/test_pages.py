"""Lists: pages by key, one whitelist of names, filters in the condition language."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_segment
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-003")

LISTS = ["leads", "segments", "templates", "campaigns", "members"]


def walk(client: Client, path: str) -> list[dict[str, Any]]:
    """All rows, page by page."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(100):
        page = client.get(f"{path}{cursor}").json
        rows += page["data"]
        if not page["has_more"]:
            assert page["next"] is None
            return rows
        cursor = f"&cursor={page['next']}"
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("sort", ["", "id", "-id", "score", "-score", "created_at", "-created_at", "-updated_at"])
@pytest.mark.parametrize("limit", [1, 3, 50])
def test_pages_hold_every_row_once_in_order(
    client: Client, runtime: Runtime, tenant: int, clock: FakeClock, sort: str, limit: int
) -> None:
    for batch in range(3):  # equal scores and equal moments, so that the id decides
        make_leads(runtime, tenant, 3, first=batch * 100 + 1)
        clock.advance(seconds=1)
    rows = walk(client, f"/api/v1/leads?limit={limit}&sort={sort}")
    name = sort.removeprefix("-") or "id"
    down = sort.startswith("-") or not sort
    keys = [(int(row["id"]) if name == "id" else row[name], int(row["id"])) for row in rows]
    assert keys == sorted(keys, reverse=down)
    assert len({row["id"] for row in rows}) == 9


def test_rows_that_arrive_between_pages_neither_hide_nor_repeat_others(
    client: Client, runtime: Runtime, tenant: int
) -> None:
    make_leads(runtime, tenant, 6)
    first = client.get("/api/v1/leads?limit=3").json
    make_leads(runtime, tenant, 6, first=50)
    second = client.get(f"/api/v1/leads?limit=3&cursor={first['next']}").json
    assert [row["id"] for row in first["data"] + second["data"]] == ["6", "5", "4", "3", "2", "1"]


def test_only_the_fields_asked_for_are_answered(client: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 1)
    assert client.get("/api/v1/leads?fields=email,score").json["data"] == [
        {"email": "person1@example.org", "score": 1.0}
    ]


def test_a_filter_is_a_condition(client: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 10)
    make_leads(runtime, tenant, 1, first=90, country="DE", attributes={"plan": "pro"})
    found = client.get("/api/v1/leads?filter=score > 8 AND country == 'US'&sort=id").json["data"]
    assert [row["score"] for row in found] == [9.0, 10.0]
    found = client.get("/api/v1/leads?filter=metadata.plan == 'pro'").json["data"]
    assert [row["country"] for row in found] == ["DE"]
    assert client.get("/api/v1/leads?filter=email == 'person3@example.org'").json["data"][0]["score"] == 3.0


def test_filters_and_cursors_go_together(client: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 20)
    rows = walk(client, "/api/v1/leads?limit=3&sort=score&filter=score >= 5 AND score < 15")
    assert [row["score"] for row in rows] == [float(n) for n in range(5, 15)]


def test_campaigns_are_filtered_by_status(client: Client, runtime: Runtime, tenant: int) -> None:
    make_campaign(runtime, tenant, "One")
    make_campaign(runtime, tenant, "Two", status="active")
    found = client.get("/api/v1/campaigns?filter=status == 'active'&fields=name").json["data"]
    assert found == [{"name": "Two"}]


@pytest.mark.req("SR-003")
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("sort", "id; DROP TABLE marketing_leads"),
        ("sort", "(SELECT pg_sleep(5))"),
        ("sort", "--id"),
        ("sort", "-id,tenant_id"),
        ("sort", "tenant_id"),
        ("fields", "id,tenant_id"),
        ("fields", "id,secret_hash"),
        ("fields", "*"),
        ("fields", "id,(select 1)"),
        ("fields", ""),
        ("filter", "1=1"),
        ("filter", "id == 1 OR 1 == 1"),
        ("filter", "id == 1; SELECT pg_sleep(5)"),
        ("filter", "tenant_id == 2"),
        ("filter", "name == 'x' UNION SELECT 1"),
        ("filter", "(" * 2000),
        ("filter", "name == 'x\u0000'"),
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "1e9"),
        ("limit", "1000000000"),
        ("limit", "-1"),
        ("limit", "١"),
        ("cursor", "x"),
        ("cursor", "'; --"),
        ("cursor", "WzEsMV0AAAAAAAAAAA"),
        ("offset", "1000000000"),
        ("tenant_id", "2"),
    ],
)
def test_what_is_not_in_the_whitelist_is_refused(client: Client, name: str, parameter: str, value: str) -> None:
    answer = client.send("GET", f"/api/v1/{name}?{parameter}={quote(value)}")
    if (parameter, value) == ("fields", ""):
        assert answer.status_int == 200
        return
    assert answer.status_int in (400, 422), answer.body
    assert answer.json["errors"][0]["path"] == parameter


@pytest.mark.req("SR-003")
def test_quotes_in_a_filter_are_text(client: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 1, name='O\'Neil "x" %s :id %(a)s \\')
    text = quote('name == "O\'Neil ""x"" %s :id %(a)s \\"')
    assert len(client.get(f"/api/v1/leads?filter={text}").json["data"]) == 1


@pytest.mark.req("SR-003")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=40), parameter=st.sampled_from(["sort", "fields", "filter"]))
def test_no_text_breaks_a_list(client: Client, text: str, parameter: str) -> None:
    assert client.send("GET", f"/api/v1/leads?{parameter}={quote(text)}").status_int in (200, 400, 422)


@pytest.mark.req("SR-003")
def test_the_query_string_must_be_text(client: Client) -> None:
    assert client.send("GET", "/api/v1/leads?sort=%ff").status_int in (400, 422)


@pytest.mark.req("SR-002")
def test_a_cursor_is_bound_to_its_list_and_tenant(
    client: Client, stranger: Client, runtime: Runtime, tenant: int, other_tenant: int
) -> None:
    for each in (tenant, other_tenant):
        make_leads(runtime, each, 3)
        make_segment(runtime, each, name="a")
    cursor = client.get("/api/v1/leads?limit=1").json["next"]
    stranger.get(f"/api/v1/leads?limit=1&cursor={cursor}", status=400)
    client.get(f"/api/v1/segments?cursor={cursor}", status=400)
    client.get(f"/api/v1/leads?sort=score&cursor={cursor}", status=400)
    client.get(f"/api/v1/leads?filter=score > 1&cursor={cursor}", status=400)
    flipped = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    client.get(f"/api/v1/leads?cursor={flipped}", status=400)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_takes_one_statement(client: Client, name: str, count_statements: Callable[[], Any]) -> None:
    client.get("/api/v1")
    with count_statements() as statements:
        client.get(f"/api/v1/{name}")
    assert len(statements) == 1


def test_a_list_and_its_rows_say_the_same(client: Client, runtime: Runtime, tenant: int) -> None:
    make_leads(runtime, tenant, 2)
    for row in client.get("/api/v1/leads").json["data"]:
        assert client.get(f"/api/v1/leads/{row['id']}").json == row
