"""The search for duplicates finds them page by page, at a bounded price."""

import itertools

import pytest

from nexus_marketing.core.audience import mailbox
from nexus_marketing.db.models import Lead
from nexus_marketing.services.leads import duplicates as lead_duplicates
from nexus_marketing.services.leads.duplicates import find_duplicates
from nexus_marketing.services.leads.erasure import erase_lead
from tests.common.factories import make_leads

pytestmark = pytest.mark.req("FR-P2-009")


def all_pairs(runtime, tenant):
    found, after = [], 0
    while True:
        with runtime.work(tenant, role="app") as ctx:
            page = find_duplicates(ctx, after)
        found += [(pair.lead_id, pair.other_id, list(pair.reasons)) for pair in page.pairs]
        if page.next_id is None:
            return found
        after = page.next_id


@pytest.mark.parametrize("window", [1_000, 2])
def test_they_are_found_by_what_they_have_in_common(runtime, tenant, monkeypatch, window):
    monkeypatch.setattr(lead_duplicates, "WINDOW", window)

    def make(number, **values):
        return make_leads(runtime, tenant, 1, first=number, **values)[0]

    one = make(1, email="ann.lee+news@gmail.com", name="Ann Lee", attributes={"zip": "10115"})
    make(2, name="Other Person")
    two = make(3, email="annlee@googlemail.com", name="A. Lee")
    three = make(4, name="ÁNN  LEE", phone="+4930123456", attributes={"postcode": "10 115"})
    accent = make(5, name="ánn lee", phone="+4930123456", attributes={"plz": 10115})
    make(6, name="Ann Lee", attributes={"zip": "99999"})
    assert all_pairs(runtime, tenant) == [(two, one, ["mailbox"]), (accent, three, ["name_and_place", "phone"])]
    assert len(all_pairs(runtime, tenant)) == 2


def test_many_of_one_kind_are_a_chain(runtime, tenant):
    ids = make_leads(runtime, tenant, 50, phone="+4930123456")
    assert all_pairs(runtime, tenant) == [(later, earlier, ["phone"]) for earlier, later in itertools.pairwise(ids)]


def test_what_has_changed_since_is_not_told_any_more(runtime, tenant):
    one, two = make_leads(runtime, tenant, 2, phone="+4930123456")
    assert all_pairs(runtime, tenant) == [(two, one, ["phone"])]
    with runtime.work(tenant) as ctx:
        ctx.session.get_one(Lead, (tenant, two)).phone = None
    assert all_pairs(runtime, tenant) == []
    with runtime.work(tenant) as ctx:
        ctx.session.get_one(Lead, (tenant, two)).phone = "+4930123456"
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, one)
    assert all_pairs(runtime, tenant) == []


def test_a_second_round_writes_nothing(client, runtime, tenant, count_statements):
    make_leads(runtime, tenant, 20, phone="+4930123456")
    assert len(client.get("/api/v1/leads/duplicates").json["data"]) == 19
    with count_statements() as statements:
        page = client.get("/api/v1/leads/duplicates").json
    assert (page["looked_at"], page["has_more"], page["next"]) == (20, False, None)
    assert page["data"][0].keys() == {"lead_id", "other_id", "reasons"}
    assert [each for each in statements if each.lstrip().startswith(("INSERT", "DELETE", "UPDATE"))] == []
    assert len(statements) < 12


def test_other_tenants_leads_are_no_duplicates(runtime, tenant, other_tenant):
    for each in (tenant, other_tenant):
        make_leads(runtime, each, 1, phone="+4930123456")
        assert all_pairs(runtime, each) == []


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("A.N.N@gmail.com", "ann@gmail.com"),
        ("ann+x@outlook.com", "ann@outlook.com"),
        ("a.nn+x@outlook.com", "a.nn@outlook.com"),
        ("ann@me.com", "ann@icloud.com"),
        ("+x@gmail.com", "+x@gmail.com"),
        ("a.nn+x@example.org", "a.nn+x@example.org"),
    ],
)
def test_a_mailbox_is_known_by_what_its_provider_looks_at(address, same):
    assert mailbox(address) == same
