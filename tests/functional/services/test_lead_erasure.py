"""Erasing a lead: nobody writes there again, nothing tells who it was, and what was counted stays."""

from datetime import timedelta

import pytest
from sqlalchemy import UniqueConstraint, insert, select, text

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.errors import Gone, NotFound, StaleVersion
from nexus_marketing.core.events import LeadErased
from nexus_marketing.core.hub import EventHub
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import (
    AuditEntry,
    AuditValue,
    Consent,
    Delivery,
    DeliveryChunk,
    Engagement,
    Lead,
    LeadKey,
    LeadRemoval,
    Segment,
    SegmentMember,
)
from nexus_marketing.db.queries.privacy import suppressed_hashes
from nexus_marketing.db.queries.removals import FILES, LEADS, personal_tables
from nexus_marketing.runtime import new_blob_key
from nexus_marketing.services.audit import commitment_holds
from nexus_marketing.services.conversations import add_attachment, add_comment
from nexus_marketing.services.leads import removals as lead_removals
from nexus_marketing.services.leads.erasure import certificate, erase_lead, find_erasure
from nexus_marketing.services.leads.field_declarations import declare_field
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.privacy import address_hash, record_consent, unsubscribe
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import recalculate_requested
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template

pytestmark = pytest.mark.req("FR-P3-008", "US-026", "BR-012")

CANARY = "canarybird"
#: Personal columns that erasing a lead does not reach, and why that is right.
KEPT = {
    "marketing_suppressions": "a keyed hash, so that the wish outlives the person's data",
    "marketing_members": "those who act for the tenant",
    "marketing_idempotency_keys": "answers are forgotten after a day",
    "marketing_lead_import_errors": "rows that never became a lead",
    "marketing_render_blocks": "packed: the lead is taken out of each (delivery.renders, tests of its own)",
    "marketing_provider_reports": "a queue that is emptied every few seconds",
    "marketing_public_events": "a queue that is emptied every few seconds",
}


def test_every_personal_column_is_cleared_or_excused():
    """A new column flagged personal is reached by its ``lead_id``, or stands above with a reason."""
    reached = {table.name for table in personal_tables()} | {LEADS, FILES}
    flagged = {
        table.name for table in Base.metadata.tables.values() if any(column.info.get("personal") for column in table.c)
    }
    assert flagged - reached == KEPT.keys()


def test_what_is_cleared_is_found_by_an_index():
    for table in personal_tables():
        unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        indexes = [[column.name for column in each.columns] for each in (*table.indexes, *unique)]
        assert any(names[:2] == ["tenant_id", "lead_id"] for names in indexes), table.name


def test_every_table_that_names_a_lead_says_whether_its_columns_are_personal():
    for table in Base.metadata.tables.values():
        assert all("personal" in column.info for column in table.c), table.name


def erase(runtime, tenant, lead, **options):
    with runtime.work(tenant, role="app") as ctx:
        return erase_lead(ctx, lead, **options)


def rows(runtime, tenant, model, **where):
    with runtime.work(tenant, mode="read") as ctx:
        wanted = [getattr(model, name) == value for name, value in where.items()]
        return list(ctx.session.scalars(select(model).where(*wanted)))


def a_life(runtime, tenant):
    """A lead with something personal in every table that may hold it."""
    with runtime.work(tenant) as ctx:
        data = {"email": f"{CANARY}@example.org", "name": f"{CANARY} Lee", "phone": "+4930123456", "tags": [CANARY]}
        lead = create_lead(ctx, {**data, "external_id": CANARY, "metadata": {"note": CANARY}}).id
        update_lead(ctx, lead, {"first_name": f"{CANARY} two"})
        evidence = {"form": CANARY}
        record_consent(ctx, lead, granted=True, source="form", ip_address="192.0.2.77", evidence=evidence)
        about = {"type": "page_visited", "verdict": "human", "notes": CANARY, "attributes": {"page": CANARY}}
        ctx.session.add(Engagement(tracked_at=ctx.now - timedelta(hours=1), lead_id=lead, **about))
        ctx.session.add(LeadKey(kind="phone", key_hash=b"k" * 16, lead_id=lead))
    return lead


def dump(runtime, tenant):
    """Everything a tenant has, as text."""
    with runtime.engines.owner.connect() as connection:
        found = []
        for table in Base.metadata.sorted_tables:
            if "tenant_id" in table.c:
                names = ", ".join(f'"{column.name}"' for column in table.c)
                where = {"tenant": tenant}
                rows = connection.execute(text(f"SELECT {names} FROM {table.name} WHERE tenant_id = :tenant"), where)
                found += [repr(row) for row in rows]
    return "\n".join(found)


@pytest.mark.req("D04")
def test_nothing_personal_is_left_anywhere(runtime, tenant):
    lead = a_life(runtime, tenant)
    segment = make_segment(runtime, tenant, [lead])
    assert CANARY in dump(runtime, tenant)
    removal = erase(runtime, tenant, lead)
    left = dump(runtime, tenant)
    for word in (CANARY, "192.0.2.77", "4930123456"):
        assert word not in left
    assert removal.finished_at is not None
    found = certificate(removal)
    assert found["status"] == "finished"
    assert found["counts"] == {
        "marketing_audit_values": 3,
        "marketing_consents": 1,
        "marketing_engagements": 1,
        "marketing_lead_keys": 1,
        "marketing_leads": 1,
        "marketing_segment_members": 1,
        "marketing_suppressions": 2,
    }
    recalculate_requested(runtime)
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.get(Segment, (tenant, segment)).lead_count == 0


def test_comments_and_files_go_with_their_bytes(runtime, tenant):
    lead = a_life(runtime, tenant)
    key = new_blob_key(tenant)
    runtime.blobs.put(key, b"a scan of a passport")
    with runtime.work(tenant) as ctx:
        (engagement,) = ctx.session.scalars(select(Engagement))
        add_comment(ctx, engagement.id, f"said {CANARY}")
        file = {
            "blob_key": key,
            "content": b"a scan of a passport",
            "name": f"{CANARY}.png",
            "content_type": "image/png",
        }
        add_attachment(ctx, engagement.id, **file)
    removal = erase(runtime, tenant, lead)
    assert removal.finished_at is None
    assert runtime.blobs.get(key) is not None  # a request that may yet fail has removed nothing
    finish_removals(runtime)
    assert runtime.blobs.get(key) is None
    assert CANARY not in dump(runtime, tenant)
    (removal,) = rows(runtime, tenant, LeadRemoval)
    assert removal.counts["marketing_engagement_attachments"] == 1
    assert removal.counts["marketing_engagement_comments"] == 1
    assert removal.finished_at is not None


def test_what_happened_stays_countable_and_audit_rows_stay_true(runtime, tenant):
    lead = a_life(runtime, tenant)
    kept = {row.audit_id: row.values for row in rows(runtime, tenant, AuditValue)}
    erase(runtime, tenant, lead)
    (engagement,) = rows(runtime, tenant, Engagement)
    assert (engagement.lead_id, engagement.type, engagement.notes, engagement.attributes) == (
        lead,
        "page_visited",
        None,
        {},
    )
    (consent,) = rows(runtime, tenant, Consent)
    assert (consent.granted_at is not None, consent.source, consent.ip_address, consent.evidence) == (
        True,
        "form",
        None,
        {},
    )
    entries = {row.id: row for row in rows(runtime, tenant, AuditEntry)}
    assert [row.values for row in rows(runtime, tenant, AuditValue)] == [None] * 3
    for audit_id, values in kept.items():
        for name, value in values.items():
            assert commitment_holds(entries[audit_id].body[name]["commitment"], value)
    assert [row.action for row in entries.values()].count("lead.erased") == 1


def test_every_address_is_suppressed_on_every_channel_for_good(runtime, tenant):
    erase(runtime, tenant, a_life(runtime, tenant))
    with runtime.work(tenant, mode="read") as ctx:
        for address in (f"{CANARY}@example.org", "+4930123456"):
            hashed = address_hash(ctx, address)
            for channel in ("email", "sms"):
                assert suppressed_hashes(ctx.session, [hashed], channel, MessageClass.TRANSACTIONAL) == {hashed}


def test_the_lead_is_gone_and_says_no_more_than_that(runtime, tenant, client):
    lead = a_life(runtime, tenant)
    erase(runtime, tenant, lead)
    with pytest.raises(Gone), runtime.work(tenant) as ctx:
        update_lead(ctx, lead, {"name": "Back"})
    with pytest.raises(NotFound), runtime.work(tenant) as ctx:
        unsubscribe(ctx, lead, source="page")
    for path in (f"/api/v1/leads/{lead}", f"/api/v1/leads/{lead}/engagements"):
        fault = client.get(path, status=410)
        assert (fault.json["code"], CANARY in fault.text) == ("gone", False)
    assert client.get("/api/v1/leads").json["data"] == []


def test_no_audience_has_a_tombstone(runtime, tenant):
    lead, other = a_life(runtime, tenant), make_leads(runtime, tenant)[0]
    with runtime.work(tenant) as ctx:
        segment = create_segment(ctx, {"name": "No name", "conditions": "phone IS NULL"}).id
    erase(runtime, tenant, lead)
    recalculate_requested(runtime)
    with runtime.work(tenant, mode="read") as ctx:
        members = (
            ctx.session.execute(select(SegmentMember.lead_id).where(SegmentMember.segment_id == segment))
            .scalars()
            .all()
        )
    assert members == [other]


def test_the_address_may_come_back_as_somebody_new(runtime, tenant):
    lead = a_life(runtime, tenant)
    erase(runtime, tenant, lead)
    with runtime.work(tenant) as ctx:
        assert create_lead(ctx, {"email": f"{CANARY}@example.org"}).id != lead


def test_erasing_again_changes_nothing(runtime, tenant):
    lead = a_life(runtime, tenant)
    first, again = erase(runtime, tenant, lead), erase(runtime, tenant, lead)
    assert (first.id, first.counts) == (again.id, again.counts)
    assert len(rows(runtime, tenant, LeadRemoval)) == 1


def test_it_goes_on_in_pieces_after_an_interruption(runtime, tenant, monkeypatch):
    lead = a_life(runtime, tenant)
    monkeypatch.setattr(lead_removals, "PIECE", 4)
    with runtime.work(tenant) as ctx:
        values = {"tenant_id": tenant, "lead_id": lead, "type": "page_visited", "verdict": "human"}
        many = [{**values, "tracked_at": ctx.now, "notes": CANARY, "attributes": {}} for _ in range(10)]
        ctx.session.execute(insert(Engagement), many)
    removal = erase(runtime, tenant, lead)
    assert (removal.finished_at, certificate(removal)["status"]) == (None, "running")
    assert CANARY in dump(runtime, tenant)
    assert finish_removals(runtime) >= 3
    assert finish_removals(runtime) == 0
    assert CANARY not in dump(runtime, tenant)
    with runtime.work(tenant, mode="read") as ctx:
        assert find_erasure(ctx, lead).counts["marketing_engagements"] == 11


def test_those_who_were_merged_into_it_are_erased_too(runtime, tenant):
    lead = a_life(runtime, tenant)
    (winner,) = make_leads(runtime, tenant)
    with runtime.work(tenant, role="app") as ctx:
        merge_leads(ctx, winner, lead)
    assert CANARY in dump(runtime, tenant)
    erase(runtime, tenant, winner)
    finish_removals(runtime)
    assert CANARY not in dump(runtime, tenant)
    with runtime.work(tenant, mode="read") as ctx:
        hashed = address_hash(ctx, f"{CANARY}@example.org")
        assert suppressed_hashes(ctx.session, [hashed], "email", MessageClass.MARKETING) == {hashed}


def test_fields_that_are_declared_not_personal_stay_for_statistics(runtime, tenant):
    with runtime.work(tenant) as ctx:
        declare_field(ctx, {"name": "plan", "type": "text", "personal": False})
        declare_field(ctx, {"name": "seats", "type": "number"})
        metadata = {"plan": "pro", "seats": 5, "note": CANARY}
        lead = create_lead(ctx, {"email": "a@example.org", "metadata": metadata}).id
    erase(runtime, tenant, lead)
    (tombstone,) = rows(runtime, tenant, Lead)
    assert tombstone.attributes == {"plan": "pro"}


class TestMessagesUnderWay:
    @pytest.fixture
    def send(self, runtime, tenant):
        lead = a_life(runtime, tenant)
        others = make_leads(runtime, tenant, 2)
        template = make_template(runtime, tenant)
        return lead, make_send(runtime, tenant, make_campaign(runtime, tenant), template, [lead, *others])

    def test_what_has_not_left_never_does(self, runtime, tenant, send):
        lead, send_id = send
        removal = erase(runtime, tenant, lead)
        assert removal.finished_at is None
        assert finish_removals(runtime) == 1
        found = {
            row.seq: (row.lead_id, row.state, row.reason) for row in rows(runtime, tenant, Delivery, send_id=send_id)
        }
        assert found[1] == (lead, "skipped", "lead_erased")
        assert [state for _, state, _ in (found[2], found[3])] == ["planned"] * 2

    def test_what_may_be_on_the_wire_is_left_to_who_put_it_there(self, runtime, tenant, send):
        lead, send_id = send
        self.lease(runtime, tenant, send_id, intent_lo=1, intent_hi=2)
        erase(runtime, tenant, lead)
        finish_removals(runtime)
        (row,) = rows(runtime, tenant, Delivery, send_id=send_id, seq=1)
        assert row.state == "planned"
        assert CANARY not in dump(runtime, tenant)
        assert finish_removals(runtime) == 0
        self.lease(runtime, tenant, send_id, intent_lo=None, intent_hi=None)
        assert finish_removals(runtime) == 1
        (row,) = rows(runtime, tenant, Delivery, send_id=send_id, seq=1)
        assert (row.state, row.reason) == ("skipped", "lead_erased")

    def lease(self, runtime, tenant, send_id, **intent):
        with runtime.work(tenant) as ctx:
            (chunk,) = ctx.session.scalars(select(DeliveryChunk).where(DeliveryChunk.send_id == send_id))
            chunk.lease_until = ctx.now + timedelta(minutes=5)
            for name, value in intent.items():
                setattr(chunk, name, value)

    def test_rest_answers_that_it_goes_on_and_how_it_ended(self, runtime, tenant, client, send):
        lead, _ = send
        running = client.delete(f"/api/v1/leads/{lead}", status=202).json
        assert (running["status"], running["lead_id"], running["finished_at"]) == ("running", str(lead), None)
        finish_removals(runtime)
        finished = client.get(f"/api/v1/leads/{lead}/erasure").json
        assert (finished["status"], finished["counts"]["marketing_deliveries"]) == ("finished", 1)
        client.delete(f"/api/v1/leads/{lead}", status=204)


def test_rest_erases_at_once_what_is_little(client, runtime, tenant):
    lead = a_life(runtime, tenant)
    client.delete(f"/api/v1/leads/{lead}", status=412, headers={"If-Match": '"1"'})
    assert client.get(f"/api/v1/leads/{lead}/erasure").json["status"] == "not_requested"
    client.delete(f"/api/v1/leads/{lead}", status=204)
    client.delete("/api/v1/leads/999", status=404)


def test_a_stale_version_erases_nobody(runtime, tenant):
    lead = a_life(runtime, tenant)
    with pytest.raises(StaleVersion):
        erase(runtime, tenant, lead, expected_version=1)
    assert CANARY in dump(runtime, tenant)


def test_others_are_told_to_forget_too(runtime, tenant):
    import dataclasses

    heard = []
    hub = EventHub()
    hub.subscribe("marketing.lead.erased", heard.append)
    erase(dataclasses.replace(runtime, hub=hub), tenant, a_life(runtime, tenant))
    assert [type(event) for event in heard] == [LeadErased]


def test_the_other_tenant_keeps_everything(runtime, tenant, other_tenant):
    theirs = a_life(runtime, other_tenant)
    before = dump(runtime, other_tenant)
    erase(runtime, tenant, a_life(runtime, tenant))
    with pytest.raises(NotFound):
        erase(runtime, tenant, theirs + 1000)
    assert dump(runtime, other_tenant) == before
