"""Python, SQLite and PostgreSQL must give one answer: the differential test of the condition language."""

import os
import random
import struct
import time
from collections.abc import Iterator
from itertools import islice

import pytest
import sqlalchemy as sa

from nexus_marketing.core.conditions import parse_text, to_text
from nexus_marketing.core.conditions.patterns import PatternError, matcher, parse, postgres_source
from nexus_marketing.db.conditions import compile_condition, register_sqlite_functions, wrap_for_select
from tests.common import conditions_reference
from tests.common.conditions import (
    EVALUATION,
    LEADS,
    SCHEMA,
    Conditions,
    catastrophic_patterns,
    catastrophic_subjects,
    hostile_leads,
    plan_of,
    python_verdicts,
    sql_verdicts,
    store,
)

# The same code again and again: tracing it all would take minutes and show nothing new.
pytestmark = [pytest.mark.req("FR-P2-003", "FR-P2-012", "SR-002"), pytest.mark.no_cover]
VERDICTS = int(os.environ.get("NEXUS_DIFFERENTIAL_VERDICTS", "500000"))
LEAD_COUNT, BATCH = 400, 50
COLUMNS = {column.name: column for column in LEADS.c}


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    if request.param == "sqlite":
        engine = sa.create_engine("sqlite://")
        sa.event.listen(engine, "connect", lambda dbapi, _record: register_sqlite_functions(dbapi))
    else:
        engine = sa.create_engine(request.getfixturevalue("postgres_url"), poolclass=sa.NullPool)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_one_answer_in_three_engines(connection):
    """So many verdicts on each database; every one is also given twice by Python."""
    rng = random.Random(f"{connection.dialect.name} 20260105")
    leads = hostile_leads(LEAD_COUNT, rng)
    store(connection, leads)
    stream = Conditions(rng)
    for _ in range(-(-VERDICTS // (LEAD_COUNT * BATCH))):
        trees = list(islice(stream, BATCH))
        expected, found = python_verdicts(trees, leads), sql_verdicts(connection, trees)
        if expected != found:
            differing = [
                (to_text(tree), leads[row])
                for row in range(LEAD_COUNT)
                for column, tree in enumerate(trees)
                if expected[row][column] is not found[row][column]
            ]
            pytest.fail(f"{len(differing)} disagreements, first: {differing[0]}")


def test_the_reference_page_is_right_in_sql(connection):
    cases = conditions_reference.CASES
    records = [dict(record) for record in {str(case.record): case.record for case in cases}.values()]
    store(connection, [{"id": number, **record} for number, record in enumerate(records)])
    for text in dict.fromkeys(case.condition for case in cases):
        tree = parse_text(text, SCHEMA)
        test = compile_condition(tree, SCHEMA, COLUMNS, connection.dialect.name, conditions_reference.EVALUATION)
        answers = list(connection.scalars(sa.select(wrap_for_select(test)).order_by(LEADS.c.id)))
        for case in cases:
            if case.condition == text:
                assert bool(answers[records.index(case.record)]) is case.answer, str(case)


def test_a_where_clause_selects_what_a_select_list_affirms(connection):
    rng = random.Random(5)
    leads = hostile_leads(100, rng)
    store(connection, leads)
    for tree in islice(Conditions(rng), 100):
        test = compile_condition(tree, SCHEMA, COLUMNS, connection.dialect.name, EVALUATION)
        selected = list(connection.scalars(sa.select(LEADS.c.id).where(test).order_by(LEADS.c.id)))
        assert selected == [number for number, row in enumerate(python_verdicts([tree], leads)) if row[0]]


def test_every_double_equals_itself_after_storage(connection):
    rng = random.Random(2)
    doubles = [value for (value,) in struct.iter_unpack("<d", rng.randbytes(160_000)) if abs(value) < 2**53]
    doubles = [value for value in doubles if not value.is_integer()][:4_000]
    store(
        connection, [{"id": number, "score": value, "metadata": {"x": value}} for number, value in enumerate(doubles)]
    )
    number = {
        "sqlite": sa.func.json_extract(LEADS.c.metadata, "$.x"),
        "postgresql": sa.cast(LEADS.c.metadata.op("->>")("x"), sa.Double),
    }[connection.dialect.name]
    for value, (score, stored) in zip(
        doubles, connection.execute(sa.select(LEADS.c.score, number).order_by(LEADS.c.id)), strict=True
    ):
        assert value == score == stored


INDEXED = [
    ("score > 50", "score"),
    ("score == 7", "score"),
    ("score in [1, 2.5]", "score"),
    ("score between 3 and 5 AND NOT name == 'x'", "score"),
    ("seats >= 2.5", "seats"),
    ("seats == 2", "seats"),
    ("seats in [1, 2]", "seats"),
    ("name == 'a'", "name"),
    ("name in ['a', 'b']", "name"),
    ("name starts_with 'ab'", "name"),
    ("name >= 'x'", "name"),
    ("email == 'A@b.c' ignoring case", "email_norm"),
    ("email starts_with 'ANN' ignoring case", "email_norm"),
    ("created_at after now() - 3 days", "created_at"),
    ("created_at between 2026-01-01 and now()", "created_at"),
    ("born == today()", "born"),
    ("born in [2026-01-01]", "born"),
    ("plan == 'pro'", "metadata"),
]
CONTAINMENT = [
    ("tags contains 'a'", "tags"),
    ("interests contains 5", "metadata"),
    ("vip == true", "metadata"),
    ("amount == 2.5", "metadata"),
]


def test_no_compiled_leaf_loses_its_index(connection):
    store(connection, hostile_leads(300, random.Random(1)))
    leaves = list(INDEXED)
    for column in ("score", "seats", "name", "email_norm", "created_at", "born"):
        connection.exec_driver_sql(f"CREATE INDEX ix_{column} ON condition_leads ({column})")
    if connection.dialect.name == "postgresql":
        leaves += CONTAINMENT
        for column in ("metadata", "tags"):
            connection.exec_driver_sql(
                f"CREATE INDEX ix_{column} ON condition_leads USING gin ({column} jsonb_path_ops)"
            )
    else:
        connection.exec_driver_sql("CREATE INDEX ix_metadata ON condition_leads (json_extract(metadata, '$.plan'))")
    for text, index in leaves:
        test = compile_condition(parse_text(text, SCHEMA), SCHEMA, COLUMNS, connection.dialect.name, EVALUATION)
        plan = plan_of(connection, sa.select(LEADS.c.country).where(test))
        assert f"ix_{index}" in plan, f"{text}\n{plan}"
        assert "SCAN condition_leads" not in plan, f"{text}\n{plan}"
        assert "Seq Scan" not in plan, f"{text}\n{plan}"


def test_catastrophic_patterns_do_not_hold_postgresql(postgres_url):
    slowest = 0.0
    with sa.create_engine(postgres_url, poolclass=sa.NullPool).connect() as connection:
        for pattern in catastrophic_patterns():
            try:
                source = postgres_source(parse(pattern))
            except PatternError:
                continue
            for subject in catastrophic_subjects():
                text = subject[:4_095] + "!"
                start = time.perf_counter()
                found = connection.scalar(sa.select(sa.literal(text).op("~")(source)))
                slowest = max(slowest, time.perf_counter() - start)
                assert found is matcher(pattern)(text)
    assert slowest < 0.25  # 10 ms on an idle machine, this one is shared
