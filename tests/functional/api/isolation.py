"""Every place of an id in the API, found from routes, schemas and listings; and what asking there answers (S01).

A place is a request in which only one id varies. Nothing here is a list that could be forgotten: a new route,
a new id in a body, a new filter or a new GraphQL argument is a new place, and one of a kind that no estate
has fails with the name of what is missing.
"""

import inspect
import pkgutil
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from graphql import GraphQLInputObjectType, GraphQLNonNull, GraphQLObjectType, get_named_type
from sqlalchemy import text

from nexus_marketing.api import schemas
from nexus_marketing.core.actions import ActionSource
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.db.base import Base
from nexus_marketing.db.models import ChannelAccount, Engagement, Escalation, JourneyApproval, LeadField, SegmentChange
from nexus_marketing.db.queries import resources
from nexus_marketing.db.queries.listings import Listing
from nexus_marketing.graphql.schema import build_schema
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.requests import ActionRequest, request_action
from nexus_marketing.services.campaigns.preflights import request_preflight
from nexus_marketing.services.conversations import add_attachment, add_comment
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.imports.jobs import look_at, upload
from nexus_marketing.services.imports.profiles import create_profile
from nexus_marketing.services.journeys.entries import enter_leads
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.scores.records import create_score, publish_score, update_score
from nexus_marketing.services.tenants import create_member
from tests.common.factories import make_campaign, make_leads, make_segment, make_send, make_template
from tests.functional.conftest import Client

#: Far beyond every id that there is.
UNKNOWN = 987_654_321
CONTENT = {"subject": "Hi", "html": "<p>Hi</p>", "text": "Hi"}
#: Bodies that get a write past its schema, by route; ``SERIAL`` becomes another number each time.
BODIES: Mapping[str, Any] = {
    "POST /api/v1/leads": {"email": "eve-SERIAL@example.org"},
    "PUT /api/v1/leads": {"email": "eva-SERIAL@example.org"},
    "PATCH /api/v1/leads/{id}": {"first_name": "Eve"},
    "POST /api/v1/leads/{id}/merge": {"from": "OWN leads"},
    "POST /api/v1/leads/{id}/tags": {"add": ["eve"]},
    "PATCH /api/v1/lead-fields/{id}": {"required": False},
    "POST /api/v1/lead-imports/{id}/check": {"options": {"existing": "fill_empty"}},
    "POST /api/v1/lead-imports/{id}/start": {},
    "PATCH /api/v1/lead-import-profiles/{id}": {"name": "Eve SERIAL"},
    "POST /api/v1/leads/{id}/score": {"score": 1, "reason": "x"},
    "POST /api/v1/segments": {"name": "Eve SERIAL"},
    "PATCH /api/v1/segments/{id}": {"name": "Eve SERIAL"},
    "PATCH /api/v1/scores/{id}": {"description": "Eve"},
    "POST /api/v1/scores/{id}/preview": {"sample": 3},
    "POST /api/v1/templates": {"name": "Eve SERIAL", "type": "email", "content": CONTENT},
    "PATCH /api/v1/templates/{id}": {"name": "Eve SERIAL"},
    "POST /api/v1/templates/{id}/duplicate": {"name": "Eve's copy SERIAL"},
    "POST /api/v1/campaigns": {"name": "Eve"},
    "PATCH /api/v1/campaigns/{id}": {"name": "Eve"},
    "POST /api/v1/campaigns/{id}/moves": {"action": "pause"},
    "POST /api/v1/campaigns/{id}/launch": {},
    "POST /api/v1/campaigns/{id}/fail": {"reason": "Eve"},
    "PUT /api/v1/campaigns/{id}/next-run": {"at": None},
    "POST /api/v1/campaigns/{id}/preflights": {},
    "POST /api/v1/campaigns/{id}/dead-letters/replay": {"state": "failed"},
    "POST /api/v1/campaigns/{id}/dead-letters/accept": {},
    "POST /api/v1/channels": {"type": "email", "name": "Eve SERIAL"},
    "PATCH /api/v1/channels/{id}": {"name": "Eve SERIAL"},
    "POST /api/v1/channels/{id}/test": {"to": "eve@example.org"},
    "POST /api/v1/journeys": {"name": "Eve SERIAL", "draft": {}},
    "PATCH /api/v1/journeys/{id}": {"name": "Eve SERIAL"},
    "POST /api/v1/journeys/{id}/entries": {"lead_ids": ["OWN leads"]},
    "POST /api/v1/journeys/{id}/migrate": {"dry_run": True},
    "POST /api/v1/journeys/{id}/patch": {"dry_run": True},
    "POST /api/v1/journeys/{id}/revive": {"dry_run": True},
    "POST /api/v1/journey-approvals/{id}/answer": {"approved": True},
    "POST /api/v1/definitions": {"schema": {"id": "eve-SERIAL"}},
    "PATCH /api/v1/definitions/{id}": {"schema": {"name": "Eve"}},
    "POST /api/v1/definitions/{id}/duplicate": {"code": "eve-copy-SERIAL"},
    "POST /api/v1/engagements/{id}/comments": {"text": "Eve"},
    "POST /api/v1/engagements/{id}/attachments": {"note": "Eve"},
    "POST /api/v1/engagements": {"type": "page_visited", "lead_id": "OWN leads"},
}
#: Which route a schema is the body of.
_ROUTES_OF_SCHEMAS = {
    "CREATE": "POST /api/v1/{}",
    "PATCH": "PATCH /api/v1/{}/{{id}}",
    "ROW": "POST /api/v1/{}",
    "UPSERT": "PUT /api/v1/{}",
    "MERGE": "POST /api/v1/{}/{{id}}/merge",
    "JOB": "POST /api/v1/{}/{{id}}/check",
    "LAUNCH": "POST /api/v1/{}/{{id}}/launch",
    "REPLAY": "POST /api/v1/{}/{{id}}/dead-letters/replay",
    "ACCEPT": "POST /api/v1/{}/{{id}}/dead-letters/accept",
    "PREVIEW": "POST /api/v1/{}/{{id}}/preview",
    "ENTRIES": "POST /api/v1/{}/{{id}}/entries",
    "MIGRATE": "POST /api/v1/{}/{{id}}/migrate",
    "REVIVE": "POST /api/v1/{}/{{id}}/revive",
    "RESUME": "POST /api/v1/{}/{{id}}/resume",
    "ANSWER": "POST /api/v1/journey-approvals/{{id}}/answer",
}
#: What an id is of where its name does not say it.
_KINDS = {
    "from": "leads",
    "owner": "members",
    "manager": "members",
    "run": "journey-runs",
    "profile": "lead-import-profiles",
    "launchCampaign": "campaigns",
    "publishJourney": "journeys",
    "pauseJourney": "journeys",
    "resumeJourney": "journeys",
    "drainJourney": "journeys",
    "stopJourney": "journeys",
    "patchJourney": "journeys",
    "pauseCampaign": "campaigns",
    "moveCampaign": "campaigns",
    "publishDefinition": "definitions",
    "preflightId": "preflights",
}
#: What a mutation needs beside the id that varies, in GraphQL.
_ARGUMENTS = {"moveCampaign": 'action: "pause"'}
_COLLECTIONS = {
    "segment_leads": "segments/OWN segments/leads",
    "segment_changes": "segments/OWN segments/changes",
    "journey_runs": "journeys/OWN journeys/runs",
    "engagement_comments": "engagements/OWN engagements/comments",
    "engagement_attachments": "engagements/OWN engagements/attachments",
    "lead_engagements": "leads/OWN leads/engagements",
    "campaign_engagements": "campaigns/OWN campaigns/engagements",
}
#: Fields of input objects that a mutation cannot do without.
_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "createCampaign": {"name": "Eve"},
    "enterJourney": {"journeyId": "OWN journeys", "leadIds": ["OWN leads"]},
    "reviveJourney": {"journeyId": "OWN journeys", "dryRun": True},
}
#: What differs from one answer to the next by its nature.
_PASSING = frozenset(
    {"request_id", "version", "created_at", "updated_at", "as_of", "generation", "name", "tracked_at", "duration_ms"}
)


@dataclass(frozen=True)
class Estate:
    """What a tenant has, of every kind; ``mark`` stands in every text of its rows."""

    tenant_id: int
    mark: str
    ids: Mapping[str, tuple[int, ...]]

    def one(self, kind: str) -> int:
        """An id of this kind."""
        assert kind in self.ids, f"build_estate() makes no {kind}: add one, so that their ids are tried too"
        return self.ids[kind][0]


@dataclass(frozen=True)
class Place:
    """A request in which only an id of ``kind`` varies: ``<id>`` in path or body, ``OWN kind`` is the asker's own."""

    name: str
    kind: str
    method: str
    path: str
    body: Any = None

    def ask(self, client: Client, estate: Estate, id_: object, serial: int = 0) -> "Answered":
        """Ask with this id."""
        path, body = (_filled(each, estate, str(id_), serial) for each in (self.path, self.body))
        response = client.send(self.method, path, body)
        headers = {"content-type": response.content_type, "names": sorted({*response.headers} - {"ETag"})}
        is_json = (response.content_type or "").endswith("json")
        document = (response.json if is_json else response.text) if response.body else None
        return Answered(response.status_int, str(headers), _without(str(_lasting(document)), str(id_)), response.body)

    @property
    def changes(self) -> int:
        """How much asking with an own id changes: places are asked from 0 upwards."""
        return {"POST": 2, "PATCH": 1, "DELETE": 3}.get(self.method, 0) if "{id}" in self.name else 0


@dataclass(frozen=True)
class Answered:
    """An answer without the id that was asked for and without what passes; ``raw`` is all of it."""

    status: int
    headers: str
    document: str
    raw: bytes

    def __eq__(self, other: object) -> bool:
        """Whether a client could tell the two apart by anything but the id that it sent."""
        assert isinstance(other, Answered)
        return (self.status, self.headers, self.document) == (other.status, other.headers, other.document)

    def __hash__(self) -> int:
        return hash((self.status, self.headers, self.document))


def _filled(value: Any, estate: Estate, id_: str, serial: int) -> Any:
    if isinstance(value, dict):
        return {name: _filled(each, estate, id_, serial) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, estate, id_, serial) for each in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"OWN ([\w-]+)", lambda match: str(estate.one(match[1])), value)
    return value.replace("<id>", id_).replace("SERIAL", str(serial))


def _lasting(document: Any) -> Any:
    if isinstance(document, dict):
        # The id of something that was just made is new each time.
        made = {"id"} if "created_at" in document else set()
        return {name: _lasting(each) for name, each in document.items() if name not in _PASSING | made}
    if isinstance(document, list):
        return [_lasting(each) for each in document]
    return document


def _without(document: str, id_: str) -> str:
    return re.sub(rf"(?<![\w.]){re.escape(id_)}(?![\w.]*\w)", "ID", document)


def begin_ids_far_away(runtime: Runtime) -> None:
    """Number rows from millions upwards, so that an id is never taken for a count, a status or a limit."""
    with runtime.engines.owner.begin() as connection:
        for number, table in enumerate(each for each in Base.metadata.sorted_tables if "id" in each.c):
            if runtime.engines.dialect == "sqlite":
                values = {"name": table.name, "seq": 4_000_000 + 10_000 * number}
                connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"), values)
            elif table.c.id.identity is not None:
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                connection.exec_driver_sql(f"SELECT setval({sequence}, {4_000_000 + 10_000 * number})")


def build_estate(runtime: Runtime, tenant_id: int, mark: str) -> Estate:
    """One or more of everything that has an id, each with whatever refers to it."""
    named: dict[str, Any] = {
        "name": f"{mark} name",
        "first_name": mark,
        "last_name": mark,
        "attributes": {"note": mark},
    }
    with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
        member = create_member(ctx, f"{mark} member", f"{mark}@example.org", "owner").id
        report = create_member(ctx, f"{mark} report", f"{mark}2@example.org", "marketer", manager_id=member).id
    leads = make_leads(runtime, tenant_id, 3, **named)
    segment = make_segment(runtime, tenant_id, leads, name=f"{mark} segment")
    content = {**CONTENT, "text": f"{mark} {{{{ unsubscribe_url }}}}"}
    template = make_template(runtime, tenant_id, name=f"{mark} template", content=content)
    with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
        definition = create_definition(ctx, {"schema": {"id": f"{mark}-definition", "name": f"{mark} definition"}}).id
        publish_definition(ctx, definition)
        rules = {"rules": [{"key": "visit", "event": "page_visited", "points": 1}]}
        score = create_score(ctx, {"name": "score", "description": mark, "draft": rules}).id
        publish_score(ctx, score)
        update_score(ctx, score, {"draft": rules})
        field = LeadField(name=f"{mark}field", type="text", created_at=ctx.now, updated_at=ctx.now)
        times = {"created_at": ctx.now, "updated_at": ctx.now}
        account = ChannelAccount(type="email", name=f"{mark} account", config={}, enabled=True, **times)
        ctx.session.add_all([field, account])
    refers = {"segment_id": segment, "template_id": template, "owner_id": member}
    campaign = make_campaign(runtime, tenant_id, f"{mark} campaign", **refers, data={"note": mark})
    send = make_send(runtime, tenant_id, campaign, template, leads)
    with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
        nodes = {"wait": {"type": "delay", "for": "9 days", "next": "bye"}, "bye": {"type": "exit", "reason": mark}}
        draft = {"id": "way", "entry": {"triggers": [{"on": "api"}], "reentry": {"policy": "always"}}, "nodes": nodes}
        row = create_journey(ctx, {"name": f"{mark} journey", "draft": draft})
        journey, row.campaign_id = row.id, campaign
        publish_journey(ctx, journey)
        (entered,) = enter_leads(ctx, journey, leads[:1])
        assert entered.run_id is not None
        asked = {"journey_id": journey, "run_id": entered.run_id, "node": mark, "asked": "owner", "token": 99}
        question = JourneyApproval(asked_at=ctx.now, closed_at=ctx.now, answer="expired", **asked)
        ctx.session.add(question)
        ctx.session.flush()
    with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
        about = {"lead_id": leads[0], "campaign_id": campaign, "notes": mark, "attributes": {"note": mark}}
        engagement = Engagement(tracked_at=ctx.now, type="page_visited", verdict="human", **about)
        ctx.session.add(engagement)
        ctx.session.flush()
        add_comment(ctx, engagement.id, mark)
        runtime.blobs.put(f"{tenant_id}/{'ab' * 16}", mark.encode())
        file: dict[str, Any] = {
            "blob_key": f"{tenant_id}/{'ab' * 16}",
            "content": mark.encode(),
            "content_type": "text/plain",
        }
        attachment = add_attachment(ctx, engagement.id, name=mark, **file)
        left = {"change": "left", "cause": "hand", "generation": 1}
        runtime.blobs.put(f"{tenant_id}/{'cd' * 16}", f"email\n{mark}3@example.org\n".encode())
        with runtime.blobs.local(f"{tenant_id}/{'cd' * 16}") as path:
            assert path is not None
            look = look_at(path, ImportOptions())
        imported = upload(ctx, look, name=mark, blob_key=f"{tenant_id}/{'cd' * 16}")
        preflight = request_preflight(ctx, campaign).id
        profile = create_profile(ctx, {"name": mark, "options": {"existing": "fill_empty"}})
        whose: dict[str, Any] = {"lead_id": leads[0], "data": {"note": mark}, "run_id": entered.run_id}
        action = request_action(ctx, ActionRequest("notify", mark, ActionSource.BREACH, campaign, **whose))
        about_escalation = {"entity_type": "campaign", "entity_id": campaign, "level": 1, "rule": 0, "reason": mark}
        escalation = Escalation(action="notify", action_id=action, at=ctx.now, **about_escalation)
        ctx.session.add(escalation)
        change = SegmentChange(segment_id=segment, lead_id=leads[0], at=ctx.now, **left)
        ctx.session.add(change)
    return Estate(
        tenant_id,
        mark,
        {
            "leads": tuple(leads),
            "lead-fields": (field.id,),
            "lead-imports": (imported.id,),
            "lead-import-profiles": (profile.id,),
            "segments": (segment,),
            "sends": (send,),
            "segment-changes": (change.id,),
            "scores": (score,),
            "templates": (template,),
            "channels": (account.id,),
            "campaigns": (campaign,),
            "journeys": (journey,),
            "journey-runs": (entered.run_id,),
            "journey-approvals": (question.id,),
            "preflights": (preflight,),
            "definitions": (definition,),
            "members": (member, report),
            "engagements": (engagement.id,),
            "attachments": (attachment.id,),
            "actions": (action,),
            "escalations": (escalation.id,),
        },
    )


def places(client: Client) -> list[Place]:
    """All of them, those that change least first."""
    found = [*_in_paths(client), *_in_bodies(), *_in_filters(), *_in_graphql()]
    assert len({place.name for place in found}) == len(found)
    return sorted(found, key=lambda place: place.changes)


def _in_paths(client: Client) -> Iterator[Place]:
    for route in client.app.app.registry["nexus.routes"]:
        if "{id}" in route.pattern:
            name = f"{route.method} {route.pattern}"
            kind, pattern = route.pattern.split("/")[3], route.pattern.replace("{name}", "score")
            own = re.sub(r"\{([a-z]+)_id\}", r"OWN \1s", pattern)
            yield Place(name, kind, route.method, own.replace("{id}", "<id>"), BODIES.get(name))
            if own != pattern:
                inner = re.sub(r"\{[a-z]+_id\}", "<id>", pattern.replace("{id}", f"OWN {kind}"))
                yield Place(f"{name} (inner)", kind_of(own.split("OWN ")[1]), route.method, inner, BODIES.get(name))


def _in_bodies() -> Iterator[Place]:
    for info in pkgutil.iter_modules(schemas.__path__):
        module = import_module(f"{schemas.__name__}.{info.name}")
        for constant, schema in inspect.getmembers(module, lambda value: isinstance(value, dict)):
            if constant.startswith("_"):
                continue
            for field, rules in schema.items():
                if isinstance(rules, dict) and "id" in (rules.get("type"), rules.get("schema", {}).get("type")):
                    yield from _in_body(info.name, constant, field, is_list=rules["type"] == "list")


def _in_body(collection: str, constant: str, field: str, *, is_list: bool) -> Iterator[Place]:
    assert constant in _ROUTES_OF_SCHEMAS, f"{collection}.{constant} has ids: say which route it is the body of"
    collection = collection.replace("_", "-")
    route = _ROUTES_OF_SCHEMAS[constant].format(collection)
    method, pattern = route.split(" ")
    body = {**BODIES[route], field: ["<id>"] if is_list else "<id>"}
    path = pattern.replace("{id}", f"OWN {collection}")
    # The parenthesis keeps a body's place from counting as one in a path.
    yield Place(f"{method} {path} ({field})", kind_of(field), method, path, body)
    if constant == "ROW":
        yield Place(f"{method} {path} (*.{field})", kind_of(field), method, path, [body])


def listings() -> list[Listing]:
    """Every list of the REST API."""
    modules = [import_module(f"{resources.__name__}.{each.name}") for each in iter_modules(resources.__path__)]
    found = {name: value for module in modules for name, value in vars(module).items() if isinstance(value, Listing)}
    assert len(found) > 20, "they are somewhere else now"
    return [found[name] for name in sorted(found)]


def _in_filters() -> Iterator[Place]:
    for listing in listings():
        if listing.name in {"engagements", "campaign_history"}:
            continue  # shown per lead, and per campaign
        path = f"/api/v1/{_COLLECTIONS.get(listing.name, listing.name)}"
        for field in sorted(listing.ids & listing.schema.fields.keys()):
            own = listing.table.name.removeprefix("marketing_").replace("_", "-")
            kind = own if field == "id" else kind_of(field)
            if kind == "engagements":
                continue  # numbered by time, answered per lead only
            for condition in (f"{field} == <id>", f"{field} in [<id>]", f"NOT {field} != <id>"):
                name = f"GET {path}?filter={condition}"
                yield Place(name, kind, "GET", f"{path}?filter={condition}")


def kind_of(name: str) -> str:
    """What an id is of, by the name of the field or argument that holds it."""
    stem = name.removesuffix("_ids").removesuffix("_id")
    return _KINDS.get(stem, stem if stem.endswith("s") else f"{stem}s")


def _in_graphql() -> Iterator[Place]:
    schema = build_schema()
    roots = {schema.query_type: "query", schema.mutation_type: "mutation"}
    for kind in schema.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__"):
            continue
        for name, field in kind.fields.items():
            for argument, described in field.args.items():
                taken = get_named_type(described.type)
                if isinstance(taken, GraphQLInputObjectType):
                    assert name in _INPUTS, f"{kind.name}.{name} takes an input object: say what it must hold"
                    for part, inside in taken.fields.items():
                        if get_named_type(inside.type).name == "ID":
                            yield _in_input(name, argument, taken.name, part, _selection(field.type))
                    continue
                if taken.name != "ID":
                    continue
                assert kind in roots, f"{kind.name}.{name} takes an id below the roots: say how to get there"
                yield from _in_field(roots[kind], name, argument, _selection(field.type))


def _in_input(name: str, argument: str, type_name: str, part: str, selection: str) -> Place:
    asked = f"mutation Make($it: {type_name}!) {{ {name}({argument}: $it) {selection} }}"
    variables = {"it": {**_INPUTS[name], part: "<id>"}}
    what = kind_of(re.sub(r"(?<!^)(?=[A-Z])", "_", part).lower())
    body = {"query": asked, "variables": variables}
    return Place(f"mutation {name}({argument}.{part})", what, "POST", "/graphql", body)


def _in_field(operation: str, name: str, argument: str, selection: str) -> Iterator[Place]:
    what = kind_of(name if argument == "id" else argument)
    more = f", {_ARGUMENTS[name]}" if name in _ARGUMENTS else ""
    if argument != "id" and operation == "mutation":
        more += f', id: "OWN {kind_of(name)}"'
    asked = f"{operation} Ask($id: ID!) {{ {name}({argument}: $id{more}) {selection} }}"
    yield Place(
        f"{operation} {name}({argument}: $id)", what, "POST", "/graphql", {"query": asked, "variables": {"id": "<id>"}}
    )
    literal = f'{operation} {{ {name}({argument}: "<id>"{more}) {selection} }}'
    yield Place(f'{operation} {name}({argument}: "…")', what, "POST", "/graphql", {"query": literal})


@cache
def _selection(leads_to: Any, depth: int = 0) -> str:
    """Everything that a field leads to, two levels of objects deep."""
    names = []
    for name, field in get_named_type(leads_to).fields.items():
        if any(isinstance(argument.type, GraphQLNonNull) for argument in field.args.values()):
            continue
        if not hasattr(get_named_type(field.type), "fields"):
            names.append(name)
        elif depth < 2:
            names.append(f"{name} {_selection(field.type, depth + 1)}")
    return "{ " + " ".join(names) + " }"


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


def takes_another_time(
    first: Callable[[], object], second: Callable[[], object], *, by: float = 0.2, pairs: int = 40, rounds: int = 8
) -> bool:
    """Whether one of two takes longer than the other by more than this part (0.2 is a fifth).

    Both are asked in turn, the order of each pair changing, so that whatever else the machine does meets
    both alike, and medians are compared. Noise goes now one way, now the other, and is small in some round;
    a difference that is there shows in every round and always in the same direction.
    """
    slower: set[bool] = set()
    for _ in range(rounds):
        ratio = _ratio(first, second, pairs)
        slower.add(ratio > 1)
        if len(slower) > 1 or max(ratio, 1 / ratio) <= 1 + by:
            return False
    return True


def _ratio(first: Callable[[], object], second: Callable[[], object], pairs: int) -> float:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            (first, second)[which]()
            times[which].append(time.perf_counter() - begun)
    return statistics.median(times[0]) / statistics.median(times[1])
