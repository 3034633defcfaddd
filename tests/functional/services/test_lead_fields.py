"""Fields of a tenant's own: declared, held to at every write, never cast."""

import pytest

from nexus_marketing.core.errors import Conflict, StaleVersion, ValidationError
from nexus_marketing.services.leads import field_declarations as lead_fields
from nexus_marketing.services.leads.field_declarations import change_field, declare_field, misfits, remove_field
from nexus_marketing.services.leads.records import create_lead, update_lead
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.tenants import change_tenant, create_tenant
from tests.common.factories import make_leads, make_template

pytestmark = pytest.mark.req("FR-P2-009")

SEATS = {"name": "seats", "type": "number", "bounds": {"min": 1, "max": 500}}


def declare(runtime, tenant, **data):
    with runtime.work(tenant, role="app") as ctx:
        row, found = declare_field(ctx, data)
        return row.id, found


@pytest.mark.parametrize(
    ("rule", "value", "code"),
    [
        (SEATS, "12", "wrong_type"),
        (SEATS, 0, "too_small"),
        (SEATS, 501, "too_large"),
        (SEATS, True, "wrong_type"),
        ({"name": "plan", "type": "text", "allowed": ["pro", "free"]}, "gold", "not_allowed"),
        ({"name": "plan", "type": "text", "bounds": {"max": 3}}, "free", "too_long"),
        ({"name": "plans", "type": "list", "allowed": ["a", "b"]}, ["a", "c"], "not_allowed"),
        ({"name": "born", "type": "date", "bounds": {"min": "1900-01-01"}}, "1899-12-31", "too_small"),
        ({"name": "born", "type": "date"}, "31.12.1999", "wrong_type"),
        ({"name": "vip", "type": "boolean"}, "yes", "wrong_type"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_at_its_path(runtime, tenant, rule, value, code):
    declare(runtime, tenant, **rule)
    with pytest.raises(ValidationError) as refused, runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "a@example.org", "metadata": {rule["name"]: value}})
    assert [(each.path, each.code) for each in refused.value.problems] == [(f"metadata.{rule['name']}", code)]


def test_what_fits_is_stored_as_it_is(runtime, tenant):
    declare(runtime, tenant, **SEATS)
    with runtime.work(tenant) as ctx:
        lead = create_lead(ctx, {"email": "a@example.org", "metadata": {"seats": 500, "free": [1]}})
    assert lead.attributes == {"seats": 500, "free": [1]}


def test_a_required_field_is_asked_for_when_metadata_is_written_and_not_otherwise(runtime, tenant):
    (old,) = make_leads(runtime, tenant)
    declare(runtime, tenant, **SEATS, required=True)
    for data in ({}, {"metadata": {}}, {"metadata": {"seats": None}}):
        with pytest.raises(ValidationError, match="seats is required"), runtime.work(tenant) as ctx:
            create_lead(ctx, {"email": "a@example.org", **data})
    with runtime.work(tenant) as ctx:
        update_lead(ctx, old, {"first_name": "Ann"})
    with pytest.raises(ValidationError, match="seats is required"), runtime.work(tenant) as ctx:
        update_lead(ctx, old, {"metadata": {"other": 1}})


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"name": "email", "type": "text"}, "name"),
        ({"name": "a.b", "type": "text"}, "name"),
        ({"name": "x", "type": "money"}, "type"),
        ({"name": "x"}, "type"),
        ({"name": "x", "type": "boolean", "bounds": {"min": 1}}, "bounds"),
        ({"name": "x", "type": "number", "bounds": {"min": "1"}}, "bounds.min"),
        ({"name": "x", "type": "number", "bounds": {"min": 2, "max": 1}}, "bounds.max"),
        ({"name": "x", "type": "date", "bounds": {"max": "soon"}}, "bounds.max"),
        ({"name": "x", "type": "number", "allowed": [1, "2"]}, "allowed.1"),
        ({"name": "x", "type": "date", "allowed": ["2026-01-01"]}, "allowed"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(runtime, tenant, data, path):
    with pytest.raises(ValidationError) as refused:
        declare(runtime, tenant, **data)
    assert path in {each.path for each in refused.value.problems}


def test_values_of_before_are_told_of_and_stay(runtime, tenant, monkeypatch):
    fine = make_leads(runtime, tenant, 3, attributes={"seats": 5})
    wrong = make_leads(runtime, tenant, 2, first=10, attributes={"seats": "five"})
    low = make_leads(runtime, tenant, 1, first=20, attributes={"seats": 0})
    make_leads(runtime, tenant, 1, first=30)
    field_id, found = declare(runtime, tenant, **SEATS)
    assert (found.checked, found.count, found.next_id) == (7, 3, None)
    assert found.rows == [(wrong[0], "wrong_type"), (wrong[1], "wrong_type"), (low[0], "too_small")]
    monkeypatch.setattr(lead_fields, "CHECKED_AT_ONCE", 4)
    with runtime.work(tenant, mode="read", role="app") as ctx:
        first = misfits(ctx, field_id)
        rest = misfits(ctx, field_id, first.next_id)
    assert (first.checked, first.count, rest.checked, rest.count, rest.next_id) == (4, 1, 3, 2, None)
    with runtime.work(tenant) as ctx:
        assert update_lead(ctx, wrong[0], {"first_name": "Kept"}).attributes == {"seats": "five"}
        assert update_lead(ctx, fine[0], {"first_name": "Kept"}).version == 2


def test_a_field_in_use_is_not_removed_without_a_word(runtime, tenant):
    field_id, _ = declare(runtime, tenant, **SEATS)
    with runtime.work(tenant) as ctx:
        segment = create_segment(ctx, {"name": "Large", "conditions": "seats > 10"}).id
    content = {"subject": "Hi", "text": "{{ metadata.seats }} seats", "html": ""}
    make_template(runtime, tenant, "Seats", content=content)
    with pytest.raises(Conflict, match=r"segment 'Large', template 'Seats'"), runtime.work(tenant) as ctx:
        remove_field(ctx, field_id)
    with pytest.raises(Conflict, match="have another type"), runtime.work(tenant) as ctx:
        change_field(ctx, field_id, {"type": "text", "bounds": {}})
    with runtime.work(tenant) as ctx:
        ctx.session.delete(ctx.session.get_one(lead_fields.Segment, (tenant, segment)))
        ctx.session.delete(ctx.session.scalars(lead_fields.select(lead_fields.Template)).one())
    with pytest.raises(StaleVersion), runtime.work(tenant) as ctx:
        remove_field(ctx, field_id, expected_version=7)
    with runtime.work(tenant, role="app") as ctx:
        remove_field(ctx, field_id, expected_version=1)
        create_lead(ctx, {"email": "a@example.org", "metadata": {"seats": "many"}})


def test_a_template_that_only_looks_alike_does_not_count(runtime, tenant):
    field_id, _ = declare(runtime, tenant, **SEATS)
    content = {"subject": "seats", "text": "{{ metadata.seats_total }} {{ other.seats }} seats", "html": ""}
    make_template(runtime, tenant, "Other", content=content)
    with runtime.work(tenant) as ctx:
        remove_field(ctx, field_id)


def test_the_file_and_the_api_declare_beside_each_other(runtime):
    settings = {"fields": {"plan": {"type": "text", "allowed": ["pro"]}, "born": "date"}}
    tenant = create_tenant(runtime, "filed", "Filed", settings)
    declare(runtime, tenant, **SEATS)
    with pytest.raises(Conflict, match=r"tenant\.toml"):
        declare(runtime, tenant, name="plan", type="number")
    with pytest.raises(ValidationError) as refused, runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "a@example.org", "metadata": {"plan": "x", "born": 1, "seats": "y"}})
    assert {each.path for each in refused.value.problems} == {"metadata.plan", "metadata.born", "metadata.seats"}
    with pytest.raises(ValidationError, match="seats is declared as number"):
        change_tenant(runtime, "filed", "Filed", {"fields": {"seats": "text"}})
    assert change_tenant(runtime, "filed", "Filed", {"fields": {"seats": "number"}})
