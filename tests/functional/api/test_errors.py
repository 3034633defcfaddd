"""Bad input: each fault has a status, a code, a place and a remedy, and nothing of our inside."""

from typing import Any

import pytest
from webtest import TestApp

from nexus_marketing.runtime import Runtime
from tests.common.factories import make_leads, make_segment
from tests.functional.conftest import Client

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("SR-003", "SR-007"), pytest.mark.no_cover]

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "errors", "request_id"}


def errors_of(fault: dict[str, Any]) -> dict[str, str]:
    assert fault.keys() >= PROBLEM_MEMBERS
    return {error["path"]: error["code"] for error in fault["errors"]}


def test_malformed_json_names_line_and_column(client: Client) -> None:
    response = client.post("/api/v1/leads", b'{"email": ', status=400)
    assert response.content_type == "application/problem+json"
    assert "line 1, column" in response.json["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"email": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_refused(client: Client, body: bytes) -> None:
    assert client.send("POST", "/api/v1/leads", body).status_int in (400, 422)


def test_another_media_type_is_refused(client: Client) -> None:
    headers = {**client.headers, "Content-Type": "text/xml"}
    fault = client.app.post("/api/v1/leads", params=b"<lead/>", headers=headers, status=415).json
    assert "application/json" in fault["detail"]


def test_a_body_that_is_too_large_is_refused_unread(client: Client, runtime: Runtime) -> None:
    body = b'{"name": "' + b"x" * runtime.settings.max_body_bytes + b'"}'
    fault = client.post("/api/v1/leads", body, status=413).json
    assert fault["code"] == "body_too_large"
    client.post("/api/v1/leads", body, status=413, headers={"Idempotency-Key": "large"})


def test_all_faults_are_told_at_once_with_their_paths(client: Client) -> None:
    body = {"emial": "x@example.org", "score": 7, "tags": "vip", "metadata": [], "first_name": 5, "name": "x" * 600}
    fault = client.post("/api/v1/leads", body, status=422).json
    assert errors_of(fault) == {
        "emial": "unknown_field",
        "score": "read_only",
        "tags": "wrong_type",
        "metadata": "wrong_type",
        "first_name": "wrong_type",
        "name": "too_long",
    }
    assert "did you mean email" in next(e["message"] for e in fault["errors"] if e["path"] == "emial")


@pytest.mark.parametrize("value", [True, "12", 1.5, None])
def test_true_and_text_are_no_integers(client: Client, runtime: Runtime, tenant: int, value: object) -> None:
    (lead,) = make_leads(runtime, tenant)
    fault = client.patch(f"/api/v1/leads/{lead}", {"name": "x", "version": value}, status=422).json
    assert list(errors_of(fault)) == ["version"]


def test_true_is_no_number(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    fault = client.post(f"/api/v1/leads/{lead}/score", {"score": True, "reason": "x"}, status=422).json
    assert errors_of(fault) == {"score": "wrong_type"}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"metadata": {"n": 2**53}}, "metadata.n"),
        ({"metadata": {"t": "a\x00b"}}, "metadata.t"),
        ({"metadata": {"t": "\ud800"}}, "metadata.t"),
        ({"name": "a\x00b"}, "name"),
    ],
)
def test_values_outside_the_canonical_range_are_refused_with_a_remedy(
    client: Client, body: dict[str, Any], path: str
) -> None:
    fault = client.post("/api/v1/leads", {"email": "a@example.org", **body}, status=422).json
    assert errors_of(fault) == {path: "not_canonical"}


def test_an_email_with_a_line_break_is_refused(client: Client) -> None:
    body = {"email": "a@example.org\r\nBcc: x@example.org"}
    fault = client.post("/api/v1/leads", body, status=422).json
    assert list(errors_of(fault)) == ["email"]


def test_a_name_with_a_line_break_is_refused_or_flattened(client: Client) -> None:
    answer = client.send("POST", "/api/v1/leads", {"email": "a@example.org", "name": "Ann\r\nBcc: x@example.org"})
    assert answer.status_int == 422 or "\n" not in answer.json["name"]


def test_a_condition_with_a_syntax_error_points_at_the_character(client: Client) -> None:
    fault = client.post("/api/v1/segments", {"name": "Hot", "conditions": "score >"}, status=422).json
    assert errors_of(fault).keys() == {"conditions"}
    assert "character" in fault["errors"][0]["message"]


def test_a_condition_on_an_unknown_field_names_the_nearest(client: Client) -> None:
    fault = client.post("/api/v1/segments", {"name": "Hot", "conditions": "contry == 'US'"}, status=422).json
    assert "country" in fault["errors"][0]["message"]


def test_a_name_that_is_taken_is_a_conflict(client: Client, runtime: Runtime, tenant: int) -> None:
    make_segment(runtime, tenant, name="Hot")
    fault = client.post("/api/v1/segments", {"name": "Hot", "conditions": "score > 1"}, status=409).json
    assert fault["code"] == "conflict"
    assert "choose another name" in fault["detail"]


def test_an_email_that_is_taken_is_a_conflict(client: Client) -> None:
    client.post("/api/v1/leads", {"email": "ann@example.org"})
    assert client.post("/api/v1/leads", {"email": "ANN@example.org"}, status=409).json["code"] == "conflict"


def test_a_patch_without_fields_says_what_could_change(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    assert client.patch(f"/api/v1/leads/{lead}", {}, status=422).json["errors"][0]["code"] == "nothing_to_change"


def test_a_body_that_is_no_object_is_refused(client: Client) -> None:
    assert client.post("/api/v1/leads", [1], status=400).json["errors"][0]["code"] == "not_an_object"


@pytest.mark.parametrize("id_", ["0", "-1", "1.0", "x", "9" * 19, "9" * 40, "%D9%A1", "1%00", "1'--"])
def test_what_cannot_be_an_id_is_not_found(client: Client, id_: str) -> None:
    answer = client.send("GET", f"/api/v1/leads/{id_}")
    assert answer.status_int == 404
    assert answer.json["code"] == "not_found"


@pytest.mark.parametrize("value", ["0", "x", "9" * 19, "99999999999999999999", "-1", ""])
def test_a_reference_that_cannot_be_an_id_is_named(client: Client, value: str) -> None:
    fault = client.post("/api/v1/campaigns", {"name": "x", "segment_id": value}, status=422).json
    assert errors_of(fault) == {"segment_id": "not_found"}


def test_unknown_addresses_are_json_too(app: TestApp) -> None:
    response = app.get("/nothing/here", status=404)
    assert response.content_type == "application/problem+json"
    assert response.json["code"] == "not_found"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "OPTIONS", "PATCH"])
def test_a_wrong_method_is_told_the_right_ones(client: Client, method: str) -> None:
    response = client.send(method, "/api/v1/segments")
    assert response.status_int == 405
    assert response.headers["Allow"] == "GET, HEAD, POST"
    assert response.content_type == "application/problem+json"


def test_a_method_cannot_be_overridden(client: Client, runtime: Runtime, tenant: int) -> None:
    make_segment(runtime, tenant)
    client.post("/api/v1/segments/1", None, status=405, headers={"X-HTTP-Method-Override": "DELETE"})


def test_every_answer_has_an_id_and_safe_headers(client: Client, app: TestApp) -> None:
    for response in (client.get("/api/v1"), app.get("/nothing", status=404), app.get("/api/v1", status=401)):
        assert len(response.headers["X-Request-Id"]) == 32
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_a_plain_request_id_of_the_caller_is_kept_and_others_are_not(client: Client) -> None:
    assert client.get("/api/v1", headers={"X-Request-Id": "order-4711"}).headers["X-Request-Id"] == "order-4711"
    assert client.get("/api/v1", headers={"X-Request-Id": 'x"} \t{'}).headers["X-Request-Id"] != 'x"} \t{'


def test_cross_origin_requests_get_no_permission(client: Client) -> None:
    response = client.get("/api/v1", headers={"Origin": "https://evil.example"})
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("field", ["tenant_id", "id", "score", "version_", "created_at", "updated_at", "email_norm"])
def test_what_the_server_writes_cannot_be_written(client: Client, runtime: Runtime, tenant: int, field: str) -> None:
    (lead,) = make_leads(runtime, tenant)
    before = client.get(f"/api/v1/leads/{lead}").json
    client.patch(f"/api/v1/leads/{lead}", {"name": "x", field: "2"}, status=422)
    assert client.get(f"/api/v1/leads/{lead}").json == before


@pytest.mark.parametrize("field", ["tenant_id", "status", "spent", "approved_by", "started_at", "budget_minor"])
def test_what_the_engine_decides_cannot_be_written(client: Client, field: str) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"}).json
    fault = client.patch(f"/api/v1/campaigns/{made['id']}", {field: "active"}, status=422).json
    assert errors_of(fault) == {field: "read_only"}
    assert client.get(f"/api/v1/campaigns/{made['id']}").json == made


@pytest.mark.req("SR-003")
def test_a_partial_view_written_back_removes_nothing(client: Client) -> None:
    body = {"email": "ann@example.org", "tags": ["vip"], "metadata": {"plan": "pro"}, "phone": "+14155550100"}
    made = client.post("/api/v1/leads", body).json
    part = client.get(f"/api/v1/leads?fields=email,first_name&filter=id == {made['id']}").json["data"][0]
    client.patch(f"/api/v1/leads/{made['id']}", part)
    after = client.get(f"/api/v1/leads/{made['id']}").json
    assert {name: after[name] for name in ("email", "tags", "metadata", "phone")} == body
