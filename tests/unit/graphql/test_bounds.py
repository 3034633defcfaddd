"""A document's weight is known before it runs, and quickly."""

import time

import pytest
from graphql import GraphQLList, GraphQLObjectType, get_named_type, get_nullable_type, get_operation_ast, parse

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.graphql.bounds import LISTS, PRICES, check_bounds
from nexus_marketing.graphql.schema import build_schema

pytestmark = pytest.mark.req("SR-003")


def weigh(query: str, **variables: object) -> None:
    document = parse(query)
    operation = get_operation_ast(document)
    assert operation is not None
    check_bounds(document, operation, variables)


def refused(query: str, **variables: object) -> str:
    with pytest.raises(ValidationError) as caught:
        weigh(query, **variables)
    return caught.value.problems[0].path


def chain(depth: int) -> str:
    return "{ leads " + "{ segments " * (depth - 2) + "{ id }" + " }" * (depth - 2) + " }"


def test_ten_levels_are_the_bound() -> None:
    weigh("{ a { b { c { d { e { f { g { h { i { j } } } } } } } } } }")
    assert refused("{ a { b { c { d { e { f { g { h { i { j { k } } } } } } } } } } }") == "depth"
    assert refused(chain(11)) == "depth"


def test_depth_counts_through_fragments() -> None:
    query = "{ a { ...F } } fragment F on X { b { c { ... { d { ...G } } } } } fragment G on X { e { f { g { h { i { j { k }}}}}}}"
    assert refused(query) == "depth"


def test_every_list_has_a_price() -> None:
    """A list that is counted as one object is free."""
    found = {
        name
        for kind in build_schema().type_map.values()
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__")
        for name, field in kind.fields.items()
        if isinstance(get_nullable_type(field.type), GraphQLList)
        and isinstance(get_named_type(field.type), GraphQLObjectType)
    }
    assert found <= LISTS | PRICES.keys()


@pytest.mark.parametrize(("limit", "is_refused"), [(10, False), (100, True)])
def test_lists_in_lists_are_priced(limit: int, is_refused: bool) -> None:
    query = "query Q($n: Int) { campaigns(limit: $n) { leads(limit: $n) { segments { id } } } }"
    if is_refused:
        assert refused(query, n=limit) == "objects"
    else:
        weigh(query, n=limit)


def test_a_limit_that_is_unknown_is_priced_as_the_largest() -> None:
    query = "query Q($n: Int) { campaigns(limit: 100) { leads(limit: $n) { id } } }"
    assert refused(query) == "objects"


def test_doubling_fragments_are_weighed_in_no_time() -> None:
    doubling = "".join(f"fragment F{n} on X {{ a: x {{ ...F{n + 1} }} b: x {{ ...F{n + 1} }} }} " for n in range(9))
    begun = time.perf_counter()
    assert refused("{ ...F0 } " + doubling + "fragment F9 on X { id }") in ("aliases", "depth")
    wide = "".join(f"fragment F{n} on X {{ ...F{n + 1} ...F{n + 1} }} " for n in range(60))
    assert refused("{ ...F0 } " + wide + "fragment F60 on X { a: id }") == "aliases"
    assert time.perf_counter() - begun < 0.5
