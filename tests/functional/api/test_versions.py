"""Optimistic locking: nobody overwrites what they have not seen."""

import pytest

from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-007")

CONTENT = {"subject": "Hi", "html": "<p>Hi</p>", "text": "Hi"}
RESOURCES = [
    ("/api/v1/leads", {"email": "ann@example.org"}, {"first_name": "Ann"}),
    ("/api/v1/segments", {"name": "Hot", "conditions": "score > 1"}, {"conditions": "score > 2"}),
    ("/api/v1/templates", {"name": "W", "type": "email", "content": CONTENT}, {"content": {**CONTENT, "text": "Ho"}}),
    ("/api/v1/campaigns", {"name": "Spring"}, {"name": "Summer"}),
]


@pytest.mark.parametrize(("path", "body", "change"), RESOURCES)
def test_a_stale_version_is_refused_with_the_current_one(
    client: Client, path: str, body: dict[str, object], change: dict[str, object]
) -> None:
    made = client.post(path, body)
    where = f"{path}/{made.json['id']}"
    assert client.patch(where, {**change, "version": 1}).headers["ETag"] == '"2"'
    by_body = client.patch(where, {**change, "version": 1}, status=409)
    assert by_body.json["code"] == "stale_version"
    assert by_body.json["current_version"] == 2
    by_header = client.patch(where, change, status=412, headers={"If-Match": made.headers["ETag"]})
    assert by_header.json["current_version"] == 2
    assert by_header.headers["ETag"] == '"2"'
    assert client.get(where).headers["ETag"] == '"2"'


def test_a_matching_etag_lets_through(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"})
    client.patch(made.headers["Location"], {"name": "Summer"}, headers={"If-Match": '"1"'})
    client.patch(made.headers["Location"], {"name": "Autumn"}, headers={"If-Match": "*"})


def test_actions_take_versions_too(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"})
    client.patch(made.headers["Location"], {"name": "Summer"})
    client.delete(made.headers["Location"], status=412, headers={"If-Match": '"1"'})
    client.post(f"{made.headers['Location']}/pause", {"version": 1}, status=409)


@pytest.mark.parametrize(("path", "body", "change"), RESOURCES[1:3])
def test_what_changed_meanwhile_is_not_deleted(
    client: Client, path: str, body: dict[str, object], change: dict[str, object]
) -> None:
    made = client.post(path, body)
    where = f"{path}/{made.json['id']}"
    newer = client.patch(where, change)
    stale = client.delete(where, status=412, headers={"If-Match": made.headers["ETag"]})
    assert stale.json["current_version"] == 2
    assert client.get(where).json == newer.json
    client.delete(where, status=204, headers={"If-Match": newer.headers["ETag"]})


@pytest.mark.parametrize("header", ["3", 'W/"1"', '"x"', '"1", "2"'])
def test_a_header_that_is_no_etag_of_ours_is_refused(client: Client, header: str) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"})
    fault = client.patch(made.headers["Location"], {"name": "x"}, status=400, headers={"If-Match": header})
    assert fault.json["code"] == "bad_if_match"


def test_header_and_body_must_agree(client: Client) -> None:
    made = client.post("/api/v1/campaigns", {"name": "Spring"})
    client.patch(made.headers["Location"], {"name": "x", "version": 2}, status=400, headers={"If-Match": '"1"'})
