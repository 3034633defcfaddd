"""What a file does to leads that are known: policies, keys, nulls, JSON lines; and taking it all back."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.db.models import Consent, Lead, LeadField, LeadImport, Suppression
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.imports import intake as imports
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.jobs import request_undo
from nexus_marketing.services.imports.reports import ImportReport
from nexus_marketing.services.imports.work import ImportWork
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.privacy import record_consent
from tests.common.factories import make_campaign, make_send, make_template
from tests.common.segments import create, members, settle

pytestmark = pytest.mark.req("FR-P2-009", "US-012")


@pytest.fixture
def bring_in(runtime: Runtime, tenant: int, tmp_path: Path) -> Any:
    def bring(content: str, *, dry_run: bool = False, **options: Any) -> ImportReport:
        path = tmp_path / "leads.csv"
        path.write_text(content)
        how = {"actor": SYSTEM, "dry_run": dry_run, "options": ImportOptions.read(options)}
        return import_leads(runtime, tenant, path, **how)

    return bring


def leads(runtime: Runtime, tenant: int) -> list[Lead]:
    with runtime.work(tenant, mode="read") as ctx:
        return list(ctx.session.scalars(select(Lead).where(Lead.gone_at.is_(None)).order_by(Lead.id)))


def counts(report: ImportReport) -> tuple[int, ...]:
    return report.created, report.updated, report.unchanged, report.duplicate, report.rejected


def undo(runtime: Runtime, tenant: int, report: ImportReport) -> LeadImport:
    assert report.import_id is not None
    with runtime.work(tenant) as ctx:
        request_undo(ctx, report.import_id)
    worker = ImportWork(runtime)
    while worker.turn():
        pass
    with runtime.work(tenant, mode="read") as ctx:
        row: LeadImport = ctx.session.get_one(LeadImport, (tenant, report.import_id))
        return row


def declare(runtime: Runtime, tenant: int, name: str, kind: str, **more: Any) -> None:
    with runtime.work(tenant) as ctx:
        ctx.session.add(LeadField(name=name, type=kind, created_at=ctx.now, updated_at=ctx.now, **more))


def test_each_field_has_a_policy_of_its_own(runtime, tenant, bring_in):
    declare(runtime, tenant, "seats", "number")
    declare(runtime, tenant, "since", "date")
    header = "email,name,country,tags,score,seats,since,plan\n"
    bring_in(header + "a@example.org,Old,,one,5,9,2024-01-01,old\n")
    report = bring_in(
        header + "a@example.org,New,FR,two;one,3,4,2025-01-01,new\n",
        policies={
            "name": "keep_existing",
            "country": "fill_empty",
            "tags": "append_unique",
            "score": "max",
            "metadata.seats": "min",
            "metadata.since": "max",
            "metadata.plan": "ignore",
        },
    )
    assert counts(report) == (0, 1, 0, 0, 0)
    (lead,) = leads(runtime, tenant)
    assert (lead.name, lead.country, lead.tags, lead.score) == ("Old", "FR", ["one", "two"], 5)
    assert lead.attributes == {"seats": 4, "since": "2025-01-01", "plan": "old"}


def test_a_name_and_its_parts_stay_together(runtime, tenant, bring_in):
    bring_in("email,name\na@example.org,Ann van Lee\n")
    bring_in("email,name\na@example.org,Bob\n")
    (lead,) = leads(runtime, tenant)
    assert (lead.name, lead.first_name, lead.last_name) == ("Bob", "Bob", None)
    bring_in("email,last_name\na@example.org,Stone\n")
    (lead,) = leads(runtime, tenant)
    assert (lead.name, lead.first_name, lead.last_name) == ("Bob Stone", "Bob", "Stone")


def test_only_a_marked_cell_clears_a_field(runtime, tenant, bring_in):
    bring_in("email,name,tags,score,plan\na@example.org,Ann,vip,4,pro\n")
    assert counts(bring_in("email,name,tags,score,plan\na@example.org,,,,\n")) == (0, 0, 1, 0, 0)
    bring_in("email,name,tags,score,plan\na@example.org,NULL,NULL,NULL,NULL\n", null_text="NULL")
    (lead,) = leads(runtime, tenant)
    assert (lead.name, lead.first_name, lead.tags, lead.score, lead.attributes) == (None, None, [], 0, {})


def test_a_phone_number_is_a_key_where_nothing_else_contradicts(runtime, tenant, bring_in):
    assert counts(bring_in("phone,name\n030 1234567,Ann\n", region="DE")) == (1, 0, 0, 0, 0)
    report = bring_in("phone,email,name\n+49301234567,ann@example.org,Ann Lee\n")
    assert counts(report) == (0, 1, 0, 0, 0)
    (lead,) = leads(runtime, tenant)
    assert (lead.phone, lead.email, lead.name) == ("+49301234567", "ann@example.org", "Ann Lee")
    # Another address: somebody else at the same telephone.
    assert counts(bring_in("phone,email\n+49301234567,bob@example.org\n")) == (1, 0, 0, 0, 0)
    report = bring_in("phone,name\n+49301234567,Who\n")
    assert [(error.column, error.code) for error in report.errors] == [("phone", "ambiguous_match")]


def test_two_rows_of_one_piece_may_be_one_lead(runtime, tenant, bring_in):
    bring_in("email,customer_id,phone\na@example.org,1,\n")
    report = bring_in("email,customer_id,name,plan\n,1,Ann,\na@example.org,,,pro\n")
    assert counts(report) == (0, 2, 0, 0, 0)
    (lead,) = leads(runtime, tenant)
    assert (lead.name, lead.attributes, lead.version) == ("Ann", {"plan": "pro"}, 2)
    report = bring_in("phone,name,plan\n+49301234567,Bob,\n+49301234567,,free\n")
    assert counts(report) == (1, 1, 0, 0, 0)
    assert [(each.name, each.attributes) for each in leads(runtime, tenant)][1:] == [("Bob", {"plan": "free"})]


def test_the_country_of_a_row_says_what_its_phone_number_means(runtime, tenant, bring_in):
    bring_in("email,phone,country\na@example.org,020 123 4567,NL\nb@example.org,030 1234567,\n", region="DE")
    assert [lead.phone for lead in leads(runtime, tenant)] == ["+31201234567", "+49301234567"]


def test_json_lines_come_in_with_their_types(runtime, tenant, bring_in):
    declare(runtime, tenant, "seats", "number", bounds={"min": 1})
    report = bring_in(
        '{"email": "a@example.org", "Name": "Ann Lee", "tags": ["vip"], "seats": 3, "planType": {"a": [1]}}\n'
        "\n"
        '{"externalId": "7", "phone": "030 1234567", "metadata": {"x": true}}\n'
        '{"email": "b@example.org", "seats": "3"}\n'
        '{"email": "c@example.org", "seats": 0}\n'
        '{"email": broken}\n'
        "[1]\n"
        '{"name": "Nobody"}\n',
        region="DE",
    )
    assert counts(report) == (2, 0, 0, 0, 5)
    assert [(error.row_no, error.column, error.code) for error in report.errors] == [
        (4, "metadata.seats", "wrong_type"),
        (5, "metadata.seats", "too_small"),
        (6, "row", "not_jsonl"),
        (7, "row", "not_an_object"),
        (8, "email", "required"),
    ]
    second, first = leads(runtime, tenant)
    assert (first.name, first.tags) == ("Ann Lee", ["vip"])
    assert first.attributes == {"seats": 3, "planType": {"a": [1]}}
    assert (second.external_id, second.phone, second.attributes) == ("7", "+49301234567", {"x": True})
    bring_in('{"email": "a@example.org", "name": null, "planType": null}\n')
    (_, first) = leads(runtime, tenant)
    assert (first.name, first.attributes) == (None, {"seats": 3})


def test_a_new_lead_has_what_is_required_of_one(runtime, tenant, bring_in):
    bring_in("email\nold@example.org\n")
    declare(runtime, tenant, "plan", "text", required=True, allowed=["pro", "free"])
    report = bring_in("email,plan,name\na@example.org,,A\nb@example.org,pro,B\nold@example.org,,O\nc@example.org,x,C\n")
    assert counts(report) == (1, 1, 0, 0, 2)
    assert [(error.row_no, error.code) for error in report.errors] == [(2, "required"), (5, "not_allowed")]


def test_no_file_brings_an_erased_telephone_back(runtime, tenant, bring_in):
    bring_in("phone\n+49301234567\n")
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, leads(runtime, tenant)[0].id)
    report = bring_in("phone,name\n+49301234567,Again\n+49301234568,New\n")
    assert counts(report) == (1, 0, 0, 0, 1)
    assert report.errors[0].code == "erased"


def test_a_dry_run_says_what_would_change_and_of_whom(runtime, tenant, bring_in):
    bring_in("email,name\na@example.org,Ann\nb@example.org,Bob\n")
    with runtime.work(tenant) as ctx:
        record_consent(ctx, leads(runtime, tenant)[0].id, granted=False, source="test")
    text = "email,name,consent,consent_at,consent_source\n"
    text += "a@example.org,Anna,yes,2026-01-01,form\nb@example.org,Bob,,,\nc@example.org,C,yes,2026-01-01,form\n"
    dry = bring_in(text, dry_run=True)
    assert [(each.outcome, each.fields) for each in dry.samples] == [
        ("updated", ("first_name", "name")),
        ("unchanged", ()),
        ("created", dry.samples[2].fields),
    ]
    assert (dry.consents, dry.consents_refused) == (1, 1)
    wet = bring_in(text)
    names = ("created", "updated", "unchanged", "rejected", "consents", "consents_refused")
    assert [getattr(dry, name) for name in names] == [getattr(wet, name) for name in names]


class TestUndo:
    def test_what_changed_is_put_back_and_what_was_made_goes(self, runtime, tenant, bring_in, monkeypatch):
        monkeypatch.setattr(imports, "PIECE_ROWS", {"postgresql": 2, "sqlite": 2})
        bring_in("email,customer_id,name,tags,score,plan\n" + "a@example.org,1,Ann Lee,vip,3,pro\n")
        before = _pictures(runtime, tenant)
        segment = create(runtime, tenant, conditions="metadata.plan == 'free'")
        report = bring_in(
            "email,customer_id,name,tags,score,plan,seats\n"
            "a2@example.org,1,Bob,x;y,9,free,4\n" + "".join(f"n{n}@example.org,n{n},N,,,free,\n" for n in range(5))
        )
        settle(runtime)
        assert len(members(runtime, tenant, segment)) == 6
        done = undo(runtime, tenant, report)
        assert (done.status, done.restored, done.removed, done.kept) == ("undone", 1, 5, 0)
        assert _pictures(runtime, tenant) == before
        settle(runtime)
        assert members(runtime, tenant, segment) == set()
        # The same file comes in again as if it were new.
        again = bring_in("email,customer_id\nn1@example.org,n1\n")
        assert counts(again) == (1, 0, 0, 0, 0)

    def test_what_somebody_changed_since_stays(self, runtime, tenant, bring_in):
        bring_in("email,name,country,plan\na@example.org,Ann,DE,pro\n")
        report = bring_in("email,name,country,plan\na@example.org,Bob,FR,free\nnew@example.org,New,,\n")
        old, new = leads(runtime, tenant)
        with runtime.work(tenant) as ctx:
            update_lead(ctx, old.id, {"country": "NL"})
            update_lead(ctx, new.id, {"country": "NL"})
        done = undo(runtime, tenant, report)
        assert (done.restored, done.removed, done.kept) == (1, 0, 2)
        old, new = leads(runtime, tenant)
        assert (old.name, old.country, old.attributes) == ("Ann", "NL", {"plan": "pro"})
        assert (new.name, new.country) == ("New", "NL")

    def test_a_later_import_is_not_undone_with_an_earlier_one(self, runtime, tenant, bring_in):
        bring_in("email,name\na@example.org,One\n")
        second = bring_in("email,name\na@example.org,Two\n")
        third = bring_in("email,name\na@example.org,Three\n")
        assert undo(runtime, tenant, second).kept == 1
        assert leads(runtime, tenant)[0].name == "Three"
        assert undo(runtime, tenant, third).restored == 1
        assert leads(runtime, tenant)[0].name == "Two"

    def test_who_got_a_message_stays(self, runtime, tenant, bring_in):
        report = bring_in("email\na@example.org\nb@example.org\n")
        first, second = leads(runtime, tenant)
        template = make_template(runtime, tenant)
        make_send(runtime, tenant, make_campaign(runtime, tenant, "c", template_id=template), template, [first.id])
        done = undo(runtime, tenant, report)
        assert (done.removed, done.kept) == (1, 1)
        assert [lead.id for lead in leads(runtime, tenant)] == [first.id]
        with runtime.work(tenant) as ctx:
            erase_lead(ctx, second.id)  # asked for by id, although there is nothing left to erase

    def test_an_address_that_is_another_lead_s_by_now_is_not_put_back(self, runtime, tenant, bring_in):
        bring_in("email,customer_id,name\na@example.org,1,Ann\n")
        report = bring_in("email,customer_id,name\na2@example.org,1,Anna\n")
        bring_in("email\na@example.org\n")
        done = undo(runtime, tenant, report)
        assert (done.restored, done.kept) == (1, 1)
        assert [(lead.email, lead.name) for lead in leads(runtime, tenant)] == [
            ("a2@example.org", "Ann"),
            ("a@example.org", None),
        ]

    def test_consent_of_the_file_goes_and_a_withdrawal_stays(self, runtime, tenant, bring_in):
        bring_in("email\na@example.org\nb@example.org\nc@example.org\n")
        text = "email,consent,consent_at,consent_source\n"
        rows = "a@example.org,yes,2026-01-01,form\nb@example.org,withdrawn,,\nc@example.org,yes,2026-01-01,form\n"
        report = bring_in(text + rows)
        ids = {lead.email: lead.id for lead in leads(runtime, tenant)}
        with runtime.work(tenant) as ctx:
            record_consent(ctx, ids["c@example.org"], granted=True, source="signup")
        undo(runtime, tenant, report)
        assert _granted(runtime, tenant, ids) == {"a@example.org": False, "b@example.org": False, "c@example.org": True}
        with runtime.work(tenant, mode="read") as ctx:
            assert len(ctx.session.scalars(select(Suppression)).all()) == 1
        # The mistake was the file's: mended, it may give what it gave before, but not what was withdrawn.
        mended = bring_in(text + "a@example.org,yes,2026-01-01,form\nb@example.org,yes,2026-01-01,form\n")
        assert (mended.consents, mended.consents_refused) == (1, 1)
        assert _granted(runtime, tenant, ids)["a@example.org"] is True


def _pictures(runtime: Runtime, tenant: int) -> list[tuple[Any, ...]]:
    names = (
        "id",
        "email",
        "email_norm",
        "external_id",
        "name",
        "first_name",
        "last_name",
        "tags",
        "score",
        "attributes",
    )
    return [tuple(getattr(lead, name) for name in names) for lead in leads(runtime, tenant)]


def _granted(runtime: Runtime, tenant: int, ids: dict[str, int]) -> dict[str, bool]:
    with runtime.work(tenant, mode="read") as ctx:
        acts = ctx.session.scalars(select(Consent).order_by(Consent.at, Consent.id)).all()
    last = {act.lead_id: act.granted_at is not None for act in acts}
    return {email: last[id_] for email, id_ in ids.items()}
