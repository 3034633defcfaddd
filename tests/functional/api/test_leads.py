"""``/api/v1/leads`` from the outside."""

import pytest

from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-003", "SR-007")


def test_a_lead_is_created_shown_listed_and_changed(client: Client) -> None:
    made = client.post("/api/v1/leads", {"email": "Ann@Example.org", "first_name": "Ann", "metadata": {"plan": "pro"}})
    assert made.headers["Location"] == f"/api/v1/leads/{made.json['id']}"
    assert made.headers["ETag"] == '"1"'
    shown = client.get(made.headers["Location"])
    assert shown.json == made.json
    assert shown.json["metadata"] == {"plan": "pro"}
    listed = client.get("/api/v1/leads").json
    assert listed == {"data": [shown.json], "has_more": False, "next": None}
    changed = client.patch(made.headers["Location"], {"first_name": "Anna", "version": 1})
    assert changed.json["first_name"] == "Anna"
    assert changed.json["version"] == 2
