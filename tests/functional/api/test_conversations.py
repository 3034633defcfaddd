"""Comments and files of engagements."""

from typing import Any

import pytest

from nexus_marketing.runtime import MemoryBlobs, Runtime
from tests.common.factories import make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-016", "FR-P2-007")


@pytest.fixture
def engagement(client: Client, runtime: Runtime, tenant: int) -> str:
    (lead,) = make_leads(runtime, tenant)
    body = {"type": "conversion", "lead_id": str(lead), "notes": "Signed"}
    found: str = client.post("/api/v1/engagements", body).json["id"]
    return found


def upload(client: Client, engagement: str, content: bytes, name: str, *, status: Any = 201, **headers: str) -> Any:
    sent = {**client.headers, **{key.replace("_", "-"): value for key, value in headers.items()}}
    path = f"/api/v1/engagements/{engagement}/attachments?name={name}"
    return client.app.post(path, content, content_type="text/html", headers=sent, status=status)


def test_a_comment_is_kept_in_order_and_found(client: Client, engagement: str, runtime: Runtime) -> None:
    path = f"/api/v1/engagements/{engagement}/comments"
    client.post(path, {"text": "Call back on Tuesday"})
    client.post(path, {"text": "Called"})
    shown = client.get(f"{path}?sort=id").json["data"]
    assert [row["text"] for row in shown] == ["Call back on Tuesday", "Called"]
    assert shown[0]["author"].startswith("key:")
    lead = client.get("/api/v1/leads").json["data"][0]["id"]
    for word in ("tuesday", "signed"):
        assert len(client.get(f"/api/v1/leads/{lead}/engagements?q={word}").json["data"]) == 1


@pytest.mark.parametrize("text", ["", "  ", "x\x00", None, 7])
def test_a_comment_says_something(client: Client, engagement: str, text: Any) -> None:
    client.post(f"/api/v1/engagements/{engagement}/comments", {"text": text}, status=422)


def test_a_file_comes_back_as_it_was_and_is_never_shown(client: Client, engagement: str) -> None:
    content = b"<script>alert(1)</script>"
    made = upload(client, engagement, content, "offer%20%C3%84.html")
    assert (made.json["name"], made.json["size_bytes"], made.json["content_type"]) == ("offer Ä.html", 25, "text/html")
    response = client.get(made.headers["Location"])
    assert response.body == content
    assert response.content_type == "application/octet-stream"
    assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''offer%20%C3%84.html"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    listed = client.get(f"/api/v1/engagements/{engagement}/attachments").json["data"]
    assert [row["id"] for row in listed] == [made.json["id"]]


def test_a_removed_file_is_gone_with_its_bytes(client: Client, engagement: str, runtime: Runtime) -> None:
    path = upload(client, engagement, b"x", "a.txt").headers["Location"]
    assert isinstance(runtime.blobs, MemoryBlobs)
    client.delete(path, status=204)
    client.get(path, status=404)
    assert runtime.blobs._contents == {}


@pytest.mark.parametrize("name", ["", "..%2Fetc", "a%5Cb", "a%0Ab", "x" * 201])
def test_a_bad_name_leaves_nothing_behind(client: Client, engagement: str, runtime: Runtime, name: str) -> None:
    upload(client, engagement, b"x", name, status=422)
    upload(client, "987654", b"x", "a.txt", status=404)
    upload(client, engagement, b"", "a.txt", status=422)
    assert isinstance(runtime.blobs, MemoryBlobs)
    assert runtime.blobs._contents == {}


def test_a_repeat_with_a_key_keeps_one_file(client: Client, engagement: str, runtime: Runtime) -> None:
    first = upload(client, engagement, b"x", "a.txt", Idempotency_Key="k")
    assert upload(client, engagement, b"x", "a.txt", Idempotency_Key="k").json == first.json
    assert isinstance(runtime.blobs, MemoryBlobs)
    assert len(runtime.blobs._contents) == 1


def test_bytes_that_were_changed_are_not_handed_out(client: Client, engagement: str, runtime: Runtime) -> None:
    path = upload(client, engagement, b"x", "a.txt").headers["Location"]
    assert isinstance(runtime.blobs, MemoryBlobs)
    for key in runtime.blobs._contents:
        runtime.blobs._contents[key] = b"y"
    client.get(path, status=404)
