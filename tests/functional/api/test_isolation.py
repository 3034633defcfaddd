"""One tenant never sees, changes or notices another's rows: generated over routes and fields (S01).

For every route and every place of an id, another tenant's id gets the very answer that an id gets
which does not exist, in the same time, and afterwards every row of the other tenant is what it was.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from nexus_marketing.core.permissions import Permission
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_segment, make_template
from tests.functional.api.isolation import (
    UNKNOWN,
    Answered,
    Estate,
    Place,
    begin_ids_far_away,
    build_estate,
    checksums,
    listings,
    places,
    takes_another_time,
)
from tests.functional.conftest import Client

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("SR-002", "S01"), pytest.mark.no_cover]

#: S01 asks for 20,000, which `make e2e` sends; every ordinary run asks about an eighth of them.
REQUESTS = int(os.environ.get("NEXUS_S01_REQUESTS", "2400"))
ROLES: dict[str, list[str]] = {
    "full": ["*"],
    "read-only": [permission for permission in Permission if permission.endswith(":read")],
    "narrow": ["leads:read", "campaigns:write", "engagements:write"],
}
#: What an unknown id gets: not found, left out of a list, or a fault that names the field.
MISSED = {200, 201, 404, 422}


@pytest.fixture
def estates(runtime: Runtime, tenant: int, other_tenant: int) -> tuple[Estate, Estate]:
    """Ours and the stranger's; ids of the second do not occur in the first."""
    begin_ids_far_away(runtime)
    for _ in range(5):  # so that equal numbers do not hide a mistake
        make_leads(runtime, other_tenant, 1, email=None, external_id=None)
    theirs = build_estate(runtime, other_tenant, "globexcanary")
    for _ in range(3):
        make_template(runtime, other_tenant, name=f"More {_}")
        make_segment(runtime, other_tenant, name=f"More {_}")
        make_campaign(runtime, other_tenant)
    ours = build_estate(runtime, tenant, "acmecanary")
    return ours, theirs


def test_every_place_is_asked_for_the_right_thing(
    client: Client, estates: tuple[Estate, Estate], unlimited: None
) -> None:
    """What gives the tests below their meaning: the tenant's own id gets another answer at every place."""
    ours, _ = estates
    found = places(client)
    assert len(found) > 60
    for serial, place in enumerate(found):
        unknown = place.ask(client, ours, UNKNOWN, serial)
        own = place.ask(client, ours, ours.one(place.kind), serial + len(found))
        assert own.status in (200, 201, 202, 204, 409, 422), (place.name, own)
        assert own != unknown, place.name


@pytest.mark.slow
def test_a_foreign_id_is_an_unknown_id(
    make_client: Callable[..., Client], runtime: Runtime, estates: tuple[Estate, Estate], unlimited: None
) -> None:
    """Both tenants ask for what the other has, half of the requests each; between them every role asks everywhere."""
    asked: Counter[str] = Counter()
    for own, foreign in (estates, estates[::-1]):
        before = checksums(runtime, foreign.tenant_id)
        clients = {role: make_client(own.tenant_id, scopes) for role, scopes in ROLES.items()}
        probe = Probe(clients, own, foreign)
        probe.run(REQUESTS // 2, first=asked.total())
        asked.update(probe.asked)
        assert checksums(runtime, foreign.tenant_id) == before
    assert asked.total() >= REQUESTS - 1
    assert len(asked) == len(ROLES) * len(places(next(iter(clients.values()))))


class Probe:
    """A tenant that tries ids which are not its own, in every role and at every place."""

    def __init__(self, clients: dict[str, Client], own: Estate, foreign: Estate) -> None:
        self.own = own
        self.foreign = foreign
        found = places(clients["full"])
        self.pairs = [(role, client, place) for place in found for role, client in clients.items()]
        self.expected: dict[tuple[str, str], Answered] = {}
        self.asked: Counter[str] = Counter()
        self.rng = random.Random(own.tenant_id)

    def run(self, count: int, first: int) -> None:
        """Ask, place after place and role after role from the first pair on, until the count is reached."""
        for serial in range(first, first + count):
            role, client, place = self.pairs[serial // 2 % len(self.pairs)]
            known = self.expected.get((role, place.name))
            id_: object = UNKNOWN if known is None else self.id_for(place)
            got = place.ask(client, self.own, id_, serial)
            self.asked[f"{role} {place.name}"] += 1
            assert self.foreign.mark.encode() not in got.raw, (role, place.name, id_)
            if known is None:
                self.expected[role, place.name] = got
                assert got.status in MISSED or (got.status == 403 and role != "full"), (role, place.name, got)
            else:
                assert got == known, (role, place.name, id_)

    def id_for(self, place: Place) -> int:
        """Mostly the other's id of the right kind; else one of another kind, or one nobody has."""
        draw = self.rng.random()
        if draw < 0.7:
            return self.rng.choice(self.foreign.ids[place.kind])
        others = [id_ for ids in self.foreign.ids.values() for id_ in ids if id_ not in self.own.ids[place.kind]]
        return self.rng.choice(others) if draw < 0.9 and others else UNKNOWN + self.rng.randrange(1, 10**6)


@pytest.mark.slow
def test_a_foreign_id_takes_as_long_as_an_unknown_one(
    client: Client, estates: tuple[Estate, Estate], unlimited: None
) -> None:
    ours, theirs = estates
    found = places(client)
    if REQUESTS < 20_000:  # one place of each kind and method; `make e2e` takes the time of all of them
        found = list({(place.kind, place.method): place for place in found}.values())
    for place in found:
        foreign, unknown = (partial(place.ask, client, ours, id_) for id_ in (theirs.one(place.kind), UNKNOWN))
        if unknown().status in (404, 422) or place.path == "/graphql":
            assert not takes_another_time(foreign, unknown), place.name


def test_the_comparison_of_times_sees_a_difference(client: Client, estates: tuple[Estate, Estate]) -> None:
    ours, _ = estates
    (show,) = (place for place in places(client) if place.name == "GET /api/v1/leads/{id}")
    once = partial(show.ask, client, ours, UNKNOWN)
    assert takes_another_time(lambda: (once(), once(), once()), once, pairs=20)
    assert takes_another_time(once, lambda: (once(), once(), once()), pairs=20)


def test_foreign_leads_do_not_get_into_a_segment(
    client: Client, runtime: Runtime, estates: tuple[Estate, Estate]
) -> None:
    ours, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    mixed = [str(ours.one("leads")), *(str(each) for each in theirs.ids["leads"])]
    made = client.post("/api/v1/segments", {"name": "Mixed", "kind": "static", "lead_ids": mixed}).json
    listed = client.get(f"/api/v1/segments/{made['id']}/leads").json["data"]
    assert [row["id"] for row in listed] == [str(ours.one("leads"))]
    assert made["lead_count"] == 1
    assert checksums(runtime, theirs.tenant_id) == before


#: Lists of the tenant's own rows, whatever these are about.
LISTS = [each.name for each in listings() if each.scope is None and each.name != "engagements"]


def test_lists_hold_own_rows_only(client: Client, stranger: Client, estates: tuple[Estate, Estate]) -> None:
    ours, theirs = estates
    for name in LISTS:
        own = {row["id"] for row in client.get(f"/api/v1/{name}?limit=200").json["data"]}
        foreign = {row["id"] for row in stranger.get(f"/api/v1/{name}?limit=200").json["data"]}
        assert str(ours.one(name)) in own, name
        assert str(theirs.one(name)) in foreign, name
        assert not own & foreign, name


def test_a_cursor_of_another_tenant_is_none(client: Client, stranger: Client, runtime: Runtime) -> None:
    for tenant in (client, stranger):
        build_estate(runtime, tenant.tenant_id, f"first{tenant.tenant_id}")
        make_leads(runtime, tenant.tenant_id, 1, first=9, external_id=None)
        make_template(runtime, tenant.tenant_id, "Second")
        make_segment(runtime, tenant.tenant_id, name="Second")
        make_campaign(runtime, tenant.tenant_id)
    theirs = {name: stranger.get(f"/api/v1/{name}?limit=1").json["next"] for name in LISTS}
    assert sum(cursor is not None for cursor in theirs.values()) >= 4
    for name, cursor in theirs.items():
        if cursor is not None:
            fault = client.get(f"/api/v1/{name}?limit=1&cursor={cursor}", status=400).json
            assert fault["code"] == "validation_failed", name


@pytest.mark.parametrize("parameter", ["tenant_id=2", "tenant=globex", "filter=tenant_id == 2", "fields=tenant_id"])
def test_the_tenant_cannot_be_chosen(client: Client, estates: tuple[Estate, Estate], parameter: str) -> None:
    del estates
    client.get(f"/api/v1/leads?{parameter}", status=422)


def test_nested_fields_hold_own_rows_only(client: Client, estates: tuple[Estate, Estate]) -> None:
    ours, theirs = estates
    query = "{ campaigns { id leads { id segments { id } } } leads { id } }"
    data = client.post("/graphql", {"query": query}, status=200).json["data"]
    seen = {lead["id"] for campaign in data["campaigns"] for lead in campaign["leads"]}
    seen |= {lead["id"] for lead in data["leads"]}
    assert seen == {str(each) for each in ours.ids["leads"]}
    assert not seen & {str(each) for each in theirs.ids["leads"]}


def test_a_role_without_permission_learns_nothing_of_existence(
    make_client: Callable[..., Client], tenant: int, estates: tuple[Estate, Estate]
) -> None:
    ours, theirs = estates
    client = make_client(tenant, ["meta:read"])
    for place in places(client):
        unknown = place.ask(client, ours, UNKNOWN)
        assert place.ask(client, ours, ours.one(place.kind)) == unknown, place.name
        assert place.ask(client, ours, theirs.one(place.kind)) == unknown, place.name
