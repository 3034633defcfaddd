import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.conditions import FieldRef, Leaf, Literal, Operator, parse_json, parse_text, to_json, to_text
from nexus_marketing.core.values import canonical_text
from nexus_marketing.core.values import parse_json as decode
from tests.common.conditions import SCHEMA, Conditions

pytestmark = pytest.mark.req("FR-P2-003")


@given(st.integers(0, 2**32))
def test_both_spellings_give_the_tree_back(seed):
    for tree in islice(Conditions(random.Random(seed)), 5):
        text, document = to_text(tree), to_json(tree)
        assert parse_text(text) == tree
        assert parse_text(text, SCHEMA) == tree
        assert parse_json(document, SCHEMA) == tree
        assert to_text(parse_json(document, SCHEMA)) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=50))
def test_any_text_literal_survives(text):
    tree = Leaf(FieldRef("name"), Operator.EQUAL, (Literal(canonical_text(text)),))
    assert parse_text(to_text(tree)) == tree


@pytest.mark.parametrize(
    "name", ["and", "Null", "contains", "is_missing", "metadata.a key", "metadata.0", "metadata.and", "lead.x"]
)
def test_names_like_keywords_survive(name):
    tree = Leaf(FieldRef(name), Operator.EQUAL, (Literal(1),))
    assert parse_text(to_text(tree)) == tree


def test_json_is_canonical_json():
    document = {"field": "metadata.x", "operator": "in", "value": [1, 2.5, "é", True]}
    assert to_json(parse_json(document)) == document
    assert decode(b'{"field": "metadata.x", "operator": "in", "value": [1.0, 2.5, "\xc3\xa9", true]}') == document
