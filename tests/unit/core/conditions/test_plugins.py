"""Conditions with words of plugins: what they may be told, who may name them, and how they are taken apart."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_marketing.core.conditions import (
    NO_PLUGINS,
    AllOf,
    AnyOf,
    Argument,
    Custom,
    CustomOperator,
    Dependencies,
    Evaluation,
    Field,
    FieldType,
    Not,
    Schema,
    Vocabulary,
    compile_predicate,
    dependencies,
    parse,
    parse_text,
    split,
)
from nexus_marketing.core.errors import ConditionError, ConditionUnavailable
from nexus_marketing.core.segments import names_read

pytestmark = pytest.mark.req("FR-EXT-002", "FR-P2-003", "SR-002")

NOW = Evaluation(datetime(2026, 3, 29, tzinfo=UTC))
ODD = CustomOperator("odd", lambda _, record, __: record["n"] % 2 == 1, depends_on=Dependencies(frozenset({"n"})))
BIG = CustomOperator("big", lambda _, record, __: record["n"] > 5, depends_on=Dependencies(frozenset({"n", "a"})))
HOT = CustomOperator(
    "hot", lambda *_: pytest.fail("its tree is asked"), to_tree=lambda _: parse_text("b == 1"), version=3
)
SINCE = CustomOperator(
    "since",
    lambda told, _record, evaluation: told[0].value <= evaluation.today,
    takes=(Argument("day", FieldType.DATE), Argument("least", FieldType.NUMBER, is_required=False)),
)
WORDS = Vocabulary({each.name: each for each in (ODD, BIG, HOT, SINCE)}, {"even": "even() belongs to the plugin x"})
SCHEMA = Schema.of(Field(name, FieldType.NUMBER) for name in "abn").with_plugins(WORDS)
RECORDS = [{"a": a, "b": b, "n": n} for a in (0, 1) for b in (0, 1) for n in (4, 5, 6, 7)]

WORD = st.sampled_from(["a == 1", "b == 1", "a != 1", "odd()", "big()", "hot()"]).map(parse_text)
TREES: st.SearchStrategy[Any] = st.recursive(
    WORD,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: AllOf(tuple(terms))),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: AnyOf(tuple(terms))),
        inner.map(Not),
    ),
    max_leaves=8,
)


@given(TREES)
def test_taken_apart_it_says_what_the_whole_says(tree: Any) -> None:
    whole, taken = compile_predicate(tree, SCHEMA), split(tree, SCHEMA)
    expected = [whole(record, NOW) for record in RECORDS]
    if taken is None:
        assert not any(isinstance(leaf, Custom) and leaf.name != "hot" for leaf in _leaves(tree))
        return
    narrow = None if taken.narrow is None else compile_predicate(taken.narrow, SCHEMA)
    looked_at = [record for record in RECORDS if narrow is None or narrow(record, NOW)]
    parts = [[compile_predicate(part, SCHEMA)(record, NOW) for record in looked_at] for part in taken.parts]
    held = taken.holds([{key: each[key] for key in taken.columns} for each in looked_at], parts, NOW)
    found = [record for record, is_true in zip(looked_at, held, strict=True) if is_true]
    assert found == [record for record, is_true in zip(RECORDS, expected, strict=True) if is_true]


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Not):
        return _leaves(tree.term)
    return [leaf for term in tree.terms for leaf in _leaves(term)] if hasattr(tree, "terms") else [tree]


def test_the_database_narrows_it_down_and_answers_the_rest() -> None:
    taken = split(parse_text("a == 1 AND (big() OR b == 1) AND NOT odd()"), SCHEMA)
    assert taken is not None
    assert taken.narrow == parse_text("a == 1")
    assert taken.parts == (parse_text("b == 1"),)
    assert [each.name for each in taken.asked] == ["big", "odd"]
    assert taken.columns == ["a", "n"]
    assert split(parse_text("a == 1 OR hot()"), SCHEMA) is None


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("since()", "wrong_arguments", "since() takes day: date, least: number or nothing: 0 given"),
        ("since('2026-01-01', 2, 3)", "wrong_arguments", "3 given"),
        ("since('soon')", "not_a_date", "soon"),
        ("since(7)", "wrong_type", "day is a date"),
        ("since('2026-01-01', 'x')", "wrong_type", "least of since() is a number"),
        ("bog()", "unknown_condition", "there is no condition bog(); did you mean big"),
        ("even()", "plugin_off", "even() belongs to the plugin x"),
    ],
)
def test_what_cannot_be_asked_is_refused_where_it_stands(text: str, code: str, said: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_text(f"a == 1 AND {text}", SCHEMA)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert said in problem.message
    assert "at character" in problem.message


def test_without_plugins_the_remedy_is_named() -> None:
    with pytest.raises(ConditionError, match=r"there is no condition odd\(\); a plugin adds one: name its module"):
        parse_text("odd()", SCHEMA.with_plugins(NO_PLUGINS))


def test_both_spellings_tell_it_the_same() -> None:
    tree = parse({"custom": "since", "arguments": ["2026-03-29"]}, SCHEMA)
    assert tree == parse_text("since(2026-03-29)", SCHEMA)
    assert tree.arguments[0].value == date(2026, 3, 29)
    assert compile_predicate(tree, SCHEMA)({}, NOW) is True


def test_what_it_reads_is_known_with_its_version() -> None:
    read = dependencies(parse_text("odd() OR NOT hot()"), SCHEMA)
    assert names_read(read, SCHEMA) == ["b", "condition:hot@3", "condition:odd@1", "n"]


def test_what_was_saved_stays_readable_and_is_not_decided() -> None:
    saved = SCHEMA.with_plugins(replace(WORDS, is_saved=True))
    tree = parse_text("a == 1 AND gone('x')", saved)
    with pytest.raises(ConditionUnavailable, match=r"gone\(\) cannot be asked: there is no condition gone\(\)"):
        compile_predicate(tree, saved)({"a": 1}, NOW)
    taken = split(tree, saved)
    assert taken is not None
    assert "there is no condition gone()" in str(taken.missing)
    assert compile_predicate(tree, saved)({"a": 2}, NOW) is False
