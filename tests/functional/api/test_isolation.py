"""One tenant never sees, changes or notices another's rows: generated over routes and fields (S01).

For every route and every place of an id, another tenant's id gets the very answer that an id gets
which does not exist, and afterwards every row of the other tenant is what it was.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from graphql import GraphQLNonNull, get_named_type
from sqlalchemy import text

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import Engagement
from nexus_marketing.graphql.schema import build_schema
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.tenants import create_member
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-002")

UNKNOWN = 987_654_321
#: Bodies that get a write past its schema, by route.
BODIES: dict[str, Any] = {
    "PATCH /api/v1/leads/{id}": {"first_name": "Eve"},
    "POST /api/v1/leads/{id}/score": {"score": 1, "reason": "x"},
    "PATCH /api/v1/segments/{id}": {"name": "Eve"},
    "PATCH /api/v1/templates/{id}": {"name": "Eve"},
    "PATCH /api/v1/campaigns/{id}": {"name": "Eve"},
}
#: Bodies that hold ids, with the place of each.
REFERENCES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("POST", "/api/v1/campaigns", name, {"name": "x"}) for name in ("segment_id", "template_id", "owner_id")
] + [
    ("POST", "/api/v1/engagements", "lead_id", {"type": "page_visited"}),
    ("POST", "/api/v1/engagements", "campaign_id", {"type": "page_visited", "lead_id": "OWN_LEAD"}),
]


@dataclass(frozen=True)
class Estate:
    """Ids of what a tenant has, of every kind."""

    tenant_id: int
    leads: tuple[int, ...]
    segment: int
    template: int
    campaign: int
    member: int

    def id_of(self, what: str) -> int:
        kinds = {"leads": self.leads[0], "segments": self.segment, "templates": self.template}
        kinds |= {"campaigns": self.campaign, "members": self.member}
        return kinds[what]


def build_estate(runtime: Runtime, tenant_id: int) -> Estate:
    leads = make_leads(runtime, tenant_id, 3)
    segment = make_segment(runtime, tenant_id, leads)
    template = make_template(runtime, tenant_id)
    campaign = make_campaign(runtime, tenant_id, segment_id=segment, template_id=template)
    make_send(runtime, tenant_id, campaign, template, leads)
    with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
        member = create_member(ctx, "Bo", "bo@example.org", "owner").id
        ctx.session.add(
            Engagement(tracked_at=ctx.now, type="page_visited", lead_id=leads[0], verdict="human", attributes={})
        )
    return Estate(tenant_id, tuple(leads), segment, template, campaign, member)


@pytest.fixture
def estates(runtime: Runtime, tenant: int, other_tenant: int) -> tuple[Estate, Estate]:
    """Ours and the stranger's; ids of the second do not occur in the first."""
    for _ in range(5):  # so that equal numbers do not hide a mistake
        make_leads(runtime, other_tenant, 1, email=None, external_id=None)
    theirs = build_estate(runtime, other_tenant)
    for _ in range(3):
        make_template(runtime, other_tenant, name=f"More {_}")
        make_segment(runtime, other_tenant, name=f"More {_}")
        make_campaign(runtime, other_tenant)
    ours = build_estate(runtime, tenant)
    return ours, theirs


def checksums(runtime: Runtime, tenant_id: int) -> dict[str, str]:
    """A digest of every row of a tenant, by table."""
    found = {}
    with runtime.engines.owner.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if "tenant_id" in table.c:
                names = ", ".join(f'"{column.name}"' for column in table.c)
                rows = connection.execute(
                    text(f"SELECT {names} FROM {table.name} WHERE tenant_id = :tenant"), {"tenant": tenant_id}
                )
                found[table.name] = sha256("\n".join(sorted(map(repr, rows.all()))).encode()).hexdigest()
    return found


def answer(client: Client, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    """Status and body without what differs by its nature: the request's and the resource's id."""
    response = client.send(method, path, body)
    document = response.json if response.body else {}
    document.pop("request_id", None)
    return response.status_int, document


def without(document: Any, number: int) -> Any:
    """The document without the id that was asked for."""
    return str(document).replace(str(number), "ID")


def id_routes(client: Client) -> Iterator[tuple[str, str]]:
    for route in client.app.app.registry["nexus.routes"]:
        if "{id}" in route.pattern:
            yield route.method, route.pattern


def test_a_foreign_id_in_a_path_is_an_unknown_id(
    client: Client, runtime: Runtime, estates: tuple[Estate, Estate]
) -> None:
    _, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    for method, pattern in id_routes(client):
        body = BODIES.get(f"{method} {pattern}")
        foreign = theirs.id_of(pattern.split("/")[3])
        got = answer(client, method, pattern.replace("{id}", str(foreign)), body)
        expected = answer(client, method, pattern.replace("{id}", str(UNKNOWN)), body)
        assert got[0] == 404, (method, pattern, got)
        assert without(got, foreign) == without(expected, UNKNOWN), (method, pattern)
    assert checksums(runtime, theirs.tenant_id) == before


def test_every_id_route_works_with_an_own_id(client: Client, estates: tuple[Estate, Estate]) -> None:
    """What shows that the test above asks the right thing."""
    ours, _ = estates
    for method, pattern in id_routes(client):
        own = ours.id_of(pattern.split("/")[3])
        status, document = answer(client, method, pattern.replace("{id}", str(own)), BODIES.get(f"{method} {pattern}"))
        assert status in (200, 202, 204, 409, 422), (method, pattern, document)


@pytest.mark.parametrize(("method", "path", "place", "body"), REFERENCES)
def test_a_foreign_id_in_a_body_is_an_unknown_id(
    client: Client, runtime: Runtime, estates: tuple[Estate, Estate], method: str, path: str, place: str, body: Any
) -> None:
    ours, theirs = estates
    body = {name: str(ours.leads[0]) if value == "OWN_LEAD" else value for name, value in body.items()}
    kinds = {"owner_id": "members"}
    foreign = theirs.id_of(kinds.get(place, place.removesuffix("_id") + "s"))
    before = checksums(runtime, theirs.tenant_id), checksums(runtime, ours.tenant_id)
    got = answer(client, method, path, {**body, place: str(foreign)})
    expected = answer(client, method, path, {**body, place: str(UNKNOWN)})
    assert got[0] == 422
    assert without(got, foreign) == without(expected, UNKNOWN)
    batch = answer(client, method, path, [{**body, place: str(foreign)}]) if path.endswith("engagements") else None
    assert batch is None or batch[1]["rejected"] == 1
    assert (checksums(runtime, theirs.tenant_id), checksums(runtime, ours.tenant_id)) == before


def test_a_foreign_id_in_a_patch_is_an_unknown_id(
    client: Client, runtime: Runtime, estates: tuple[Estate, Estate]
) -> None:
    ours, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    for place, kind in (("segment_id", "segments"), ("template_id", "templates"), ("owner_id", "members")):
        foreign = theirs.id_of(kind)
        path = f"/api/v1/campaigns/{ours.campaign}"
        got = answer(client, "PATCH", path, {place: str(foreign)})
        assert got[0] == 422
        assert without(got, foreign) == without(answer(client, "PATCH", path, {place: str(UNKNOWN)}), UNKNOWN)
    assert checksums(runtime, theirs.tenant_id) == before


def test_foreign_leads_do_not_get_into_a_segment(
    client: Client, runtime: Runtime, estates: tuple[Estate, Estate]
) -> None:
    ours, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    mixed = [str(ours.leads[0]), *(str(each) for each in theirs.leads)]
    made = client.send("POST", "/api/v1/segments", {"name": "Mixed", "kind": "static", "lead_ids": mixed})
    if made.status_int == 201:
        listed = client.get(f"/api/v1/segments/{made.json['id']}/leads").json["data"]
        assert [row["id"] for row in listed] == [str(ours.leads[0])]
        assert made.json["lead_count"] == 1
    assert checksums(runtime, theirs.tenant_id) == before


@pytest.mark.parametrize("name", ["leads", "segments", "templates", "campaigns", "members"])
def test_lists_hold_own_rows_only(client: Client, stranger: Client, estates: tuple[Estate, Estate], name: str) -> None:
    ours, theirs = estates
    own = {row["id"] for row in client.get(f"/api/v1/{name}?limit=200").json["data"]}
    foreign = {row["id"] for row in stranger.get(f"/api/v1/{name}?limit=200").json["data"]}
    assert str(ours.id_of(name)) in own
    assert str(theirs.id_of(name)) in foreign
    assert not own & foreign
    assert client.get(f"/api/v1/{name}?filter=id == {theirs.id_of(name)}").json["data"] == []


@pytest.mark.parametrize("parameter", ["tenant_id=2", "tenant=globex", "filter=tenant_id == 2", "fields=tenant_id"])
def test_the_tenant_cannot_be_chosen(client: Client, estates: tuple[Estate, Estate], parameter: str) -> None:
    del estates
    client.get(f"/api/v1/leads?{parameter}", status=422)


def graphql_places() -> Iterator[tuple[str, str, str]]:
    """(operation, field, argument) of every argument that takes an id."""
    schema = build_schema()
    for operation, kind in (("query", schema.query_type), ("mutation", schema.mutation_type)):
        assert kind is not None
        for name, field in kind.fields.items():
            for argument, described in field.args.items():
                if get_named_type(described.type).name == "ID":
                    yield operation, name, argument


def selection(name: str) -> str:
    """Everything scalar of what a root field leads to."""
    schema = build_schema()
    for kind in (schema.query_type, schema.mutation_type):
        if kind is not None and name in kind.fields:
            leads_to: Any = get_named_type(kind.fields[name].type)
            scalars = [
                each
                for each, field in leads_to.fields.items()
                if not hasattr(get_named_type(field.type), "fields")
                and not any(isinstance(a.type, GraphQLNonNull) for a in field.args.values())
            ]
            return "{ " + " ".join(scalars) + " }"
    raise AssertionError(name)


@pytest.mark.parametrize(("operation", "name", "argument"), list(graphql_places()))
def test_a_foreign_id_in_a_field_is_an_unknown_id(
    client: Client,
    runtime: Runtime,
    estates: tuple[Estate, Estate],
    operation: str,
    name: str,
    argument: str,
) -> None:
    _, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    kind = {"lead": "leads", "campaign": "campaigns", "launchCampaign": "campaigns", "leads": "segments"}[name]
    foreign = theirs.id_of(kind)
    query = f"{operation} Ask($id: ID!) {{ {name}({argument}: $id) {selection(name)} }}"
    got, expected = (
        answer(client, "POST", "/graphql", {"query": query, "variables": {"id": str(each)}})
        for each in (foreign, UNKNOWN)
    )
    assert without(got, foreign) == without(expected, UNKNOWN)
    assert not got[1]["data"] or not any(got[1]["data"].values())
    assert checksums(runtime, theirs.tenant_id) == before


def test_nested_fields_hold_own_rows_only(client: Client, estates: tuple[Estate, Estate]) -> None:
    ours, theirs = estates
    query = "{ campaigns { id leads { id segments { id } } } leads { id } }"
    data = client.post("/graphql", {"query": query}, status=200).json["data"]
    seen = {lead["id"] for campaign in data["campaigns"] for lead in campaign["leads"]}
    seen |= {lead["id"] for lead in data["leads"]}
    assert seen == {str(each) for each in ours.leads}
    assert not seen & {str(each) for each in theirs.leads}


def test_random_ids_and_keys_do_not_cross(
    client: Client, stranger: Client, runtime: Runtime, estates: tuple[Estate, Estate], rng: Any
) -> None:
    """Every route, both tenants, ids drawn from everything that exists and a little beyond."""
    ours, theirs = estates
    before = checksums(runtime, theirs.tenant_id)
    numbers = sorted({*range(1, 25), *ours.leads, *theirs.leads, UNKNOWN})
    routes = [(method, pattern) for method, pattern in id_routes(client) if method == "GET"]
    for (method, pattern), number in itertools.product(routes, rng.sample(numbers, 12)):
        path = pattern.replace("{id}", str(number))
        mine, other = client.send(method, path), stranger.send(method, path)
        assert 404 in (mine.status_int, other.status_int), path
    assert checksums(runtime, theirs.tenant_id) == before


def test_a_role_without_permission_learns_nothing_of_existence(
    make_client: Callable[..., Client], tenant: int, estates: tuple[Estate, Estate]
) -> None:
    ours, theirs = estates
    client = make_client(tenant, ["meta:read"])
    answers = {
        str(answer(client, "GET", f"/api/v1/leads/{number}")) for number in (ours.leads[0], theirs.leads[0], UNKNOWN)
    }
    assert len(answers) == 1
