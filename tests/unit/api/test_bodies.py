"""Bodies against schemas: JSON's types, every fault at once, the place of each."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.api.schemas import campaigns, engagements, leads, segments, templates
from nexus_marketing.core.errors import ValidationError
from nexus_marketing.core.schemas import check

pytestmark = pytest.mark.req("SR-003")

SCHEMAS = [
    leads.CREATE, leads.PATCH, leads.SCORE, segments.CREATE, segments.PATCH, templates.CREATE, templates.PATCH,
    campaigns.CREATE, campaigns.PATCH, campaigns.ACTION, engagements.ROW,
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def faults(document: dict[str, Any], schema: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        check(document, schema, **options)
    return {problem.path: problem.code for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, "integer"), (False, "integer"), (1.0, "integer"), ("1", "integer"), (True, "number"), ("1", "number")],
)
def test_types_are_those_of_json(value: object, kind: str) -> None:
    assert faults({"a": value}, {"a": {"type": kind}}) == {"a": "wrong_type"}


def test_faults_in_depth_have_their_path() -> None:
    document = {"name": "x", "type": "email", "content": {"subject": 1, "htlm": "x"}, "variables": {"a": {"b": 1}}}
    assert faults(document, templates.CREATE) == {
        "content.subject": "wrong_type",
        "content.htlm": "unknown_field",
        "variables.a.b": "unknown_field",
    }


def test_items_of_a_list_have_their_number() -> None:
    assert faults({"tags": ["a", 1, ""]}, leads.CREATE) == {"tags.1": "wrong_type", "tags.2": "empty"}


def test_a_field_of_the_server_is_named_as_such() -> None:
    assert faults({"name": "x", "status": "active"}, campaigns.CREATE, read_only=campaigns.READ_ONLY) == {
        "status": "read_only"
    }


def test_the_message_of_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean subject"):
        check({"content": {"subjekt": "x", "subject": "y"}}, templates.PATCH, patch=True)


def test_braces_in_a_regex_do_not_break_the_message() -> None:
    assert faults({"name": "x", "currency": "euro"}, campaigns.CREATE) == {"currency": "not_well_formed"}


@given(document=st.dictionaries(st.text(max_size=12), json_values, max_size=6), schema=st.sampled_from(SCHEMAS))
def test_no_document_breaks_a_schema(document: dict[str, Any], schema: Any) -> None:
    try:
        check(document, schema)
    except ValidationError as error:
        assert error.problems  # noqa: PT017 - acceptance is fine too


@given(data=st.data(), schema=st.sampled_from(SCHEMAS))
def test_known_fields_with_any_value_are_judged(data: st.DataObject, schema: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(schema)), unique=True))
    document = {name: data.draw(json_values) for name in names}
    try:
        check(document, schema, patch=True)
    except ValidationError as error:
        assert all(problem.path.split(".")[0] in schema for problem in error.problems)  # noqa: PT017
