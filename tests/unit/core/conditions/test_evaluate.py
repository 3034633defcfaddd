import ast
import random
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import islice

import pytest

from nexus_marketing.core.conditions import (
    CustomOperator,
    Dependencies,
    Evaluation,
    Field,
    FieldType,
    Folding,
    Schema,
    compile_predicate,
    parse_text,
)
from nexus_marketing.core.conditions.fastpath import verify
from tests.common.conditions import EVALUATION, SCHEMA, Conditions, hostile_leads, python_verdicts

pytestmark = pytest.mark.req("FR-P2-003", "US-012")
EV = Evaluation(datetime(2026, 3, 29, 12, tzinfo=UTC), "Europe/Berlin")
WIDE = Schema.of(
    [
        Field("n", FieldType.NUMBER),
        Field("t", FieldType.TEXT, folded="t_fold"),
        Field("t_fold", FieldType.TEXT),
        Field("email", FieldType.TEXT, folded="email_norm", folding=Folding.EMAIL),
        Field("email_norm", FieldType.TEXT),
        Field("d", FieldType.DATE),
        Field("m", FieldType.DATETIME),
        Field("tags", FieldType.LIST),
        Field("time_zone", FieldType.TEXT),
        Field("j", FieldType.JSON),
    ]
)


def answers(text, record, schema=WIDE):
    tree = parse_text(text, schema)
    quick, exact = compile_predicate(tree, schema), compile_predicate(tree, schema, once=True)
    assert quick(record, EV) is exact(record, EV)
    return quick(record, EV)


@pytest.mark.parametrize(
    ("text", "record", "answer"),
    [
        ("n == 1", {"n": True}, False),
        ("n < 5", {"n": False}, False),
        ("n in [1]", {"n": True}, False),
        ("n in [2, 3]", {"n": 2.0}, True),
        ("n in [2, 3]", {"n": [2]}, False),
        ("n != 1", {}, True),
        ("NOT n > 1", {"n": None}, True),
        ("n between 2 and 3", {"n": 3}, True),
        ("n / 0 > 1", {"n": 5}, False),
        ("NOT n / 0 > 1", {"n": 5}, True),
        ("7 / 2 == n", {"n": 3.5}, True),
        ("n * n > 0", {"n": 1e-31}, False),
        ("t == '12'", {"t": 12}, False),
        ("t > 'Z'", {"t": "a"}, True),
        ("t contains ''", {"t": ""}, True),
        ("t starts_with ''", {"t": None}, False),
        ("t == 'ΣΑΣ' ignoring case", {"t": "σας"}, True),
        ("t == 'ΣΑΣ' ignoring case", {"t": "x", "t_fold": "σασ"}, True),
        ("email == 'ANN@EXAMPLE.com ' ignoring case", {"email": "ann@example.com"}, True),
        ("email ends_with '.COM' ignoring case", {"email_norm": "ann@example.com"}, True),
        ("d == 2026-03-29", {"d": date(2026, 3, 29)}, True),
        ("d == 2026-03-29", {"d": "2026-03-29"}, True),
        ("d == 2026-03-29", {"d": datetime(2026, 3, 29, tzinfo=UTC)}, False),
        ("d in [2026-03-29]", {"d": date(2026, 3, 29)}, True),
        ("d before today()", {"d": date(2026, 3, 28)}, True),
        ("d == local_today()", {"d": date(2026, 3, 30), "time_zone": "Pacific/Auckland"}, True),
        ("d == local_today()", {"d": date(2026, 3, 29), "time_zone": "Mars/Olympus"}, True),
        ("m after now() - 1 hour", {"m": datetime(2026, 3, 29, 11, 30, tzinfo=UTC)}, True),
        ("m after now() - 1 hour", {"m": datetime(2026, 3, 29, 11, 30)}, False),  # noqa: DTZ001
        ("m after now() - 1 hour", {"m": "2026-03-29T11:30:00.000000Z"}, True),
        ("m >= today()", {"m": datetime(2026, 3, 28, 23, 0, tzinfo=UTC)}, True),
        ("m >= today()", {"m": datetime(2026, 3, 28, 22, 59, tzinfo=UTC)}, False),
        ("tags contains 'a'", {"tags": ["b", "a"]}, True),
        ("tags contains 1", {"tags": [True, "1"]}, False),
        ("tags contains 'a'", {"tags": "abc"}, False),
        ("j contains 'a'", {"j": "abc"}, True),
        ("j.a.b.c == 1", {"j": {"a": {"b": {"c": 1}}}}, True),
        ("j.a.b.c == 1", {"j": {"a": [1]}}, False),
        ("j.a is_missing", {"j": {"a": None}}, True),
        ("j.a is_missing", {"j": "a"}, True),
        ("j.a == 1", {}, False),
    ],
)
def test_the_meaning_of_leaves(text, record, answer):
    assert answers(text, record) is answer


def test_compiled_code_agrees_with_the_closures_on_hostile_leads():
    rng = random.Random(7)
    python_verdicts(list(islice(Conditions(rng), 400)), hostile_leads(150, rng))


class Spied(dict):
    """A record that tells whoever reads anything but its items."""

    def __getattribute__(self, name):
        if name not in {"get", "__class__"}:
            raise AssertionError(f"attribute {name} was read")
        return super().__getattribute__(name)


class Untouchable:
    """A value that tells whoever reads its attributes."""

    def __getattribute__(self, name):
        if name != "__class__":
            raise AssertionError(f"attribute {name} was read")
        return super().__getattribute__(name)

    __hash__ = object.__hash__


@pytest.mark.req("SR-002")
def test_no_attribute_of_a_record_or_value_is_read():
    rng = random.Random(3)
    strange = Untouchable()
    names = [
        "score",
        "seats",
        "name",
        "country",
        "email",
        "time_zone",
        "active",
        "born",
        "created_at",
        "updated_at",
        "tags",
    ]
    records = [
        Spied({**dict.fromkeys(names, strange), "metadata": Spied(dict.fromkeys(["x", "plan", "amount"], strange))}),
        Spied(),
    ]
    for tree in islice(Conditions(rng), 2_000):
        for once in (True, False):
            predicate = compile_predicate(tree, SCHEMA, once=once)
            for record in records:
                predicate(record, EVALUATION)


@pytest.mark.req("SR-002")
@pytest.mark.parametrize(
    "source", ["f'{x}'", "x.__class__", "import os", "lambda: 1", "[x for x in y]", "x + y", "x ** y", "await x"]
)
def test_compiled_code_has_nodes_of_a_short_list_only(source):
    with pytest.raises(TypeError):
        verify(ast.parse(source) if source != "await x" else ast.Module([ast.Expr(ast.Await(ast.Name("x")))], []))


@pytest.mark.req("FR-EXT-002")
def test_a_plugin_condition_is_evaluated_once_with_its_arguments():
    calls = []

    def evaluate(arguments, record, _evaluation):
        calls.append(arguments[0].value)
        return record["n"] > arguments[0].value

    schema = WIDE.extended(
        operators=[CustomOperator("above", evaluate, depends_on=Dependencies(fields=frozenset({"n"})))]
    )
    tree = parse_text("NOT above(5) OR n == 9", schema)
    assert compile_predicate(tree, schema)({"n": 9}, EV) is True
    assert calls == [5]


@pytest.mark.req("FR-EXT-002")
def test_a_plugin_condition_may_say_itself_as_a_tree():
    operator = CustomOperator(
        "adult", evaluate=lambda *_: pytest.fail("not needed"), to_tree=lambda a: parse_text(f"n >= {a[0].value}")
    )
    schema = WIDE.extended(operators=[operator])
    assert compile_predicate(parse_text("NOT adult(18)", schema), schema)({"n": 17}, EV) is True


def test_text_of_a_subclass_is_text():
    plan = StrEnum("plan", ["PRO"])
    assert answers("t == 'pro'", {"t": str(plan.PRO)}) is True
