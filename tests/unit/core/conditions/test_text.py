import pytest

from nexus_marketing.core.conditions import (
    AllOf,
    AnyOf,
    Arithmetic,
    Clock,
    ClockKind,
    Custom,
    FieldRef,
    Leaf,
    Literal,
    Not,
    Operator,
    parse_text,
)
from nexus_marketing.core.errors import ConditionError

pytestmark = pytest.mark.req("FR-P2-003", "US-012", "SR-002")


def leaf(name, operator, *values):
    return Leaf(FieldRef(name), operator, tuple(Literal(value) for value in values))


A, B, C = leaf("a", Operator.EQUAL, 1), leaf("b", Operator.EQUAL, 2), leaf("c", Operator.EQUAL, 3)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("age > 25", leaf("age", Operator.GREATER, 25)),
        ("a == 1 and b = 2 OR c == 3", AnyOf((AllOf((A, B)), C))),
        ("a == 1 AND (b == 2 oR c == 3)", AllOf((A, AnyOf((B, C))))),
        ("NOT a == 1 AND b == 2", AllOf((Not(A), B))),
        ("not (a == 1 AND b == 2)", Not(AllOf((A, B)))),
        ("a in ('x', 2, true)", leaf("a", Operator.IN, "x", 2, True)),
        ("a not in [-1]", leaf("a", Operator.NOT_IN, -1)),
        ("a NOT_IN [1.5]", leaf("a", Operator.NOT_IN, 1.5)),
        ("a contains 'O''Hara'", leaf("a", Operator.CONTAINS, "O'Hara")),
        ('a starts_with "say ""hi"""', leaf("a", Operator.STARTS_WITH, 'say "hi"')),
        ("a between 1 and 5 and b == 2", AllOf((leaf("a", Operator.BETWEEN, 1, 5), B))),
        ("a is missing", leaf("a", Operator.IS_MISSING)),
        ("a is not missing", leaf("a", Operator.IS_PRESENT)),
        ("a == null", leaf("a", Operator.IS_MISSING)),
        ("a <> null", leaf("a", Operator.IS_PRESENT)),
        ("metadata.`a key`.x <= -1e-3", leaf("metadata.a key.x", Operator.LESS_EQUAL, -0.001)),
        ("android == 1", leaf("android", Operator.EQUAL, 1)),
        ("`and` == 1", leaf("and", Operator.EQUAL, 1)),
        ("a after now() - 36 hours", Leaf(FieldRef("a"), Operator.AFTER, (Clock(ClockKind.NOW, -129_600),))),
        ("a < today() + 1 week", Leaf(FieldRef("a"), Operator.LESS, (Clock(ClockKind.TODAY, 604_800),))),
        ("(a + 1) * 2 > b", Leaf(
            Arithmetic("*", Arithmetic("+", FieldRef("a"), Literal(1)), Literal(2)), Operator.GREATER, (FieldRef("b"),)
        )),
        ("a == 'X' ignoring case", Leaf(FieldRef("a"), Operator.EQUAL, (Literal("X"),), ignore_case=True)),
        ("opened(30, 'news') OR a == 1", AnyOf((Custom("opened", (Literal(30), Literal("news"))), A))),
    ],
)  # fmt: skip
def test_text_becomes_a_tree(text, tree):
    assert parse_text(text) == tree


def test_one_and_true_are_different_literals():
    assert parse_text("a == 1") != parse_text("a == true")


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "expected a field name"),
        ("a >", 3, "the end"),
        ("a > 1 AND", 9, "the end"),
        ("(a > 1", 6, "expected )"),
        ("a > 'x", 4, "never closed"),
        ("a == 1_000", 5, "1_000"),
        ("a == ١", 5, "u0661"),
        ("a < 1; drop table leads", 5, ";"),
        ("a b", 2, "a comparison"),
        ("a == 2026-02-30", 5, "YYYY-MM-DD"),
        ("a == 1e400", 5, "text"),
        ("a == 9007199254740992", 5, "text"),
        ("a == 'x\x00'", 5, "NUL"),
        ("30 days > a", 0, "now()"),
        ("a > today() - 3 hours", 4, "whole days"),
        ("a > now() - 99999999999 days", 4, "100 years"),
        ("a > now() - 99999999999999 days", 12, "100 years"),
        ("a > now() * 2", 4, "duration"),
        ("a > null", 2, "is_missing"),
        ("a > 1 ignoring case", 2, "ignore case"),
        ("a == '" + "x" * 1025 + "'", 5, "1024"),
        ("x" * 16_385, 16_384, "16384"),
        ("NOT " * 17 + "a == 1", 64, "16 deep"),
        ("a==1 AND " * 256 + "a==1", None, "256 terms"),
        ("a in [" + "1," * 1000 + "1]", 2, "1000"),
        ("a+a+a+a+a+a+a > 1", 14, "6 values"),
    ],
)
def test_a_refusal_points_at_the_character(text, position, words):
    with pytest.raises(ConditionError) as refusal:
        parse_text(text, path="targeting.segment")
    (problem,) = refusal.value.problems
    assert problem.path == "targeting.segment"
    assert words in problem.message
    if position is not None:
        assert f"at character {position + 1}:" in problem.message
        assert refusal.value.context["position"] == position


@pytest.mark.parametrize(
    "text", ["(" * 10_000 + "a == 1" + ")" * 10_000, "NOT " * 10_000 + "a == 1", "(" * 16_000, "[" * 10_000]
)
def test_ten_thousand_levels_are_an_error_not_a_crash(text):
    with pytest.raises(ConditionError):
        parse_text(text)
