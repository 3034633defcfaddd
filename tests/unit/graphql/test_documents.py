"""Reading a document is done once, and what is kept is bounded."""

import gc
import time
import tracemalloc

import pytest
from graphql import DocumentNode

from nexus_marketing.graphql.documents import Documents
from nexus_marketing.graphql.schema import build_schema

pytestmark = pytest.mark.req("SR-003", "S14")


@pytest.fixture(scope="module")
def schema():
    return build_schema()


def test_a_document_is_read_once(schema):
    documents = Documents(schema)
    first = documents.read("{ leads { id } }")
    assert isinstance(first, DocumentNode)
    assert documents.read("{ leads { id } }") is first


def test_a_faulty_document_is_not_kept(schema):
    documents = Documents(schema)
    for query in ("{ leads { id ", "{ nothing }", "subscription { leads }"):
        assert isinstance(documents.read(query), list)
    assert documents.characters == 0


def test_those_used_last_are_kept(schema):
    documents = Documents(schema, kept_characters=3 * len("{ a: leads { id } }"))
    first = documents.read("{ a: leads { id } }")
    second = documents.read("{ b: leads { id } }")
    documents.read("{ c: leads { id } }")
    documents.read("{ a: leads { id } }")
    documents.read("{ d: leads { id } }")
    assert documents.read("{ a: leads { id } }") is first
    assert documents.read("{ b: leads { id } }") is not second


def test_a_document_larger_than_the_bound_is_read_and_let_go(schema):
    documents = Documents(schema, kept_characters=10)
    assert isinstance(documents.read("{ leads { id } }"), DocumentNode)
    assert documents.characters == 0


@pytest.mark.parametrize("fields", ["id name score " * 50, "... { id } " * 90])
def test_ever_new_documents_do_not_fill_the_memory(schema, fields):
    """A tenth of what the product keeps takes a tenth of 20 MB (S14)."""
    documents = Documents(schema, kept_characters=6_000)
    documents.read("{ leads { id } }")
    tracemalloc.start()
    try:
        for number in range(15):
            assert isinstance(documents.read(f"{{ leads {{ {fields} }} }} #{number}"), DocumentNode)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert documents.characters <= 6_000
    assert kept < 300 * 6_000


@pytest.mark.parametrize(
    "query",
    [
        "{ leads { " + "id " * 1_900 + "} }",
        "{ " + "leads { id email name } " * 300 + "}",
        "{ leads { " + "... { id } " * 400 + "} }",
        "{ leads { " + " ".join(f"...A{n}" for n in range(180)) + " } }"
        + " ".join(f"fragment A{n} on Lead {{ id email }}" for n in range(180)),
    ],
)  # fmt: skip
def test_fields_are_not_compared_with_each_other_without_end(schema, query):
    begun = time.thread_time()
    (error,) = Documents(schema).read(query)
    assert "name each once" in error.message
    assert time.thread_time() - begun < 0.3  # 40 ms on an idle machine; comparing all takes up to a second


def test_fields_of_one_name_that_differ_are_refused(schema):
    (error,) = Documents(schema).read("{ leads { a: id a: name } }")
    assert "conflict" in error.message
