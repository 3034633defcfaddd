from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from nexus_marketing.core.campaigns import MessageClass
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.privacy import ConsentEvent, ConsentState, consent_state, is_suppressed
from nexus_marketing.db.models import AuditEntry, Consent, Engagement, Lead, Suppression
from nexus_marketing.db.queries.privacy import consent_states, suppressed_hashes
from nexus_marketing.services.leads.records import create_lead
from nexus_marketing.services.privacy import lift, record_consent, suppress, unsubscribe
from tests.common.factories import make_campaign, make_leads, make_send, make_template

pytestmark = pytest.mark.req("BR-011", "BR-012", "FR-P2-009")


@pytest.fixture
def lead(runtime, tenant) -> int:
    with runtime.work(tenant) as ctx:
        return create_lead(ctx, {"email": "Ann@example.org"}).id


def state(runtime, tenant, lead_id) -> ConsentState | None:
    with runtime.work(tenant, mode="read") as ctx:
        return consent_states(ctx.session, [lead_id], "email", "marketing").get(lead_id)


def is_stopped(
    runtime, tenant, message_class=MessageClass.MARKETING, address="ann@example.org", channel="email"
) -> bool:
    hashed = runtime.keys.address_hash(tenant, address)
    with runtime.work(tenant, mode="read") as ctx:
        return bool(suppressed_hashes(ctx.session, [hashed], channel, message_class))


def count(runtime, tenant, model) -> int:
    with runtime.work(tenant, mode="read") as ctx:
        return ctx.session.scalar(select(func.count()).select_from(model))


def test_unsubscribing_stops_marketing_in_every_campaign_and_nothing_else(runtime, tenant, other_tenant, lead):
    with runtime.work(tenant) as ctx:
        record_consent(ctx, lead, granted=True, source="form")
        assert unsubscribe(ctx, lead, source="one_click")
    assert is_stopped(runtime, tenant)
    assert not is_stopped(runtime, tenant, MessageClass.TRANSACTIONAL)
    assert not is_stopped(runtime, tenant, channel="sms")
    assert not is_stopped(runtime, other_tenant)
    assert state(runtime, tenant, lead) is ConsentState.REVOKED


def test_unsubscribing_twice_is_the_same_as_once(runtime, tenant, lead):
    campaign_id = make_campaign(runtime, tenant)
    send_id = make_send(runtime, tenant, campaign_id, make_template(runtime, tenant), [lead])
    for expected in (True, False, False):
        with runtime.work(tenant) as ctx:
            assert unsubscribe(ctx, lead, source="one_click", send_id=send_id, seq=1) is expected
    assert [count(runtime, tenant, model) for model in (Suppression, Consent, Engagement)] == [1, 1, 1]
    with runtime.work(tenant, mode="read") as ctx:
        engagement = ctx.session.scalars(select(Engagement)).one()
        assert (engagement.type, engagement.campaign_id, engagement.verdict) == ("unsubscribed", campaign_id, "human")


def test_unsubscribing_through_another_message_is_counted_for_that_one_too(runtime, tenant, lead):
    template_id = make_template(runtime, tenant)
    sends = [
        make_send(runtime, tenant, make_campaign(runtime, tenant, name), template_id, [lead]) for name in ("one", "two")
    ]
    for send_id in sends:
        with runtime.work(tenant) as ctx:
            unsubscribe(ctx, lead, source="page", send_id=send_id, seq=1)
    assert [count(runtime, tenant, model) for model in (Suppression, Consent, Engagement)] == [1, 1, 2]


def test_a_lead_without_address_can_still_withdraw(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead_id = create_lead(ctx, {"external_id": "x"}).id
        assert unsubscribe(ctx, lead_id, source="api")
        assert not unsubscribe(ctx, lead_id, source="api")
    assert state(runtime, tenant, lead_id) is ConsentState.REVOKED


def test_the_wish_outlives_a_new_lead_with_the_same_address(runtime, tenant, lead):
    with runtime.work(tenant) as ctx:
        unsubscribe(ctx, lead, source="page")
        ctx.session.delete(ctx.session.get_one(Lead, (tenant, lead)))
    with runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "ANN@example.org"})
    assert is_stopped(runtime, tenant)


def test_suppressing_all_stops_transactional_mail_too(runtime, tenant):
    with runtime.work(tenant) as ctx:
        suppress(ctx, "Ann@Example.org", type="all", reason="complained", source="provider")
    assert is_stopped(runtime, tenant, MessageClass.TRANSACTIONAL)
    assert is_stopped(runtime, tenant, MessageClass.MARKETING)


def test_lifting_needs_something_to_lift_and_is_appended(runtime, tenant):
    with runtime.work(tenant) as ctx:
        assert lift(ctx, "ann@example.org", reason="asked by phone", source="support") is None
        suppress(ctx, "ann@example.org", reason="manual", source="support")
        assert lift(ctx, "ann@example.org", reason="asked by phone", source="support") is not None
    assert not is_stopped(runtime, tenant)
    assert count(runtime, tenant, Suppression) == 2
    with runtime.work(tenant) as ctx:
        suppress(ctx, "ann@example.org", reason="unsubscribed", source="page")
    assert is_stopped(runtime, tenant)


def test_giving_consent_lifts_no_suppression(runtime, tenant, lead, clock):
    with runtime.work(tenant) as ctx:
        unsubscribe(ctx, lead, source="page")
    clock.advance(days=1)
    with runtime.work(tenant) as ctx:
        record_consent(ctx, lead, granted=True, source="form")
    assert state(runtime, tenant, lead) is ConsentState.GRANTED
    assert is_stopped(runtime, tenant)


def test_evidence_of_an_older_consent_undoes_no_withdrawal(runtime, tenant, lead, clock):
    with runtime.work(tenant) as ctx:
        record_consent(ctx, lead, granted=False, source="phone")
        record_consent(ctx, lead, granted=True, source="paper", at=clock.now() - timedelta(days=3))
    assert state(runtime, tenant, lead) is ConsentState.REVOKED


def test_consent_ends_by_itself(runtime, tenant, lead, clock, database_time):
    with runtime.work(tenant) as ctx:
        record_consent(
            ctx, lead, granted=True, source="inquiry", at=clock.now() - timedelta(days=400), expires_at=clock.now()
        )
    assert state(runtime, tenant, lead) is ConsentState.EXPIRED


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"source": "  "}, "source"),
        ({"source": "form", "ip_address": "300.1.1.1"}, "ip_address"),
        ({"source": "form", "at": "future"}, "at"),
        ({"source": "form", "expires_at": "past"}, "expires_at"),
        ({"source": "form", "evidence": {"x": float("nan")}}, "evidence.x"),
    ],
)
def test_consent_without_proper_evidence_is_refused(runtime, tenant, lead, clock, options, path):
    moments = {"future": clock.now() + timedelta(hours=1), "past": clock.now() - timedelta(hours=1)}
    values = {name: moments.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ValidationError) as refused, runtime.work(tenant) as ctx:
        record_consent(ctx, lead, granted=True, **values)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_audit_rows_of_privacy_hold_no_address(runtime, tenant, lead):
    with runtime.work(tenant) as ctx:
        record_consent(ctx, lead, granted=True, source="form", ip_address="192.0.2.1")
        unsubscribe(ctx, lead, source="page")
    with runtime.work(tenant, mode="read") as ctx:
        rows = ctx.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [row.action for row in rows][1:] == ["consent.granted", "suppression.added", "consent.revoked"]
    assert "192.0.2.1" not in str([row.body for row in rows])
    assert "example.org" not in str([row.body for row in rows]).lower()


ACTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-3, 0), st.booleans(), st.sampled_from([None, -1, 30])), max_size=12
)


def test_the_set_query_of_consent_is_the_fold(runtime, tenant, database_time):
    ids = make_leads(runtime, tenant, 3)
    now = database_time.now()

    @given(ACTS)
    def agree(acts):
        events: dict[int, list[ConsentEvent]] = {}
        with pytest.raises(_UndoError), runtime.work(tenant) as ctx:
            for number, (who, day, granted, ends) in enumerate(acts):
                at = now + timedelta(days=day)
                expires_at = None if ends is None else now + timedelta(days=ends)
                ctx.session.add(
                    Consent(
                        lead_id=ids[who],
                        channel="email",
                        type="marketing",
                        at=at,
                        granted_at=at if granted else None,
                        revoked_at=None if granted else at,
                        expires_at=expires_at,
                        source="x",
                        evidence={},
                    )
                )
                ctx.session.flush()
                event = ConsentEvent(at, number, at if granted else None, None if granted else at, expires_at)
                events.setdefault(ids[who], []).append(event)
            found = consent_states(ctx.session, ids, "email", "marketing")
            expected = {lead_id: consent_state(each, now) for lead_id, each in events.items()}
            assert found == expected
            raise _UndoError

    agree()


class _UndoError(Exception):
    """Rolls the transaction of one example back."""


def test_the_set_query_of_suppression_is_the_fold(runtime, tenant):
    hashes = [runtime.keys.address_hash(tenant, f"p{n}@example.org") for n in range(3)]
    acts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["marketing", "all"]), st.booleans()), max_size=15)

    @given(acts, st.sampled_from(MessageClass))
    def agree(acts, message_class):
        events: dict[tuple[bytes, str], list[tuple[int, bool]]] = {}
        with pytest.raises(_UndoError), runtime.work(tenant) as ctx:
            for number, (who, type_, suppresses) in enumerate(acts):
                ctx.session.add(
                    Suppression(
                        address_hash=hashes[who],
                        channel="email",
                        type=type_,
                        reason="manual",
                        source="x",
                        suppressed_at=ctx.now if suppresses else None,
                        lifted_at=None if suppresses else ctx.now,
                    )
                )
                ctx.session.flush()
                events.setdefault((hashes[who], type_), []).append((number, suppresses))
            types = ("marketing", "all") if message_class is MessageClass.MARKETING else ("all",)
            expected = {
                hashed for hashed in hashes if any(is_suppressed(events.get((hashed, type_), [])) for type_ in types)
            }
            assert suppressed_hashes(ctx.session, hashes, "email", message_class) == expected
            raise _UndoError

    agree()
