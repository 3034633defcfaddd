"""Leads written by external id or address: who they are decides, also for two callers at once."""

import threading

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.errors import Conflict, ValidationError
from nexus_marketing.db.models import AuditEntry, Lead, Tenant
from nexus_marketing.services.leads.records import change_tags, create_lead, update_lead
from nexus_marketing.services.leads.upserts import MAX_ROWS, upsert_lead, upsert_leads
from nexus_marketing.services.tenants import create_member
from tests.common.factories import make_leads

pytestmark = pytest.mark.req("FR-P2-009")


def put(runtime, tenant, **data):
    with runtime.work(tenant, role="app") as ctx:
        return upsert_lead(ctx, data)


def count(runtime, tenant):
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(Lead))


def test_the_address_is_folded_before_it_is_looked_up(runtime, tenant):
    first, is_new = put(runtime, tenant, email="Ann@Example.org", name="Ann Lee")
    second, is_known = put(runtime, tenant, email="ann@EXAMPLE.org", country="DE")
    assert (is_new, is_known, first.id) == (True, False, second.id)
    assert (second.name, second.country, second.version) == ("Ann Lee", "DE", 2)


def test_the_external_id_comes_first_and_may_bring_another_address(runtime, tenant):
    first, _ = put(runtime, tenant, external_id="crm-1", email="old@example.org")
    second, is_new = put(runtime, tenant, external_id="crm-1", email="new@example.org")
    assert (first.id, is_new, second.email_norm) == (second.id, False, "new@example.org")


def test_the_address_finds_a_lead_that_gets_its_external_id(runtime, tenant):
    first, _ = put(runtime, tenant, email="a@example.org")
    second, _ = put(runtime, tenant, email="a@example.org", external_id="crm-1")
    assert (first.id, second.external_id) == (second.id, "crm-1")


def test_what_is_so_already_is_not_written_again(runtime, tenant):
    put(runtime, tenant, email="a@example.org", tags=["vip"])
    again, _ = put(runtime, tenant, email="a@example.org", tags=["vip"])
    assert again.version == 1


def test_two_leads_are_never_guessed_into_one(runtime, tenant):
    one, _ = put(runtime, tenant, external_id="crm-1", email="a@example.org")
    other, _ = put(runtime, tenant, email="b@example.org")
    with pytest.raises(Conflict, match="merge them") as refused:
        put(runtime, tenant, external_id="crm-1", email="b@example.org")
    assert refused.value.context["lead_ids"] == [str(one.id), str(other.id)]


def test_a_lead_needs_something_to_be_known_by(runtime, tenant):
    with pytest.raises(ValidationError, match="to know the lead by"):
        put(runtime, tenant, phone="+4930123456")


@pytest.mark.req("REL-001")
def test_callers_at_once_write_one_lead(runtime, tenant):
    failures, barrier = [], threading.Barrier(4)

    def call(number):
        try:
            barrier.wait()
            for turn in range(5):
                put(runtime, tenant, email=f"p{turn}@example.org", tags=[f"t{number}"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(runtime, tenant) == 5


def test_a_batch_answers_row_by_row(runtime, tenant):
    put(runtime, tenant, email="known@example.org", name="Known")
    put(runtime, tenant, email="same@example.org", name="Same Person")
    rows = [
        {"email": "new@example.org"},
        {"email": "known@example.org", "name": "Changed"},
        {"email": "same@example.org", "name": "Same Person"},
        {"email": "nonsense"},
        {"name": "Nobody"},
        {"email": "NEW@example.org"},
        {"external_id": "crm-9", "phone": "+4930123456"},
    ]
    with runtime.work(tenant, role="app") as ctx:
        answers = upsert_leads(ctx, rows)
    statuses = ["created", "updated", "unchanged", "rejected", "rejected", "rejected", "created"]
    assert [answer.status for answer in answers] == statuses
    assert [answers[n].errors[0].code for n in (3, 4, 5)] == ["not_an_email", "required", "duplicate_row"]
    assert (answers[0].version, answers[1].version, answers[2].version) == (1, 2, 1)
    with runtime.work(tenant, mode="read") as ctx:
        entries = ctx.session.scalars(select(AuditEntry).where(AuditEntry.action == "leads.upserted")).all()
    assert [entry.body["count"]["after"] for entry in entries] == [3]


@pytest.mark.req("REL-001")
def test_batches_at_once_leave_one_lead_each(runtime, tenant):
    failures, barrier = [], threading.Barrier(3)

    def call(number):
        rows = [{"email": f"p{n}@example.org", "tags": [f"t{number}"]} for n in range(60)]
        try:
            barrier.wait()
            with runtime.work(tenant, role="app") as ctx:
                answers = upsert_leads(ctx, rows if number % 2 else rows[::-1])
            assert {answer.status for answer in answers} <= {"created", "updated"}
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(runtime, tenant) == 60


def test_a_full_batch_takes_few_statements(client, count_statements):
    rows = [{"email": f"p{n}@example.org", "metadata": {"n": n}} for n in range(MAX_ROWS)]
    with count_statements() as statements:
        answer = client.app.post_json("/api/v1/leads/batch", {"leads": rows}, headers=client.headers).json
    assert (answer["created"], len(answer["data"])) == (MAX_ROWS, MAX_ROWS)
    assert len(statements) < 20
    client.post("/api/v1/leads/batch", {"leads": [*rows, {}]}, status=422)


def test_rest_says_whether_the_lead_is_new(client):
    made = client.send("PUT", "/api/v1/leads", {"email": "a@example.org"})
    assert (made.status_int, made.headers["Location"]) == (201, f"/api/v1/leads/{made.json['id']}")
    again = client.send("PUT", "/api/v1/leads", {"email": "a@example.org", "name": "Ann"})
    assert (again.status_int, again.json["id"], again.headers["ETag"]) == (200, made.json["id"], '"2"')
    mixed = client.post("/api/v1/leads/batch", {"leads": [5, {"email": 5}, {"email": "b@example.org"}]}, status=200)
    assert [row["status"] for row in mixed.json["data"]] == ["rejected", "rejected", "created"]


def test_tags_are_added_and_removed_without_reading_them_first(client, runtime, tenant):
    (lead,) = make_leads(runtime, tenant, tags=["old", "kept"])
    path = f"/api/v1/leads/{lead}/tags"
    assert client.post(path, {"add": ["new", "kept"], "remove": ["old", "none"]}, status=200).json["tags"] == [
        "kept",
        "new",
    ]
    assert client.post(path, {"add": ["new"]}, status=200).json["version"] == 2
    client.post(path, {"add": ["x"], "version": 1}, status=409)
    assert client.post(path, {"add": [f"t{n}" for n in range(100)]}, status=422).json["errors"][0]["path"] == "add"
    threads = [threading.Thread(target=_tag, args=[runtime, tenant, lead, f"at-once-{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.get(f"/api/v1/leads/{lead}").json["tags"]) == 6


def _tag(runtime, tenant, lead, tag):
    with runtime.work(tenant, role="app") as ctx:
        change_tags(ctx, lead, add=[tag])


def test_an_owner_is_a_member(client, runtime, tenant):
    with runtime.work(tenant) as ctx:
        member = create_member(ctx, "Mia", "mia@example.org", "marketer").id
    made = client.post("/api/v1/leads", {"phone": "+4930123456", "owner_id": str(member)}).json
    assert (made["owner_id"], made["email"]) == (str(member), None)
    fault = client.patch(f"/api/v1/leads/{made['id']}", {"owner_id": "999"}, status=422).json
    assert (fault["errors"][0]["path"], fault["errors"][0]["code"]) == ("owner_id", "not_found")
    assert client.patch(f"/api/v1/leads/{made['id']}", {"owner_id": None}).json["owner_id"] is None


def test_a_number_without_a_country_code_is_one_of_the_leads_or_the_tenants_country(runtime, tenant):
    with runtime.work(None, role="owner") as ctx:
        row = ctx.session.get(Tenant, tenant)
        row.settings = {"default_country": "FR"}
    with runtime.work(tenant) as ctx:
        own = create_lead(ctx, {"phone": "030 123456", "country": "DE"})
        tenants = create_lead(ctx, {"phone": "01 23 45 67 89", "external_id": "x"})
        update_lead(ctx, own.id, {"phone": "030 999999"})
    assert (own.phone, tenants.phone) == ("+4930999999", "+33123456789")
    with pytest.raises(ValidationError, match=r"E\.164"), runtime.work(tenant) as ctx:
        create_lead(ctx, {"phone": "12"})
