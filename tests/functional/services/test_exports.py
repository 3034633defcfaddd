"""Leads as files: every cell as it is, none that a spreadsheet runs, and both databases alike."""

import csv
import io

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import ImportOptions, joined_tags, neutral
from nexus_marketing.core.audience.exporting import OURS, restored
from nexus_marketing.db.queries.leads import neutral_sql
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.leads import exports
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.exports import export_leads
from nexus_marketing.services.leads.records import create_lead
from tests.common.factories import make_leads, make_segment, make_tenant

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
    "'=1",
    "''+2",
    "'-5",
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
    assert [row["name"] for row in rows] == [neutral(cell) for cell in NASTY]
    assert [row["tags"] for row in rows] == [neutral(joined_tags([cell])) for cell in NASTY]
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


@given(st.one_of(CELLS, st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)))
@example("'=1")
@example("''-5")
def test_what_was_neutralised_can_be_taken_back(cell):
    assert restored(neutral(cell)) == cell


class TestRoundTrip:
    """What we wrote comes in again as it was: nothing changes where it came from, nothing is lost elsewhere."""

    def bring_in(self, runtime, tenant, path, text, **options):
        path.write_text(text, encoding="utf-8", newline="")
        found = import_leads(runtime, tenant, path, actor=SYSTEM, options=ImportOptions.read(options))
        assert found.errors == []
        return found

    #: Leads as the product takes them in.
    LEADS = (
        {"name": "=1+1", "tags": ["=1+1", "-5"], "metadata": {"x": "=1+1"}},
        {"name": "'=1+1", "tags": ["'=1+1"], "external_id": "''+2"},
        {"name": "@SUM(A1)", "external_id": "=crm", "tags": ["[x]", "y"]},
        {"name": "'t Hooft", "phone": "+4930123456", "country": "DE", "time_zone": "Europe/Berlin"},
        {"name": 'Ümit, "the" 日本', "tags": ["a", "b;c", "d"], "metadata": {"deep": {"er": [1, None]}, "n": 1.5}},
        {"first_name": "Ada", "last_name": "Lovelace", "locale": "en-GB", "metadata": {"yes": True}},
    )

    @pytest.fixture
    def full(self, runtime, tenant):
        with runtime.work(tenant) as ctx:
            for number, each in enumerate(self.LEADS):
                create_lead(ctx, {"email": f"p{number}@example.org", **each})
            create_lead(ctx, {"phone": "+4930765432"})

    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_nothing_changes_where_it_came_from(self, runtime, tenant, full, tmp_path, form):
        text = exported(runtime, tenant, form)[1]
        report = self.bring_in(runtime, tenant, tmp_path / f"leads.{form}", text)
        assert (report.unchanged, report.created, report.updated) == (len(self.LEADS) + 1, 0, 0)
        assert exported(runtime, tenant, form)[1] == text

    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_nothing_is_lost_elsewhere(self, runtime, tenant, full, tmp_path, form):
        other = make_tenant(runtime, "other")
        report = self.bring_in(runtime, other, tmp_path / f"leads.{form}", exported(runtime, tenant, form)[1])
        assert report.created == len(self.LEADS) + 1

        def known(tenant_id):
            lines = exported(runtime, tenant_id, "jsonl")[1].splitlines()
            return sorted(
                (self.without_ours(orjson.loads(line)) for line in lines), key=lambda each: each["email"] or ""
            )

        assert known(other) == known(tenant)

    def without_ours(self, lead):
        return {name: value for name, value in lead.items() if name not in OURS}

    def test_a_mapping_decides_otherwise(self, runtime, tenant, full, tmp_path):
        other = make_tenant(runtime, "other")
        mapping = {"id": "metadata.old_id", "metadata": "ignore"}
        self.bring_in(runtime, other, tmp_path / "leads.csv", exported(runtime, tenant)[1], mapping=mapping)
        leads = [orjson.loads(line) for line in exported(runtime, other, "jsonl")[1].splitlines()]
        assert {frozenset(lead["metadata"]) for lead in leads} == {frozenset({"old_id"})}

    def test_files_of_others_keep_their_apostrophes_and_ids(self, runtime, tenant, tmp_path):
        self.bring_in(runtime, tenant, tmp_path / "leads.csv", "email,name,id\na@example.org,'=x,7\n")
        (lead,) = map(orjson.loads, exported(runtime, tenant, "jsonl")[1].splitlines())
        assert (lead["name"], lead["metadata"]) == ("'=x", {"id": "7"})

    def test_tags_of_others_that_begin_with_a_bracket_stay_tags(self, runtime, tenant, tmp_path):
        text = 'email,tags\na@example.org,[1]\nb@example.org,[x] y\nc@example.org,"[""k, l"",""m""]"\n'
        self.bring_in(runtime, tenant, tmp_path / "leads.csv", text)
        leads = map(orjson.loads, exported(runtime, tenant, "jsonl")[1].splitlines())
        assert [lead["tags"] for lead in leads] == [["[1]"], ["[x] y"], ["k, l", "m"]]

    def test_a_cell_of_metadata_that_is_no_object_is_told(self, runtime, tenant, tmp_path):
        (tmp_path / "leads.csv").write_text("email,metadata\na@example.org,gold\nb@example.org,\n")
        report = import_leads(runtime, tenant, tmp_path / "leads.csv", actor=SYSTEM)
        assert [(each.row_no, each.column, each.code) for each in report.errors] == [(2, "metadata", "not_an_object")]
        assert report.created == 1
