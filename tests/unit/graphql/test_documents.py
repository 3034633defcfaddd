"""Reading a document is done once, and what is kept is bounded."""

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


@pytest.mark.parametrize("fields", ["id " * 1_900, "id name score " * 60, "... { id } " * 400])
def test_ever_new_documents_do_not_fill_the_memory(schema, fields):
    documents = Documents(schema)
    documents.read("{ leads { id } }")
    tracemalloc.start()
    try:
        for number in range(300):
            documents.read(f"{{ leads {{ {fields} }} }} #{number}")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000_000
