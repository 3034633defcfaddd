from datetime import UTC, datetime

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from nexus_marketing.core.conditions import CustomOperator, Evaluation, Field, FieldType, parse_text
from nexus_marketing.core.errors import ConditionError
from nexus_marketing.db.conditions import CostClass, compile_condition, cost_class, wrap_for_select
from nexus_marketing.db.conditions.compiler import next_text
from tests.common.conditions import LEADS, SCHEMA

pytestmark = pytest.mark.req("FR-P2-003", "FR-P2-012")
COLUMNS = {column.name: column for column in LEADS.c}
EVALUATION = Evaluation(datetime(2026, 3, 29, 12, tzinfo=UTC))
DIALECTS = {"postgresql": postgresql.dialect(paramstyle="named"), "sqlite": sqlite.dialect(paramstyle="named")}
REVERSED = SCHEMA.extended(
    [
        Field("country", FieldType.TEXT, reversed="country_rev"),
        Field("country_rev", FieldType.TEXT, ("name",), indexed=True),
    ]
)


def sql(text, dialect, schema=SCHEMA, columns=COLUMNS):
    test = compile_condition(parse_text(text, schema), schema, columns, dialect, EVALUATION)
    return str(test.compile(dialect=DIALECTS[dialect], compile_kwargs={"render_postcompile": True})).replace(
        "condition_leads.", ""
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text",
    [
        "name starts_with 'a'",
        "name contains 'a%'",
        "email == 'A' ignoring case",
        "NOT metadata.x contains 'a'",
        "NOT (name == 'a' OR score > 1)",
    ],
)
def test_no_sql_folds_coalesces_or_likes(text, dialect):
    spelled = sql(text, dialect).lower()
    for word in ("like", "coalesce", "lower(", "upper("):
        assert word not in spelled


def test_positive_leaves_are_bare_and_negated_ones_are_not_true():
    assert sql("name == 'a'", "sqlite") == "name = :param_1"
    assert sql("name != 'a'", "sqlite") == "(name = :param_1) IS NOT 1"
    assert (
        sql("NOT (score > 1 OR name is_missing)", "postgresql")
        == "((score > :param_1) IS NOT true AND name IS NOT NULL)"
    )
    test = compile_condition(parse_text("score > 1", SCHEMA), SCHEMA, COLUMNS, "postgresql", EVALUATION)
    assert str(wrap_for_select(test).compile(dialect=DIALECTS["postgresql"])).endswith("IS true")


def test_no_text_of_a_condition_stands_in_the_statement():
    hostile = "x'); DROP TABLE leads; --"
    quoted = hostile.replace("'", "''")
    for dialect, spelling in DIALECTS.items():
        for operator in ("==", "contains", "starts_with", "ends_with", "in"):
            text = f"metadata.x {operator} ['{quoted}']" if operator == "in" else f"metadata.x {operator} '{quoted}'"
            test = compile_condition(parse_text(text, SCHEMA), SCHEMA, COLUMNS, dialect, EVALUATION)
            assert "DROP" not in str(test.compile(dialect=spelling))


@pytest.mark.parametrize(
    "name", ["metadata.`a'b`", 'metadata.`a"b`', "metadata.`a\\b`", "metadata.`é`", "metadata.`$`", "metadata.`a%b`"]
)
def test_json_keys_are_of_a_short_alphabet(name):
    with pytest.raises(ConditionError):
        parse_text(f"{name} == 1", SCHEMA)


@pytest.mark.parametrize(
    ("prefix", "after"),
    [("a", "b"), ("az", "a{"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000"), ("", None)],
)
def test_the_end_of_a_prefix_range(prefix, after):
    assert next_text(prefix) == after


def test_what_has_no_sql_form_is_refused():
    schema = SCHEMA.extended(operators=[CustomOperator("python_only", lambda *_: True)])
    for text, code in (("python_only()", "no_sql_form"), ("born < signup", "mixed_dates")):
        with pytest.raises(ConditionError) as refusal:
            compile_condition(parse_text(text, schema), schema, COLUMNS, "sqlite", EVALUATION)
        assert refusal.value.problems[0].code == code
    with pytest.raises(ConditionError) as refusal:
        sql("score > 1", "sqlite", columns={"name": LEADS.c.name})
    assert refusal.value.problems[0].code == "no_column"


def test_a_plugin_tree_compiles():
    schema = SCHEMA.extended(
        operators=[CustomOperator("hot", lambda *_: True, to_tree=lambda _: parse_text("score > 80"))]
    )
    assert sql("NOT hot()", "sqlite", schema) == "(score > :param_1) IS NOT 1"


def test_a_reversed_companion_makes_ends_with_a_range():
    assert sql("country ends_with 'ab'", "sqlite", REVERSED) == "name >= :param_1 AND name < :param_2"


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("score > 1", CostClass.INDEXED),
        ("email starts_with 'a' ignoring case", CostClass.INDEXED),
        ("country == 'US'", CostClass.CHEAP),
        ("NOT score > 1", CostClass.CHEAP),
        ("score > 1 AND name matches 'x'", CostClass.INDEXED),
        ("score > 1 OR name matches 'x'", CostClass.SCAN),
        ("country == 'US' AND metadata.x == 1", CostClass.SCAN),
        ("tags contains 'x'", CostClass.SCAN),
        ("name ends_with 'x'", CostClass.SCAN),
        ("score > seats", CostClass.CHEAP),
        ("name is_missing", CostClass.CHEAP),
    ],
)
def test_the_cost_class_is_told(text, cost):
    assert cost_class(parse_text(text, SCHEMA), SCHEMA) is cost


def test_a_reversed_companion_lowers_the_cost():
    assert cost_class(parse_text("country ends_with 'x'", REVERSED), REVERSED) is CostClass.INDEXED


def test_local_today_is_a_case_over_the_zones_present():
    test = compile_condition(
        parse_text("born == local_today()", SCHEMA),
        SCHEMA,
        COLUMNS,
        "sqlite",
        EVALUATION,
        zones=["UTC", "Pacific/Auckland"],
    )
    compiled = test.compile(dialect=DIALECTS["sqlite"])
    assert "CASE WHEN" in str(compiled)
    assert "Pacific/Auckland" in compiled.params.values()
    assert "UTC" not in compiled.params.values()
    alone = compile_condition(
        parse_text("born == local_today()", SCHEMA), SCHEMA, COLUMNS, "sqlite", EVALUATION, zones=[]
    )
    assert "CASE" not in str(alone.compile(dialect=DIALECTS["sqlite"]))
