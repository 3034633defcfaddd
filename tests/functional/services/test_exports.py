"""Leads as files: every cell as it is, none that a spreadsheet runs, and both databases alike."""

import csv
import io

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.queries.leads import neutral_sql
from nexus_marketing.services import exports
from nexus_marketing.services.exports import export_leads, neutral
from nexus_marketing.services.lead_erasure import erase_lead
from tests.common.factories import make_leads, make_segment

pytestmark = pytest.mark.req("FR-P2-003", "US-012", "S12")

#: One of each kind of cell that a spreadsheet or a parser may trip over.
NASTY = (
    "=1+1",
    "\t=cmd|' /C calc'!A0",
    "\u00a0@SUM(A1)",
    "\uff1d1+1",
    "-5",
    "-5 or so",
    "+49301234567",
    "%0A",
    'a "quoted", word',
    "two\nlines",
    "Ümit",
    "日本",
    ";",
    "'",
)


def exported(runtime, tenant, form="csv", **options):
    out = io.StringIO()
    count = export_leads(runtime, tenant, out, actor=SYSTEM, form=form, **options)
    return count, out.getvalue()


@pytest.fixture
def leads(runtime, tenant):
    found = [
        make_leads(runtime, tenant, first=number, name=cell, tags=[cell], attributes={"x": cell})[0]
        for number, cell in enumerate(NASTY)
    ]
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, make_leads(runtime, tenant, first=100)[0])
    return found


def test_every_cell_comes_out_and_none_of_them_runs(runtime, tenant, leads, monkeypatch):
    monkeypatch.setattr(exports, "_PAGE", 5)
    count, table = exported(runtime, tenant)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert count == len(rows) == len(NASTY)
    assert [row["id"] for row in rows] == [str(each) for each in leads]
    assert [row["name"] for row in rows] == [row["tags"] for row in rows] == [neutral(cell) for cell in NASTY]
    assert [orjson.loads(row["metadata"]) for row in rows] == [{"x": cell} for cell in NASTY]
    assert {row["created_at"] for row in rows} == {"2026-03-02T10:00:00.000000Z"}
    count, lines = exported(runtime, tenant, "jsonl")
    documents = [orjson.loads(line) for line in lines.splitlines()]
    assert count == len(documents)
    assert [each["name"] for each in documents] == list(NASTY)
    assert [each["tags"] for each in documents] == [[cell] for cell in NASTY]
    assert documents[0]["created_at"] == "2026-03-02T10:00:00.000000Z"


def test_only_members_of_a_segment_come_out(runtime, tenant, leads, monkeypatch):
    monkeypatch.setattr(exports, "_PAGE", 2)
    segment = make_segment(runtime, tenant, leads[3:8])
    for form in ("csv", "jsonl"):
        assert exported(runtime, tenant, form, segment_id=segment)[0] == 5
    rows = list(csv.DictReader(io.StringIO(exported(runtime, tenant, segment_id=segment)[1])))
    assert [int(row["id"]) for row in rows] == leads[3:8]


def test_a_tenant_without_leads_gets_a_header(runtime, tenant):
    assert exported(runtime, tenant)[1].count("\n") == 1
    assert exported(runtime, tenant, "jsonl") == (0, "")


CELLS = st.text(st.sampled_from("=+-@|%\uff1d\uff0b \t\n\u00a0\u2003\u3000\u001c'a1.é\U0001f600"), max_size=6)


@given(
    st.lists(st.one_of(CELLS, st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)), max_size=30)
)
@example(list(NASTY))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_neutralises_as_we_do(postgres_only_runtime, cells):
    statement = (
        f"SELECT {neutral_sql('c.cell')} FROM unnest(CAST(:cells AS text[])) WITH ORDINALITY AS c(cell, n) ORDER BY n"
    )
    with postgres_only_runtime.engines.owner.connect() as connection:
        found = connection.execute(text(statement), {"cells": cells}).scalars().all()
    assert found == [neutral(cell) for cell in cells]
