"""Two leads become one: nothing of what was sent, said or wished is lost, and old ids lead on."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.audience import MergePolicy, merged_values, read_policy
from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.errors import Merged, ValidationError
from nexus_marketing.core.privacy import ConsentState
from nexus_marketing.core.tracking import Token, TokenKind
from nexus_marketing.db.models import (
    AuditEntry,
    Consent,
    Delivery,
    Engagement,
    Hit,
    Lead,
    LeadRemoval,
    Segment,
    SegmentMember,
)
from nexus_marketing.db.queries.privacy import consent_states, suppressed_hashes
from nexus_marketing.services.hits import judge_hits
from nexus_marketing.services.leads import removals as lead_removals
from nexus_marketing.services.leads.lookup import find_lead, follow_lead
from nexus_marketing.services.leads.merging import merge_leads
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.privacy import address_hash, lift, record_consent, suppress, unsubscribe
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import recalculate_requested
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template

pytestmark = pytest.mark.req("FR-P2-009", "BR-012")


@pytest.fixture
def pair(runtime, tenant):
    """The lead that stays and the one that goes."""
    return tuple(make_leads(runtime, tenant, 2))


def merge(runtime, tenant, winner, loser, policy=None):
    with runtime.work(tenant, role="app") as ctx:
        return merge_leads(ctx, winner, loser, policy)


def rows(runtime, tenant, model, **where):
    with runtime.work(tenant, mode="read") as ctx:
        wanted = [getattr(model, name) == value for name, value in where.items()]
        return list(ctx.session.scalars(select(model).where(*wanted)))


def state(runtime, tenant, lead):
    with runtime.work(tenant, mode="read") as ctx:
        return consent_states(ctx.session, [lead], "email", "marketing").get(lead)


def is_suppressed(runtime, tenant, address, channel="email"):
    with runtime.work(tenant, mode="read") as ctx:
        hashed = address_hash(ctx, address)
        return bool(suppressed_hashes(ctx.session, [hashed], channel, MessageClass.MARKETING))


def send_to(runtime, tenant, leads, **values):
    campaign = make_campaign(runtime, tenant)
    return make_send(runtime, tenant, campaign, make_template(runtime, tenant, f"T{campaign}"), leads, **values)


class TestFields:
    def test_the_winner_stays_as_it_is_and_its_gaps_are_filled(self, runtime, tenant):
        (winner,) = make_leads(
            runtime, tenant, 1, phone=None, external_id=None, tags=["a"], attributes={"x": 1}, score=3.0
        )
        more = {"phone": "+4930123456", "external_id": "crm-1", "tags": ["b"], "attributes": {"x": 2, "y": 3}}
        (loser,) = make_leads(runtime, tenant, 1, first=2, score=5.0, **more)
        lead = merge(runtime, tenant, winner, loser)
        assert (lead.email, lead.phone, lead.external_id, lead.score) == (
            "person1@example.org",
            "+4930123456",
            "crm-1",
            5,
        )
        assert (lead.tags, lead.attributes, lead.version) == (["a", "b"], {"x": 1, "y": 3}, 2)
        (gone,) = rows(runtime, tenant, Lead, id=loser)
        assert (gone.merged_into, gone.email, gone.email_norm, gone.external_id) == (winner, None, None, None)
        assert (gone.name, gone.tags, gone.attributes) == (None, [], {})

    def test_a_field_may_be_taken_from_the_other(self, runtime, tenant, pair):
        lead = merge(runtime, tenant, *pair, {"email": "take", "name": "take", "score": "sum", "country": "keep"})
        assert (lead.email, lead.email_norm, lead.first_name, lead.score) == (
            "person2@example.org", "person2@example.org", "First2", 3.0,
        )  # fmt: skip

    def test_a_policy_that_means_nothing_is_refused(self):
        with pytest.raises(ValidationError) as refused:
            read_policy({"emial": "take", "name": "sum", "tags": "both"})
        paths = {problem.path for problem in refused.value.problems}
        assert paths == {"policy.emial", "policy.name", "policy.tags"}

    def test_an_empty_value_is_never_taken(self):
        taken = merged_values({"name": "Ann"}, {"name": None}, {"name": MergePolicy.TAKE})
        assert taken["name"] == "Ann"

    def test_history_and_audit_say_who_merged_what(self, runtime, tenant, pair):
        merge(runtime, tenant, *pair)
        (removal,) = rows(runtime, tenant, LeadRemoval)
        assert (removal.lead_id, removal.into_id, removal.kind) == (pair[1], pair[0], "merged")
        assert removal.finished_at is not None
        assert removal.before["email"] == "person2@example.org"
        (entry,) = rows(runtime, tenant, AuditEntry, action="lead.merged")
        assert entry.body["from"]["after"] == str(pair[1])
        assert "person" not in str(entry.body)


class TestConsent:
    def record(self, runtime, tenant, lead, *, granted, days):
        with runtime.work(tenant) as ctx:
            record_consent(ctx, lead, granted=granted, source="form", at=ctx.now - timedelta(days=days))

    @pytest.mark.parametrize("who", [0, 1])
    def test_a_withdrawal_of_either_holds_although_the_other_agreed_later(self, runtime, tenant, pair, who):
        self.record(runtime, tenant, pair[who], granted=False, days=9)
        self.record(runtime, tenant, pair[1 - who], granted=True, days=2)
        merge(runtime, tenant, *pair)
        assert state(runtime, tenant, pair[0]) is ConsentState.REVOKED

    def test_consent_that_was_given_again_is_consent(self, runtime, tenant, pair):
        self.record(runtime, tenant, pair[1], granted=False, days=9)
        self.record(runtime, tenant, pair[1], granted=True, days=8)
        merge(runtime, tenant, *pair)
        assert state(runtime, tenant, pair[0]) is ConsentState.GRANTED
        assert {row.lead_id for row in rows(runtime, tenant, Consent)} == {pair[0]}

    def test_a_wish_about_one_address_holds_for_the_other(self, runtime, tenant, pair):
        with runtime.work(tenant) as ctx:
            suppress(ctx, "person2@example.org", reason="complained", source="loop")
        merge(runtime, tenant, *pair)
        assert is_suppressed(runtime, tenant, "person1@example.org")

    def test_the_winners_own_wish_goes_along_to_a_new_address(self, runtime, tenant, pair):
        with runtime.work(tenant) as ctx:
            suppress(ctx, "person1@example.org", reason="manual", source="call")
        merge(runtime, tenant, *pair, {"email": "take"})
        assert is_suppressed(runtime, tenant, "person2@example.org")

    def test_a_dead_mailbox_says_nothing_about_the_other(self, runtime, tenant, pair):
        with runtime.work(tenant) as ctx:
            suppress(ctx, "person2@example.org", reason="bounced", source="relay")
            suppress(ctx, "person1@example.org", reason="manual", source="call")
            lift(ctx, "person1@example.org", reason="asked", source="call")
        merge(runtime, tenant, *pair)
        assert not is_suppressed(runtime, tenant, "person1@example.org")


class TestWhatRefersToThem:
    def test_engagements_become_the_winners_in_pieces_that_may_be_interrupted(self, runtime, tenant, pair, monkeypatch):
        monkeypatch.setattr(lead_removals, "PIECE", 3)
        with runtime.work(tenant) as ctx:
            for number in range(10):
                about = {"type": "page_visited", "verdict": "human", "attributes": {}}
                ctx.session.add(Engagement(tracked_at=ctx.now - timedelta(hours=number), lead_id=pair[1], **about))
        merge(runtime, tenant, *pair)
        assert len(rows(runtime, tenant, Engagement, lead_id=pair[1])) == 7
        assert finish_removals(runtime) > 1
        assert finish_removals(runtime) == 0
        assert len(rows(runtime, tenant, Engagement, lead_id=pair[0])) == 10

    def test_what_was_sent_keeps_pointing_at_who_got_it(self, runtime, tenant, pair):
        send_to(runtime, tenant, list(pair))
        with runtime.work(tenant) as ctx:
            for row in ctx.session.scalars(select(Delivery)):
                row.state = "accepted"
        merge(runtime, tenant, *pair)
        assert {row.lead_id for row in rows(runtime, tenant, Delivery)} == set(pair)

    def test_a_message_to_come_goes_to_the_winner_once(self, runtime, tenant, pair):
        only_loser, both = send_to(runtime, tenant, [pair[1]]), send_to(runtime, tenant, list(pair))
        merge(runtime, tenant, *pair)
        assert finish_removals(runtime) == 1
        (moved,) = rows(runtime, tenant, Delivery, send_id=only_loser)
        assert (moved.lead_id, moved.state) == (pair[0], "planned")
        found = {row.lead_id: (row.state, row.reason) for row in rows(runtime, tenant, Delivery, send_id=both)}
        assert found == {pair[0]: ("planned", None), pair[1]: ("skipped", "duplicate_address")}

    def test_static_segments_are_inherited_and_counted_afresh(self, runtime, tenant, pair):
        winner, loser = pair
        both = make_segment(runtime, tenant, [winner, loser], "Both")
        one = make_segment(runtime, tenant, [loser], "One")
        with runtime.work(tenant) as ctx:
            rule = create_segment(ctx, {"name": "Rule", "conditions": "country == 'US' OR email IS NULL"}).id
        recalculate_requested(runtime)
        merge(runtime, tenant, winner, loser)
        recalculate_requested(runtime)
        found = rows(runtime, tenant, SegmentMember)
        assert {(row.segment_id, row.lead_id) for row in found} == {(both, winner), (one, winner), (rule, winner)}
        assert {row.id: row.lead_count for row in rows(runtime, tenant, Segment)} == {both: 1, one: 1, rule: 1}

    def test_clicks_and_unsubscribes_of_old_messages_act_on_the_winner(self, runtime, tenant, pair, clock):
        winner, loser = pair
        send = send_to(runtime, tenant, [loser])
        merge(runtime, tenant, winner, loser)
        with runtime.work(tenant) as ctx:
            shared = {"send_id": send, "seq": 1, "lead_id": loser, "link": 0}
            ctx.session.add(Hit(at=ctx.now, type="email_clicked", **shared))
        clock.advance(seconds=3600)
        judge_hits(runtime, tenant)
        assert [row.lead_id for row in rows(runtime, tenant, Engagement)] == [winner]
        with runtime.work(tenant) as ctx:
            assert unsubscribe(ctx, loser, source="one_click", send_id=send, seq=1)
        assert is_suppressed(runtime, tenant, "person1@example.org")
        assert is_suppressed(runtime, tenant, "person2@example.org")
        assert state(runtime, tenant, winner) is ConsentState.REVOKED


class TestOldIds:
    def test_they_lead_on_over_several_merges(self, runtime, tenant):
        first, second, third = make_leads(runtime, tenant, 3)
        merge(runtime, tenant, second, first)
        merge(runtime, tenant, third, second)
        with runtime.work(tenant, mode="read") as ctx:
            assert [follow_lead(ctx, each).id for each in (first, second, third)] == [third] * 3
            with pytest.raises(Merged) as led:
                find_lead(ctx, first)
        assert led.value.context["merged_into"] == str(third)

    def test_merging_again_changes_nothing(self, runtime, tenant, pair):
        merge(runtime, tenant, *pair)
        assert merge(runtime, tenant, *pair).version == 2
        assert len(rows(runtime, tenant, LeadRemoval)) == 1

    def test_what_cannot_be_merged_says_why(self, runtime, tenant, pair):
        for other, code in ((pair[0], "same_lead"), (999, "not_found")):
            with pytest.raises(ValidationError) as refused:
                merge(runtime, tenant, pair[0], other)
            assert [(each.path, each.code) for each in refused.value.problems] == [("from", code)]
        merge(runtime, tenant, *pair)
        with pytest.raises(Merged):
            merge(runtime, tenant, pair[1], pair[0])

    @pytest.mark.req("REL-001")
    def test_merging_both_ways_at_once_leaves_one(self, runtime, tenant):
        for turn in range(5):
            one, other = make_leads(runtime, tenant, 2, first=10 * turn + 1)
            barrier, outcomes = threading.Barrier(2), []

            def call(winner, loser, barrier=barrier, outcomes=outcomes):
                barrier.wait()
                try:
                    merge(runtime, tenant, winner, loser)
                    outcomes.append("merged")
                except Merged:
                    outcomes.append("too late")

            threads = [threading.Thread(target=call, args=each) for each in ((one, other), (other, one))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcomes) == ["merged", "too late"]
        with runtime.work(tenant, mode="read") as ctx:
            assert ctx.session.scalar(select(func.count()).where(Lead.gone_at.is_(None))) == 5


class TestRest:
    def test_merging_and_what_an_old_id_is_told(self, client, runtime, tenant, pair):
        winner, loser = pair
        merged = client.post(f"/api/v1/leads/{winner}/merge", {"from": str(loser), "version": 1}, status=200)
        assert (merged.json["id"], merged.json["version"]) == (str(winner), 2)
        fault = client.get(f"/api/v1/leads/{loser}", status=404).json
        assert (fault["code"], fault["merged_into"]) == ("merged", str(winner))
        client.patch(f"/api/v1/leads/{loser}", {"name": "X"}, status=404)
        client.get(f"/api/v1/leads/{loser}/engagements", status=404)
        assert [row["id"] for row in client.get("/api/v1/leads").json["data"]] == [str(winner)]
        query = {"query": f"{{ leads {{ id }} lead(id: {loser}) {{ id }} }}"}
        assert client.post("/graphql", query, status=200).json["data"] == {"leads": [{"id": str(winner)}], "lead": None}
        client.post(f"/api/v1/leads/{winner}/merge", {"from": str(winner)}, status=422)
        client.post(f"/api/v1/leads/{winner}/merge", {"from": "999", "policy": {"x": "y"}}, status=422)
        client.delete(f"/api/v1/leads/{loser}", status=404)

    def test_an_engagement_for_an_old_id_is_the_winners(self, client, runtime, tenant, pair):
        merge(runtime, tenant, *pair)
        client.post("/api/v1/engagements", {"type": "page_visited", "lead_id": str(pair[1])})
        assert [row.lead_id for row in rows(runtime, tenant, Engagement)] == [pair[0]]

    def test_an_old_link_unsubscribes_the_winner(self, client, runtime, tenant, pair):
        send = send_to(runtime, tenant, [pair[1]])
        merge(runtime, tenant, *pair)
        token = runtime.keys.tokens.sign(Token(TokenKind.UNSUBSCRIBE, tenant, send, 1, pair[1]))
        client.app.post(f"/u/{token}", {"List-Unsubscribe": "One-Click"}, status=200)
        assert state(runtime, tenant, pair[0]) is ConsentState.REVOKED
