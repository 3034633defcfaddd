"""Reported events over HTTP: single, arrays, and thousands of lines."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select, text

from nexus_marketing.db.models import AuditEntry, Engagement
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("US-016", "FR-P2-007")

BULK = "/api/v1/engagements/bulk"


def send_lines(client: Client, body: bytes, *, status: Any = 200, **headers: str) -> Any:
    sent = {**client.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.app.post(BULK, body, content_type="application/x-ndjson", headers=sent, status=status)


def lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def stored(runtime: Runtime, tenant: int) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(Engagement)) or 0


def test_thousands_of_lines_are_answered_one_by_one(client: Client, runtime: Runtime, tenant: int) -> None:
    (lead,) = make_leads(runtime, tenant)
    good = [{"type": "page_visited", "lead_id": str(lead), "event_id": f"e{n}"} for n in range(2500)]
    body = lines(*good[:1200], b"not json\n", b"\n", {"type": "nonsense", "lead_id": "1"}, *good[1200:], good[7])
    answer = send_lines(client, body).json
    assert (answer["accepted"], answer["rejected"], answer["duplicate"]) == (2500, 2, 1)
    assert [each["status"] for each in answer["data"][1199:1203]] == ["accepted", "rejected", "rejected", "accepted"]
    assert answer["data"][-1] == {"status": "duplicate", "event_id": "e7"}
    assert stored(runtime, tenant) == 2500


def test_a_repeat_with_an_idempotency_key_takes_in_what_is_missing(
    client: Client, runtime: Runtime, tenant: int
) -> None:
    (lead,) = make_leads(runtime, tenant)
    rows = [{"type": "page_visited", "lead_id": str(lead)} for _ in range(5)]
    assert send_lines(client, lines(*rows[:3]), Idempotency_Key="k").json["accepted"] == 3
    again = send_lines(client, lines(*rows), Idempotency_Key="k").json
    assert (again["duplicate"], again["accepted"]) == (3, 2)
    assert send_lines(client, lines(*rows)).json["accepted"] == 5
    assert stored(runtime, tenant) == 10


def test_what_is_too_much_is_refused_with_what_was_done(
    client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nexus_marketing.api import engagements

    monkeypatch.setattr(engagements, "MAX_LINES", 1500)
    (lead,) = make_leads(runtime, tenant)
    fault = send_lines(client, lines({"type": "conversion", "lead_id": str(lead)}) * 2000, status=413).json
    assert (fault["code"], fault["lines_done"]) == ("too_many_lines", 1000)
    assert stored(runtime, tenant) == 1000


@pytest.mark.parametrize("body", [b"", b"\n\n"])
def test_no_line_at_all_is_a_fault(client: Client, body: bytes) -> None:
    assert send_lines(client, body, status=422).json["errors"][0]["code"] == "empty"


def test_lines_are_declared_as_such(client: Client) -> None:
    assert client.send("POST", BULK, {"type": "conversion"}).status_int == 415


def test_bodies_are_bounded(client: Client, runtime: Runtime) -> None:
    too_long = b" " * (runtime.settings.max_bulk_bytes + 1)
    assert send_lines(client, too_long, status=413).json["code"] == "body_too_large"
    long = b" " * (runtime.settings.max_body_bytes + 1)
    assert client.send("POST", "/api/v1/engagements", long).status_int == 413


def test_a_bad_single_event_names_every_fault(client: Client) -> None:
    fault = client.post("/api/v1/engagements", {"type": "x", "lead_id": 1, "id": "1"}, status=422).json
    assert {each["path"]: each["code"] for each in fault["errors"]} == {
        "type": "not_allowed",
        "lead_id": "wrong_type",
        "id": "read_only",
    }


class TestLists:
    @pytest.fixture
    def told(self, client: Client, runtime: Runtime, tenant: int) -> tuple[int, int]:
        """A lead and a campaign with five engagements of a day, the newest first told."""
        (lead,) = make_leads(runtime, tenant)
        campaign = make_campaign(runtime, tenant)
        about = {"lead_id": str(lead), "campaign_id": str(campaign)}
        rows = [
            {"type": "conversion", "notes": "Wants a Demo in ÄRZTE-Haus"},
            {"type": "page_visited", "metadata": {"url": "/pricing", "plans": ["Pro", 12]}},
            {"type": "custom", "name": "order_placed", "properties": {"sku": "demo-kit"}},
            {"type": "page_visited", "user_agent": "Googlebot/2.1"},
            {"type": "page_visited"},
        ]
        moments = [f"2026-03-02T0{9 - number}:00:00Z" for number in range(5)]
        body = [{**about, **row, "tracked_at": moment} for row, moment in zip(rows, moments, strict=True)]
        assert client.post("/api/v1/engagements", body, status=200).json["accepted"] == 5
        return lead, campaign

    def hours(self, client: Client, path: str) -> list[int]:
        return [int(row["tracked_at"][11:13]) for row in client.get(quote(path, "/?&=")).json["data"]]

    @pytest.mark.parametrize("kind", ["leads", "campaigns"])
    def test_they_are_filtered_and_searched(self, client: Client, told: tuple[int, int], kind: str) -> None:
        path = f"/api/v1/{kind}/{told[kind == 'campaigns']}/engagements"
        assert self.hours(client, path) == [9, 8, 7, 6, 5]
        assert self.hours(client, f"{path}?filter=type == 'page_visited'") == [8, 6, 5]
        assert self.hours(client, f"{path}?filter=verdict == 'machine'") == [6]
        assert self.hours(client, f"{path}?filter=name == 'order_placed'") == [7]
        between = "tracked_at >= '2026-03-02T06:00:00Z' AND tracked_at < '2026-03-02T08:00:00Z'"
        assert self.hours(client, f"{path}?filter={between}") == [7, 6]
        assert self.hours(client, f"{path}?q=DEMO") == [9, 7]
        assert self.hours(client, f"{path}?q=demo ärzte") == [9]
        assert self.hours(client, f"{path}?q=pricing 12") == [8]
        assert self.hours(client, f"{path}?q=pricing&filter=type == 'conversion'") == []
        assert self.hours(client, f"{path}?q=dem") == []

    @pytest.mark.parametrize("query", ["", "?q=demo"])
    def test_pages_go_by_key(self, client: Client, told: tuple[int, int], query: str) -> None:
        path = f"/api/v1/campaigns/{told[1]}/engagements{query}"
        whole, joined, cursor = self.hours(client, path), [], ""
        while True:
            answer = client.get(f"{path}{'&' if query else '?'}limit=1{cursor}").json
            joined += [int(row["tracked_at"][11:13]) for row in answer["data"]]
            if not answer["has_more"]:
                break
            cursor = f"&cursor={answer['next']}"
        assert joined == whole

    def test_a_cursor_belongs_to_its_words(self, client: Client, told: tuple[int, int]) -> None:
        path = f"/api/v1/leads/{told[0]}/engagements?limit=1"
        cursor = client.get(f"{path}&q=demo").json["next"]
        client.get(f"{path}&q=pricing&cursor={cursor}", status=400)

    @pytest.mark.parametrize("words", ["", "---", "a " * 40 + " ".join(map(str, range(20))), "' & !", "%00"])
    def test_no_text_breaks_a_search(self, client: Client, told: tuple[int, int], words: str) -> None:
        assert client.send("GET", f"/api/v1/leads/{told[0]}/engagements?q={words}").status_int in (200, 422)

    def test_a_search_stays_in_its_tenant_and_is_audited(
        self, client: Client, stranger: Client, runtime: Runtime, told: tuple[int, int], other_tenant: int
    ) -> None:
        (theirs,) = make_leads(runtime, other_tenant)
        assert self.hours(stranger, f"/api/v1/leads/{theirs}/engagements?q=demo") == []
        stranger.get(f"/api/v1/leads/{told[0]}/engagements?q=demo", status=404)
        self.hours(client, f"/api/v1/leads/{told[0]}/engagements?q=demo")
        with runtime.work(client.tenant_id, mode="read") as ctx:
            entry = ctx.session.scalars(select(AuditEntry).where(AuditEntry.action == "engagements.searched")).one()
        assert (entry.subject_type, entry.body["found"]["after"]) == ("lead_engagements", 2)
        assert "demo" not in str(entry.body)

    def test_what_is_erased_is_found_no_more(
        self, client: Client, runtime: Runtime, tenant: int, told: tuple[int, int]
    ) -> None:
        with runtime.work(tenant) as ctx:
            for row in ctx.session.scalars(select(Engagement)):
                row.notes, row.words = None, None
        assert self.hours(client, f"/api/v1/leads/{told[0]}/engagements?q=demo") == []
        if runtime.engines.dialect == "sqlite":
            with runtime.engines.owner.connect() as connection:
                kept = text("SELECT count(*) FROM marketing_engagements_words")
                assert connection.scalar(kept) == 0

    def test_lists_are_those_of_other_parameters_otherwise(self, client: Client) -> None:
        assert client.get("/api/v1/leads?q=x", status=422).json["errors"][0]["code"] == "unknown_parameter"
