import pytest

from nexus_marketing.core.conditions import (
    CustomOperator,
    Field,
    FieldType,
    Schema,
    campaign_schema,
    check,
    lead_schema,
    parse_text,
    to_text,
)
from nexus_marketing.core.errors import ConditionError

pytestmark = pytest.mark.req("FR-P2-003", "US-012", "SR-002")
SCHEMA = lead_schema(
    {"industry": FieldType.TEXT, "age": FieldType.NUMBER, "signup": FieldType.DATE, "vip": FieldType.BOOLEAN}
)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("lead.lead_score > 1", "score > 1"),
        ("location == 'US'", "country == 'US'"),
        ("created_at > '2026-03-01'", "created_at > 2026-03-01T00:00:00.000000Z"),
        ("signup in ['2026-03-01']", "signup in [2026-03-01]"),
        ("signup <= 'today() - 3 days'", "signup <= today() - 3 days"),
    ],
)
def test_names_and_dates_are_resolved(text, resolved):
    tree = parse_text(text, SCHEMA)
    assert to_text(tree) == resolved
    assert check(tree, SCHEMA) == tree


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("industri == 'x'", "unknown_field", "did you mean industry"),
        ("name == US", "unknown_field", "quote it"),
        ("tags.x == 1", "unknown_field", "tags.x"),
        ("metadata." + "x." * 8 + "y == 1", "unknown_field", ""),
        ("age == 'x'", "wrong_type", "never match"),
        ("name > 3", "wrong_type", "never match"),
        ("age in [1, 'x']", "wrong_type", "never match"),
        ("vip > true", "no_order", "=="),
        ("tags == 'x'", "is_a_list", "contains"),
        ("tags in ['x']", "is_a_list", "contains"),
        ("age contains 1", "wrong_type", "text or a list"),
        ("name contains 1", "wrong_type", "quote"),
        ("tags contains 2026-01-01", "wrong_type", "quote"),
        ("age starts_with 'x'", "wrong_type", "text"),
        ("name starts_with 1", "wrong_type", "quote"),
        ("name starts_with country", "not_a_value", "constant"),
        ("name before 'x'", "not_a_date_field", "<"),
        ("metadata.x before 2026-01-01", "not_a_date_field", "declared"),
        ("metadata.x > today()", "not_a_date_field", "declared"),
        ("metadata.x in [2026-01-01]", "not_a_date_field", "declare"),
        ("name > 2026-01-01", "not_a_date_field", "declared"),
        ("signup == 2026-01-01T00:00:00Z", "not_a_date", "time"),
        ("signup == '2026-02-30'", "not_a_date", "YYYY"),
        ("signup == 5", "wrong_type", "YYYY"),
        ("signup in ['today()']", "not_a_value", "constants"),
        ("signup == created_at", "not_a_date_field", "declared"),
        ("created_at == local_today()", "wrong_type", "today()"),
        ("metadata.x == metadata.y", "undeclared", "declare"),
        ("age between 5 and 1", "empty_range", "swap"),
        ("name between 'a' and 'b'", "no_range", "numbers"),
        ("age in []", "empty_list", "at least one"),
        ("1 == 1", "no_field", "name one"),
        ("age + name > 1", "not_a_number", "numbers"),
        ("age + 1 is missing", "not_a_field", "field"),
        ("name == 'x' ignoring case", "no_companion", "email"),
        ("email in [1] ignoring case", "not_text", "case"),
        ("name matches '(a'", "pattern_refused", "closed"),
        ("__import__('os')", "unknown_condition", "__import__"),
    ],
)
def test_what_could_never_be_meant_is_refused_when_saved(text, code, words):
    with pytest.raises(ConditionError) as refusal:
        parse_text(text, SCHEMA)
    (problem,) = refusal.value.problems
    assert problem.code == code
    assert words in problem.message
    assert problem.message.startswith("at character ")


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConditionError) as refusal:
        parse_text("age == 'x' AND NOT (nme > 3 OR tags == 'x')", SCHEMA)
    assert [problem.code for problem in refusal.value.problems] == ["wrong_type", "unknown_field", "is_a_list"]


def test_a_pattern_fault_points_into_the_pattern():
    with pytest.raises(ConditionError, match="at character 16:"):
        parse_text(r"name matches 'a\b'", SCHEMA)


def test_campaign_names_have_their_scopes():
    schema = campaign_schema({"subscription_date": FieldType.DATE})
    for text in ("data.subscription_date <= today()", "data.emails_sent >= 5", "data.engagement_rate < 0.1", "data.lead_score >= 80",
                 "campaign.name == 'x'", "event.link.url starts_with 'https:'"):  # fmt: skip
        assert parse_text(text, schema)
    with pytest.raises(ConditionError, match=r"data\.emails_sent"):
        parse_text("data.emails_snt > 1", schema)


def test_a_plugin_tree_is_checked_like_any_other():
    broken = CustomOperator("broken", evaluate=lambda *_: True, to_tree=lambda _: parse_text("nonsense == 1"))
    schema = Schema.of([Field("a", FieldType.NUMBER)]).extended(operators=[broken])
    with pytest.raises(ConditionError, match="nonsense"):
        parse_text("broken()", schema)
