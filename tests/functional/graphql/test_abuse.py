"""Documents made to hurt: refused before they run, or given up in time (S14)."""

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from graphql import get_introspection_query
from sqlalchemy import event

from nexus_marketing.core.clock import FakeClock
from nexus_marketing.graphql import views
from nexus_marketing.runtime import Runtime
from tests.common.factories import make_campaign, make_leads, make_segment
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("SR-003", "S14")

SLOW = {
    "postgresql": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n",
}
DOUBLING = "".join(f"fragment F{n} on Lead {{ ...F{n + 1} a{n}: id ...F{n + 1} }} " for n in range(40))
#: name → (document, what its refusal says).
ABUSE: dict[str, tuple[str, str]] = {
    "depth": ("{ campaigns(limit: 1) { leads(limit: 1) " + "{ segments " * 9 + "{ id }" + " }" * 9 + " } }", "Cannot query"),
    "depth in nothing": ("{ " + "a { " * 5_000 + "b" + " }" * 5_000 + " }", "nested too deeply"),
    "depth of inline fragments": ("{ leads { " + "... { " * 500 + "id" + " }" * 500 + " } }", ""),
    "root fields": ("{ " + " ".join(f"a{n}: leads {{ id }}" for n in range(51)) + " }", "aliases"),
    "aliases": ("{ leads { " + " ".join(f"a{n}: id" for n in range(51)) + " } }", "aliases"),
    "root fields and aliases together": (
        "{ " + " ".join(f"... {{ b{n}: __typename }}" for n in range(30)) + " leads { " + " ".join(f"c{n}: id" for n in range(30)) + " } }",
        "aliases",
    ),
    "one field over and over": ("{ leads { " + "id " * 1_900 + " } }", "name each once"),
    "one list over and over": ("{ " + "leads { id email } " * 300 + " }", "name each once"),
    "a long document": ("{ leads { " + "id " * 20_000 + " } }", "token"),
    "a huge document": ("{ leads { " + "id " * 80_000 + " } }", "the bound is 65536"),
    "a huge comment": ("{ leads { id } } #" + "x" * 900_000, "too long"),
    "cost": ("{ campaigns(limit: 100) { leads(limit: 100) { segments { id } } } }", "objects"),
    "cost by aliases": ("{ " + " ".join(f"a{n}: campaigns(limit: 100) {{ analytics {{ open }} }}" for n in range(20)) + " }", "objects"),
    "doubling fragments": ("{ leads { ...F0 } } " + DOUBLING + " fragment F40 on Lead { id }", "aliases"),
    "fragments in a circle": ("{ leads { ...A } } fragment A on Lead { ...B } fragment B on Lead { ...A }", "within itself"),
    "a fragment in itself": ("{ leads { ...A } } fragment A on Lead { ...A }", "within itself"),
    "introspection in circles": (
        "{ __schema { types { " + "fields { type { " * 4 + "name" + " } }" * 4 + " } } }",
        "introspection",
    ),
    "directives over and over": ("{ leads { id " + "@skip(if: false) " * 500 + " } }", ""),
    "a long list of values": ('{ lead(id: ["' + '", "'.join("1" * 2_000) + '"]) { id } }', ""),
    "errors without end": ("{ " + " ".join(f"nothing{n}" for n in range(900)) + " }", ""),
}  # fmt: skip


@contextmanager
def statements_of(runtime: Runtime, replacement: str | None = None) -> Iterator[list[str]]:
    """The statements of the web role; ``replacement`` runs instead of each. Keys must be known by then."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> tuple[str, Any]:
        seen.append(statement)
        return (statement, parameters) if replacement is None else (replacement, ())

    event.listen(runtime.engines.app, "before_cursor_execute", note, retval=True)
    try:
        yield seen
    finally:
        event.remove(runtime.engines.app, "before_cursor_execute", note)


@pytest.mark.parametrize("name", ABUSE)
def test_it_is_refused_before_anything_runs(client: Client, runtime: Runtime, name: str) -> None:
    query, reason = ABUSE[name]
    client.get("/api/v1")  # the key is known now
    with statements_of(runtime) as statements:
        took = []
        for _ in range(3):  # the least of them: the garbage of other tests is none of this one's
            begun = time.thread_time()
            answer = client.send("POST", "/graphql", {"query": query})
            took.append(time.thread_time() - begun)
    assert answer.status_int in (400, 422)
    assert reason in answer.text
    assert "data" not in answer.json
    assert statements == []
    assert len(answer.body) < 10_000
    assert min(took) < 0.5  # a tenth of it on an idle machine


def test_refusing_them_all_takes_little_memory(client: Client) -> None:
    client.get("/api/v1")
    tracemalloc.start()
    try:
        for query, _ in ABUSE.values():
            client.send("POST", "/graphql", {"query": query})
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert kept < 5_000_000


def test_the_introspection_of_tools_is_let_through(client: Client) -> None:
    assert "data" in client.post("/graphql", {"query": get_introspection_query()}, status=200).json


@pytest.mark.parametrize("count", [0, 1, 2, 1_000])
def test_batches_are_off(client: Client, runtime: Runtime, count: int) -> None:
    client.get("/api/v1")
    with statements_of(runtime) as statements:
        fault = client.post("/graphql", [{"query": "{ leads { id } }"}] * count, status=400).json
    assert "batches are off" in fault["errors"][0]["message"]
    assert statements == []


def test_no_names_are_suggested_to_those_without_a_key(client: Client) -> None:
    client.headers = {}
    for query in ("{ lead { emial } }", "{ __schema { types { name } } }", "{"):
        assert "email" not in client.post("/graphql", {"query": query}, status=401).text


def test_the_time_of_a_statement_is_set_with_begin(postgres_only_runtime: Runtime) -> None:
    """In the round trip of BEGIN, for this transaction and no other."""
    engine = postgres_only_runtime.engines.app
    with engine.execution_options(nexus_timeout_seconds=5.0).connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "5s"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"


@pytest.mark.parametrize(
    "query", ["{ leads { id } }", "{ leads { id } campaigns { id } }", "{ a: leads { id } b: leads { id } }"]
)
def test_a_query_that_takes_too_long_is_given_up(
    client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    make_leads(runtime, tenant, 1)
    client.get("/api/v1")
    assert views.TIMEOUT_SECONDS == 5
    monkeypatch.setattr(views, "TIMEOUT_SECONDS", 0.2)
    begun = time.monotonic()
    with statements_of(runtime, SLOW[runtime.engines.dialect]):
        answer = client.post("/graphql", {"query": query}, status=200).json
    assert time.monotonic() - begun < 5
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "query_timeout"
    assert "ask for less" in error["message"]
    assert answer["data"] is None
    assert "pg_sleep" not in str(answer)
    # The connection is as good as new: nothing of the limit stays on it.
    for _ in range(3):
        assert client.get("/api/v1/leads").json["data"]
        assert client.post("/graphql", {"query": "{ leads { id } }"}, status=200).json["data"]["leads"]


def test_nested_questions_that_take_too_long_are_given_up(
    client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = make_leads(runtime, tenant, 2)
    make_campaign(runtime, tenant, segment_id=make_segment(runtime, tenant, ids))
    monkeypatch.setattr(views, "TIMEOUT_SECONDS", 0.2)
    slow = SLOW[runtime.engines.dialect]

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> tuple[str, Any]:
        return (slow, ()) if "marketing_segment_members" in statement else (statement, parameters)

    event.listen(runtime.engines.app, "before_cursor_execute", note, retval=True)
    try:
        answer = client.post("/graphql", {"query": "{ campaigns { leads { id } } }"}, status=200).json
    finally:
        event.remove(runtime.engines.app, "before_cursor_execute", note)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["query_timeout"]


def test_a_mutation_that_takes_too_long_changes_nothing(
    client: Client, runtime: Runtime, tenant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign(runtime, tenant)
    client.get("/api/v1")
    monkeypatch.setattr(views, "TIMEOUT_SECONDS", 0.2)
    body = {"query": f'mutation {{ launchCampaign(id: "{campaign}") {{ id }} }}'}
    with statements_of(runtime, SLOW[runtime.engines.dialect]):
        answer = client.post("/graphql", body, status=200).json
    assert answer["errors"][0]["extensions"]["code"] == "query_timeout"
    assert client.get(f"/api/v1/campaigns/{campaign}").json["version"] == 1


def test_a_document_of_many_statements_begins_none_after_its_time(
    client: Client, runtime: Runtime, tenant: int, clock: FakeClock
) -> None:
    make_leads(runtime, tenant, 1)
    client.get("/api/v1")
    seen = []

    def tick(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "FROM marketing_leads" in statement:
            seen.append(statement)
            clock.advance(seconds=3)

    event.listen(runtime.engines.app, "before_cursor_execute", tick)
    try:
        query = "{ " + " ".join(f"a{n}: leads {{ id }}" for n in range(5)) + " }"
        answer = client.post("/graphql", {"query": query}, status=200).json
    finally:
        event.remove(runtime.engines.app, "before_cursor_execute", tick)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["query_timeout"]
    assert len(seen) == 2
