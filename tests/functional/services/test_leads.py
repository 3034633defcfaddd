import pytest
from sqlalchemy import select

from nexus_marketing.core.errors import Conflict, NotFound, StaleVersion, ValidationError
from nexus_marketing.core.events import LeadCreated, LeadUpdated
from nexus_marketing.core.hub import EventHub
from nexus_marketing.db.models import AuditEntry, AuditValue, Lead, Tenant
from nexus_marketing.services.audit import commitment_holds
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.scores.setting import set_score

pytestmark = pytest.mark.req("FR-P2-009")


def audit(runtime, tenant_id):
    with runtime.work(tenant_id, mode="read") as ctx:
        return ctx.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()


def test_a_lead_is_stored_in_its_normal_form(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(
            ctx,
            {
                "email": "Ann@Example.ORG",
                "name": "Ann van Lee",
                "country": "nl",
                "phone": "0031 20 123 4567",
                "tags": ["vip", "vip"],
                "metadata": {"seats": 3.0},
            },
        )
    assert (lead.email, lead.email_norm) == ("Ann@example.org", "ann@example.org")
    assert (lead.first_name, lead.last_name, lead.country, lead.phone) == ("Ann", "van Lee", "NL", "+31201234567")
    assert (lead.tags, lead.attributes, lead.version, lead.score) == (["vip"], {"seats": 3}, 1, 0.0)


def test_events_follow_the_commit_and_never_a_rollback(runtime, tenant):
    import dataclasses

    heard = []
    hub = EventHub()
    hub.subscribe("marketing.lead.*", heard.append)
    loud = dataclasses.replace(runtime, hub=hub)
    with loud.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org"})
        assert heard == []
    with loud.work(tenant) as ctx:
        update_lead(ctx, lead.id, {"name": "A"})
    with pytest.raises(ValidationError), loud.work(tenant) as ctx:
        create_lead(ctx, {"email": "b@example.org"})
        create_lead(ctx, {"email": "nonsense"})
    assert [type(event) for event in heard] == [LeadCreated, LeadUpdated]
    assert {event.lead_id for event in heard} == {lead.id}


@pytest.mark.parametrize("field", ["email", "external_id"])
def test_a_taken_address_is_refused_without_a_word_about_its_owner(runtime, tenant, field):
    value = {"email": "ann@example.org", "external_id": "crm-1"}[field]
    with runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "ann@example.org", "external_id": "crm-1", "name": "Secret Ann"})
    with pytest.raises(Conflict) as refused, runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "other@example.org", "name": "X", field: value})
    assert refused.value.context["field"] == field
    assert "Ann" not in str(refused.value)
    assert "change that lead" in str(refused.value)


def test_two_tenants_may_hold_one_person(runtime, tenant, other_tenant):
    for each in (tenant, other_tenant):
        with runtime.work(each) as ctx:
            create_lead(ctx, {"email": "ann@example.org"})


def test_all_faults_are_told_at_once(runtime, tenant):
    with pytest.raises(ValidationError) as refused, runtime.work(tenant) as ctx:
        create_lead(
            ctx,
            {
                "email": "nonsense",
                "name": "Eve\r\nBcc: all@example.org",
                "country": "UK",
                "time_zone": "Mars/Base",
                "phone": "12",
                "contry": "DE",
                "metadata": {"huge": 2**60},
            },
        )
    assert {(p.path, p.code) for p in refused.value.problems} == {
        ("email", "not_an_email"),
        ("name", "control_character"),
        ("country", "not_a_country"),
        ("time_zone", "not_a_time_zone"),
        ("phone", "not_a_phone"),
        ("contry", "unknown_field"),
        ("metadata.huge", "not_canonical"),
    }


def test_a_lead_needs_some_address_and_keeps_one(runtime, tenant):
    with pytest.raises(ValidationError, match="needs an email, a phone or an external_id"), runtime.work(tenant) as ctx:
        create_lead(ctx, {"name": "Nobody"})
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org"})
    with pytest.raises(ValidationError, match="keep one"), runtime.work(tenant) as ctx:
        update_lead(ctx, lead.id, {"email": None})
    with runtime.work(tenant) as ctx:
        assert update_lead(ctx, lead.id, {"email": None, "phone": "+4930123456"}).email_norm is None


def test_an_update_that_changes_nothing_writes_nothing(runtime, tenant, clock):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org", "name": "Ann Lee"})
    clock.advance(hours=1)
    with runtime.work(tenant) as ctx:
        again = update_lead(ctx, lead.id, {"email": "a@example.org", "name": " Ann Lee "})
    assert (again.version, again.updated_at) == (1, lead.created_at)
    assert len(audit(runtime, tenant)) == 1


def test_names_follow_each_other(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org", "first_name": "Ann", "last_name": "Lee"})
        assert lead.name == "Ann Lee"
        assert update_lead(ctx, lead.id, {"last_name": "Ray"}).name == "Ann Ray"
        renamed = update_lead(ctx, lead.id, {"name": "Bo Oss"})
        assert (renamed.first_name, renamed.last_name, renamed.version) == ("Bo", "Oss", 3)


def test_a_stale_version_is_refused_and_names_the_current(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org"})
        update_lead(ctx, lead.id, {"name": "A"}, expected_version=1)
    with pytest.raises(StaleVersion) as stale, runtime.work(tenant) as ctx:
        update_lead(ctx, lead.id, {"name": "B"}, expected_version=1)
    assert stale.value.context["current"] == 2


def test_another_tenants_lead_does_not_exist(runtime, tenant, other_tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org"})
    with pytest.raises(NotFound), runtime.work(other_tenant) as ctx:
        update_lead(ctx, lead.id, {"name": "Mine"})


def test_declared_fields_hold_their_type(runtime, tenant):
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get(Tenant, tenant).settings = {"fields": {"seats": "number", "since": "date"}}
    with pytest.raises(ValidationError) as refused, runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "a@example.org", "metadata": {"seats": "3", "since": "yesterday", "free": "x"}})
    assert {p.path for p in refused.value.problems} == {"metadata.seats", "metadata.since"}


def test_scores_are_set_with_a_reason(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org"})
        assert set_score(ctx, lead.id, 12.5, "rule 7").score == 12.5
        assert set_score(ctx, lead.id, 12.5, "rule 7").version == 2
    for bad in (float("nan"), float("inf"), True):
        with pytest.raises(ValidationError), runtime.work(tenant) as ctx:
            set_score(ctx, lead.id, bad, "x")


@pytest.mark.req("SR-008")
def test_audit_rows_hold_commitments_and_never_personal_values(runtime, tenant):
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "ann@example.org", "name": "Ann Lee", "metadata": {"illness": "cold"}})
        update_lead(ctx, lead.id, {"name": "Ann Ray", "tags": ["vip"]})
    rows = audit(runtime, tenant)
    assert [row.action for row in rows] == ["lead.created", "lead.updated"]
    text = str([row.body for row in rows]).lower()
    for secret in ("ann", "lee", "ray", "example.org", "cold", "vip"):
        assert secret not in text
    with runtime.work(tenant, mode="read") as ctx:
        kept = ctx.session.scalars(select(AuditValue).order_by(AuditValue.audit_id)).all()
    assert [value.lead_id for value in kept] == [lead.id, lead.id]
    assert kept[1].values["name"]["after"] == "Ann Ray"
    assert commitment_holds(rows[1].body["name"]["commitment"], kept[1].values["name"])
    forged = {**kept[1].values["name"], "after": "Someone Else"}
    assert not commitment_holds(rows[1].body["name"]["commitment"], forged)
    # Equal values have different commitments: nobody can look a name up.
    assert rows[0].body["name"]["commitment"] != rows[1].body["name"]["commitment"]


def test_a_change_that_is_rolled_back_leaves_no_audit(runtime, tenant):
    with pytest.raises(RuntimeError), runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "a@example.org"})
        raise RuntimeError
    assert audit(runtime, tenant) == []
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalars(select(Lead)).all() == []
