"""A lead's timeline: every source, in one order, with pages that neither repeat nor leave out."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import Gone, Merged, ValidationError
from nexus_marketing.db.models import Delivery, Engagement
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.leads.timeline import SOURCES, read_timeline
from nexus_marketing.services.privacy import record_consent, suppress
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template

pytestmark = pytest.mark.req("FR-P2-009", "FR-P3-008")


@pytest.fixture
def lead(runtime, tenant, clock):
    """A lead with two entries or more of every source, many of them at one moment."""
    with runtime.work(tenant) as ctx:
        found = create_lead(ctx, {"email": "ann@example.org", "phone": "+4930123456"}).id
        update_lead(ctx, found, {"first_name": "Ann"})
        for number in range(7):
            at = ctx.now - timedelta(minutes=number // 3)
            about = {"type": "page_visited", "verdict": "human", "attributes": {}}
            ctx.session.add(Engagement(tracked_at=at, lead_id=found, **about))
        record_consent(ctx, found, granted=True, source="form")
        record_consent(ctx, found, granted=False, source="call")
        suppress(ctx, "ann@example.org", reason="manual", source="call")
        suppress(ctx, "+4930123456", reason="manual", source="call", channel="sms")
    for number in range(2):
        make_segment(runtime, tenant, [found], f"S{number}")
        campaign, template = make_campaign(runtime, tenant), make_template(runtime, tenant, f"T{number}")
        make_send(runtime, tenant, campaign, template, [found])
    clock.advance(seconds=60)
    for other in make_leads(runtime, tenant, 2, first=50):
        with runtime.work(tenant) as ctx:
            ctx.session.add(Engagement(tracked_at=ctx.now, lead_id=other, **about))
        with runtime.work(tenant, role="app") as ctx:
            merge_leads(ctx, found, other)
    return found


def pages(runtime, tenant, lead, limit, **options):
    entries, after = [], None
    while True:
        with runtime.work(tenant, mode="read", role="app") as ctx:
            page = read_timeline(ctx, lead, after=after, limit=limit, **options)
        entries += page.entries
        if not page.has_more:
            return entries
        after = page.entries[-1].position


def test_every_source_has_its_say_in_the_order_of_time(runtime, tenant, lead):
    (entries) = pages(runtime, tenant, lead, 200)
    assert {entry.source for entry in entries} == SOURCES.keys()
    moments = [entry.at for entry in entries]
    assert moments == sorted(moments, reverse=True)
    kinds = {entry.type for entry in entries}
    assert kinds >= {"lead_created", "lead_updated", "page_visited", "consent_granted", "consent_revoked", "suppressed"}
    assert kinds >= {"message_planned", "lead_merged", "segment_entered"}


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_repeat_nothing_and_leave_nothing_out(runtime, tenant, lead, limit):
    whole = pages(runtime, tenant, lead, 200)
    assert pages(runtime, tenant, lead, limit) == whole
    assert len({entry.position for entry in whole}) == len(whole) > 20


def test_an_entry_that_comes_meanwhile_moves_no_page(runtime, tenant, lead, clock):
    with runtime.work(tenant, mode="read") as ctx:
        first = read_timeline(ctx, lead, limit=5)
        rest = read_timeline(ctx, lead, after=first.entries[-1].position, limit=200)
    clock.advance(seconds=60)
    with runtime.work(tenant) as ctx:
        update_lead(ctx, lead, {"first_name": "Later"})
    with runtime.work(tenant, mode="read") as ctx:
        assert read_timeline(ctx, lead, after=first.entries[-1].position, limit=200) == rest


def test_sources_can_be_chosen(runtime, tenant, lead):
    entries = pages(runtime, tenant, lead, 2, names=["consents", "messages"])
    assert [entry.source for entry in entries].count("consents") == 2
    assert {entry.source for entry in entries} == {"consents", "messages"}


def test_what_leads_did_that_were_merged_is_part_of_it(runtime, tenant):
    winner, loser = make_leads(runtime, tenant, 2)
    send = make_send(runtime, tenant, make_campaign(runtime, tenant), make_template(runtime, tenant), [loser])
    with runtime.work(tenant) as ctx:
        row = ctx.session.scalars(select(Delivery).where(Delivery.send_id == send)).one()
        row.state, row.settled_at = "accepted", ctx.now
    with runtime.work(tenant, role="app") as ctx:
        merge_leads(ctx, winner, loser)
    entries = pages(runtime, tenant, winner, 50)
    assert {entry.type for entry in entries} == {"message_accepted", "lead_merged"}


def test_no_value_is_shown_of_what_was_changed(client, lead):
    shown = client.get(f"/api/v1/leads/{lead}/timeline?sources=changes").json["data"]
    assert [each["data"]["fields"] for each in shown if each["type"] == "lead_updated"] == [["first_name", "name"]]
    assert "Ann" not in str(shown)


def test_a_lead_that_is_gone_has_none(runtime, tenant):
    winner, loser = make_leads(runtime, tenant, 2)
    with runtime.work(tenant) as ctx:
        merge_leads(ctx, winner, loser)
    with pytest.raises(Merged), runtime.work(tenant, mode="read") as ctx:
        read_timeline(ctx, loser)
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, winner)
    with pytest.raises(Gone), runtime.work(tenant, mode="read") as ctx:
        read_timeline(ctx, winner)


def test_bad_wishes_are_refused(runtime, tenant, lead):
    with pytest.raises(ValidationError) as refused, runtime.work(tenant, mode="read") as ctx:
        read_timeline(ctx, lead, names=["mesages"], limit=0)
    assert [each.path for each in refused.value.problems] == ["sources", "limit"]
    assert "did you mean messages" in str(refused.value)


def test_rest_pages_and_says_what_a_key_may_not_see(client, make_client, tenant, lead):
    path = f"/api/v1/leads/{lead}/timeline"
    first = client.get(f"{path}?limit=3").json
    assert (len(first["data"]), first["has_more"], first["left_out"]) == (3, True, [])
    second = client.get(f"{path}?limit=3&cursor={first['next']}").json
    assert second["data"] != first["data"]
    client.get(f"{path}?limit=3&sources=changes&cursor={first['next']}", status=400)
    client.get(f"{path}?order=asc", status=422)
    narrow = make_client(tenant, ["leads:read"]).get(f"{path}?limit=200").json
    assert narrow["left_out"] == ["engagements", "messages", "segments"]
    assert {each["source"] for each in narrow["data"]} == {"changes", "consents", "merges", "suppressions"}
