import pytest

from nexus_marketing.core.conditions import FieldType, lead_schema, parse, parse_json, parse_text, to_text
from nexus_marketing.core.errors import ConditionError

pytestmark = pytest.mark.req("FR-P2-003", "FR-P2-012", "SR-002")
SCHEMA = lead_schema({"industry": FieldType.TEXT, "signup": FieldType.DATE})


def test_the_segment_of_the_requirements_is_understood():
    document = {
        "conditions": [
            {"field": "lead_score", "operator": ">", "value": 50},
            {"field": "industry", "operator": "in", "value": ["tech", "finance"]},
        ],
        "logic": "AND",
    }
    assert to_text(parse(document, SCHEMA)) == "score > 50 AND industry in ['tech', 'finance']"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"field": "score", "operator": "=", "value": 1}, "score == 1"),
        ({"field": "name", "operator": "==", "value": None}, "name is_missing"),
        ({"field": "name", "operator": "IS_PRESENT"}, "name is_present"),
        ({"field": "score", "operator": "between", "value": [1, 2]}, "score between 1 and 2"),
        ({"logic": "not", "conditions": [{"field": "score", "operator": "<", "value": 1}]}, "NOT score < 1"),
        ({"conditions": [{"field": "score", "operator": "<", "value": 1}]}, "score < 1"),
        ({"field": "signup", "operator": "before", "value": "2026-01-01"}, "signup before 2026-01-01"),
        (
            {"field": "signup", "operator": ">", "value": {"expression": "today() - 3 days"}},
            "signup > today() - 3 days",
        ),
        ({"field": "signup", "operator": ">", "value": "now() - 3 days"}, "signup > now() - 3 days"),
        ({"field": {"expression": "score / 2"}, "operator": ">", "value": 3}, "score / 2 > 3"),
        ({"field": "email", "operator": "==", "value": "A@b.c", "ignore_case": True}, "email == 'A@b.c' ignoring case"),
    ],
)
def test_json_and_text_spell_the_same_tree(document, text):
    assert parse_json(document, SCHEMA) == parse_text(text, SCHEMA)


@pytest.mark.parametrize(
    ("document", "path", "code"),
    [
        ([], "", "not_a_condition"),
        ({}, "field", "required"),
        ({"field": "score"}, "operator", "required"),
        ({"field": "score", "operator": ">"}, "value", "required"),
        ({"field": "score", "operator": "~", "value": 1}, "operator", "unknown_operator"),
        ({"field": "score", "operator": ["=="], "value": 1}, "operator", "unknown_operator"),
        ({"field": "score", "operator": ">", "value": [1]}, "value", "not_a_value"),
        ({"field": "score", "operator": ">", "value": float("nan")}, "value", "not_canonical"),
        ({"field": "score", "operator": ">", "value": 2**53}, "value", "not_canonical"),
        ({"field": "name", "operator": "==", "value": "\ud800"}, "value", "not_canonical"),
        ({"field": "name", "operator": "==", "value": "x" * 1025}, "value", "literal_too_long"),
        ({"field": "score", "operator": "in", "value": 1}, "value", "not_a_list"),
        ({"field": "score", "operator": "in", "value": list(range(1001))}, "value", "list_too_long"),
        ({"field": "score", "operator": "in", "value": [1, None]}, "value.1", "not_a_value"),
        ({"field": "score", "operator": "between", "value": [1]}, "value", "wrong_arity"),
        ({"field": "score", "operator": "is_missing", "value": 1}, "value", "unexpected"),
        ({"field": 3, "operator": "==", "value": 1}, "field", "not_text"),
        ({"field": "score", "operator": "==", "value": 1, "x": 1}, "", "unknown_key"),
        ({"field": "score", "operator": "==", "value": 1, "ignore_case": 1}, "ignore_case", "not_a_boolean"),
        ({"field": "score", "operator": ">", "value": {"expression": "1 +"}}, "value", "expression_invalid"),
        ({"field": "score", "operator": ">", "value": {"sql": "1"}}, "value", "not_a_value"),
        ({"conditions": []}, "conditions", "empty"),
        ({"conditions": {}}, "conditions", "not_a_list"),
        ({"conditions": [{}], "logic": "XOR"}, "logic", "unknown_logic"),
        ({"conditions": [1]}, "conditions.0", "not_a_condition"),
        ({"custom": 1}, "custom", "not_text"),
        ({"custom": "x", "arguments": 1}, "arguments", "not_a_list"),
        ({"custom": "x", "arguments": [{}]}, "arguments.0", "not_a_value"),
        ({"custom": "x"}, "", "unknown_condition"),
        (
            {"logic": "NOT", "conditions": [{"field": "score", "operator": ">", "value": 1}] * 2},
            "conditions",
            "not_takes_one",
        ),
        ({"conditions": [{"field": "score", "operator": ">", "value": 1}] * 300}, "conditions.255", "too_many_terms"),
    ],
)
def test_a_refusal_points_at_the_path(document, path, code):
    with pytest.raises(ConditionError) as refusal:
        parse_json(document, SCHEMA, "rule")
    problem = refusal.value.problems[0]
    assert (problem.path, problem.code) == (f"rule.{path}" if path else "rule", code)


def test_ten_thousand_levels_are_an_error_not_a_crash():
    document = {"field": "score", "operator": ">", "value": 1}
    for _ in range(10_000):
        document = {"conditions": [document]}
    with pytest.raises(ConditionError) as refusal:
        parse_json(document)
    assert refusal.value.problems[0].code == "too_deep"


@pytest.mark.parametrize("thing", [None, 3, [], b"a == 1"])
def test_only_text_json_and_trees_are_conditions(thing):
    with pytest.raises(ConditionError):
        parse(thing)


def test_a_tree_is_a_spelling_too():
    tree = parse_text("lead_score > 1")
    assert parse(tree) is tree
    assert to_text(parse(tree, SCHEMA)) == "score > 1"
