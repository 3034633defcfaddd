"""Files of leads on both databases: what comes in, what does not and why, and what survives a kill."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from nexus_marketing.core.actors import SYSTEM, Actor
from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.core.errors import Conflict, PermissionDenied, ValidationError
from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import AuditEntry, Consent, Lead, LeadImport, LeadImportError, Suppression, Tenant
from nexus_marketing.services.imports import intake as imports
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.reports import ImportReport
from nexus_marketing.services.leads.erasure import erase_lead
from nexus_marketing.services.leads.records import create_lead
from nexus_marketing.services.privacy import record_consent, unsubscribe
from tests.common.segments import changes, create, members, settle

pytestmark = pytest.mark.req("FR-P2-009", "US-012")


@pytest.fixture
def bring_in(runtime, tenant, tmp_path):
    """Write a file and import it."""

    def bring(content: str | bytes, tenant_id: int = tenant, name: str = "leads.csv", **options) -> ImportReport:
        path: Path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        how = {name: options.pop(name) for name in ("dry_run", "on_progress") if name in options}
        return import_leads(runtime, tenant_id, path, actor=SYSTEM, options=ImportOptions.read(options), **how)

    return bring


def leads(runtime, tenant_id: int) -> dict[str, Lead]:
    with runtime.work(tenant_id, mode="read") as ctx:
        return {lead.email: lead for lead in ctx.session.scalars(select(Lead))}


def counts(report: ImportReport) -> tuple[int, ...]:
    return report.created, report.updated, report.unchanged, report.duplicate, report.rejected


def test_rows_become_leads_with_every_kind_of_field(runtime, tenant, bring_in):
    report = bring_in(
        "E-Mail,Full Name,Country,Language,Timezone,Phone,Tags,Score,Plan\n"
        "Ann@Example.ORG,Ann van Lee,nl,nl_NL,Europe/Amsterdam,+31 20 123 4567,vip;beta,12.5,pro\n"
    )
    assert counts(report) == (1, 0, 0, 0, 0)
    assert report.mapping["Plan"] == "metadata.plan"
    lead = leads(runtime, tenant)["Ann@example.org"]
    assert (lead.email_norm, lead.name, lead.first_name, lead.last_name) == (
        "ann@example.org",
        "Ann van Lee",
        "Ann",
        "van Lee",
    )
    assert (lead.country, lead.locale, lead.time_zone, lead.phone) == (
        "NL",
        "nl-NL",
        "Europe/Amsterdam",
        "+31201234567",
    )
    assert (lead.tags, lead.score, lead.attributes, lead.version) == (["vip", "beta"], 12.5, {"plan": "pro"}, 1)


def test_importing_again_changes_nothing_and_writes_nothing(runtime, tenant, bring_in, clock):
    text = "email,name,plan\na@example.org,A One,x\nb@example.org,B Two,y\n"
    bring_in(text)
    clock.advance(days=1)
    before = leads(runtime, tenant)
    assert counts(bring_in(text)) == (0, 0, 2, 0, 0)
    after = leads(runtime, tenant)
    assert {key: (lead.version, lead.updated_at) for key, lead in before.items()} == {
        key: (lead.version, lead.updated_at) for key, lead in after.items()
    }


def test_an_update_keeps_what_the_file_does_not_say(runtime, tenant, bring_in):
    bring_in("email,name,country,plan,tags\na@example.org,A One,DE,x,vip\n")
    report = bring_in("email,name,country,seats,tags\nA@example.org,A Two,,5,\n")
    assert counts(report) == (0, 1, 0, 0, 0)
    lead = leads(runtime, tenant)["A@example.org" if "A@example.org" in leads(runtime, tenant) else "a@example.org"]
    assert (lead.name, lead.country, lead.attributes, lead.tags, lead.version) == (
        "A Two",
        "DE",
        {"plan": "x", "seats": "5"},
        ["vip"],
        2,
    )


@pytest.mark.parametrize(
    ("existing", "name", "country", "plan"),
    [("overwrite", "New", "FR", "new"), ("fill_empty", "Old", "FR", "old"), ("keep_existing", "Old", None, "old")],
)
def test_the_policy_decides_who_wins(runtime, tenant, bring_in, existing, name, country, plan):
    bring_in("email,name,plan\na@example.org,Old,old\n")
    bring_in("email,name,country,plan\na@example.org,New,FR,new\n", existing=existing)
    lead = leads(runtime, tenant)["a@example.org"]
    assert (lead.name, lead.country, lead.attributes["plan"]) == (name, country, plan)


def test_bad_rows_are_kept_out_and_told_one_by_one(runtime, tenant, bring_in):
    report = bring_in(
        "email,name,country,time_zone,score\n"
        "good@example.org,Good,DE,Europe/Berlin,1\n"
        "not an address,X,DE,,\n"
        ",Nobody,DE,,\n"
        '"evil@example.org","Eve\r\nBcc: all@example.org",DE,,\n'
        "uk@example.org,U,UK,,\n"
        "zone@example.org,Z,DE,Mars/Base,\n"
        "score@example.org,S,DE,,1e400\n"
        "short@example.org,T\n"
        "GOOD@example.org,Again,DE,,\n"
    )
    assert counts(report) == (1, 0, 0, 1, 7)
    assert [(error.row_no, error.column, error.code) for error in report.errors] == [
        (3, "email", "not_an_email"),
        (4, "email", "required"),
        (5, "name", "control_character"),
        (6, "country", "not_a_country"),
        (7, "time_zone", "not_a_time_zone"),
        (8, "score", "not_a_number"),
        (9, "row", "wrong_width"),
    ]
    assert list(leads(runtime, tenant)) == ["good@example.org"]
    with runtime.work(tenant, mode="read") as ctx:
        stored = ctx.session.scalars(select(LeadImportError).order_by(LeadImportError.row_no)).all()
    assert [(row.row_no, row.code) for row in stored] == [(e.row_no, e.code) for e in report.errors]
    assert all(len(row.message) > 20 for row in stored)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("email;name\na@example.org;Jürgen Groß\n".encode("latin-1"), "cp1252"),
        ("email;name\na@example.org;Jürgen Groß\n".encode("utf-8-sig"), "utf-8"),
        ("email;name\na@example.org;Jürgen Groß\n".encode(), "utf-8"),
        ("email\tname\r\na@example.org\tJürgen Groß\r\n".encode("utf-16"), "utf-16-le"),
        (b"\xfe\xff" + "sep=;\nemail;name\na@example.org;Jürgen Groß\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_encodings_and_delimiters_are_found_out(runtime, tenant, bring_in, content, encoding):
    report = bring_in(content)
    assert (report.encoding, counts(report)) == (encoding, (1, 0, 0, 0, 0))
    assert report.encoding_confidence == (1.0 if encoding.startswith("utf") else 0.7)
    assert leads(runtime, tenant)["a@example.org"].name == "Jürgen Groß"


def test_one_damaged_row_of_a_utf8_file_is_rejected_alone(runtime, tenant, bring_in):
    good = "".join(f"p{n}@example.org,Zoë {n}\n" for n in range(20)).encode()
    report = bring_in(b"email,name\n" + good + b"bad@example.org,Zo\xeb\n")
    assert counts(report) == (20, 0, 0, 0, 1)
    assert report.errors[0].code == "not_utf8"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "email,name,E-Mail\na@example.org,A,b@example.org\n",
            r"Columns 1 \('email'\) and 3 \('E-Mail'\) both mean email",
        ),
        ("name,city\nA,B\n", "No column says who a row is: the header is 'name', 'city'"),
        ("email,,x\na@example.org,,\n", "Column 2 has no name"),
        ("email,consent\na@example.org,yes\n", "add a column consent_at"),
        ("", "is empty"),
        (b"PK\x03\x04rest", "save it as CSV"),
        ("email\na@example.org\n".encode("utf-16-le"), "UTF-16 without a mark"),
        (",".join(f"c{n}" for n in range(501)), "501 columns, at most 500"),
    ],
)
def test_a_file_that_cannot_come_in_says_what_where_and_what_to_do(runtime, tenant, bring_in, content, said):
    with pytest.raises(ValidationError, match=said):
        bring_in(content)
    assert leads(runtime, tenant) == {}


def test_a_missing_file_is_named(runtime, tenant):
    with pytest.raises(ValidationError, match=r"no file 'nowhere\.csv'"):
        import_leads(runtime, tenant, "nowhere.csv", actor=SYSTEM)


def test_a_dry_run_tells_the_same_and_writes_nothing(runtime, tenant, bring_in):
    bring_in("email,name\na@example.org,A\nb@example.org,B\n")
    with runtime.work(tenant) as ctx:
        unsubscribe(ctx, leads(runtime, tenant)["b@example.org"].id, source="page")
    text = "email,name\na@example.org,A\nb@example.org,Bea\nc@example.org,C\nC@example.org,C\nx,X\n"
    rehearsal = bring_in(text, dry_run=True)
    assert rehearsal.import_id is None
    assert rehearsal.suppressed == 1
    assert len(leads(runtime, tenant)) == 2
    real = bring_in(text)
    assert counts(rehearsal) == counts(real) == (1, 1, 1, 1, 1)
    assert rehearsal.errors == real.errors


def test_a_killed_import_goes_on_where_it_stopped(runtime, tenant, bring_in, monkeypatch):
    monkeypatch.setattr(imports, "PIECE_ROWS", {"postgresql": 10, "sqlite": 10})
    rows = [f"p{n}@example.org,P {n}" for n in range(95)]
    rows[41] = "p3@example.org,again"
    rows[52] = "broken,row"
    text = "email,name\n" + "\n".join(rows) + "\n"
    done: list[int] = []

    def die_after_five(progress):
        done.append(progress.rows)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_in(text, on_progress=die_after_five)
    with runtime.work(tenant, mode="read") as ctx:
        row = ctx.session.scalars(select(LeadImport)).one()
        assert (row.status, row.row_count) == ("running", 50)
        assert text.encode()[: row.byte_offset].count(b"\n") == 51
    report = bring_in(text)
    assert (report.resumed_at, report.import_id) == (50, row.id)
    assert counts(report) == (93, 0, 0, 1, 1)
    assert len(leads(runtime, tenant)) == 93
    with runtime.work(tenant, mode="read") as ctx:
        row = ctx.session.scalars(select(LeadImport)).one()
        assert (row.status, row.row_count, row.byte_offset) == ("completed", 95, len(text))


def test_two_processes_do_not_import_one_file_twice(runtime, tenant, bring_in, monkeypatch):
    monkeypatch.setattr(imports, "PIECE_ROWS", {"postgresql": 10, "sqlite": 10})
    text = "email\n" + "".join(f"p{n}@example.org\n" for n in range(30))

    def meanwhile(progress):
        if progress.rows == 10:
            bring_in(text)

    with pytest.raises(Conflict, match="Another process"):
        bring_in(text, on_progress=meanwhile)
    assert len(leads(runtime, tenant)) == 30


def test_duplicates_are_found_across_pieces(runtime, tenant, bring_in, monkeypatch):
    monkeypatch.setattr(imports, "PIECE_ROWS", {"postgresql": 3, "sqlite": 3})
    report = bring_in("email,name\n" + "".join(f"p{n % 7}@example.org,N{n}\n" for n in range(20)))
    assert counts(report) == (7, 0, 0, 13, 0)
    assert leads(runtime, tenant)["p0@example.org"].name == "N0"


def test_external_ids_match_before_addresses(runtime, tenant, bring_in):
    bring_in("email,customer_id\na@example.org,1\nb@example.org,2\nc@example.org,\n")
    report = bring_in(
        "email,customer_id,name\n"
        "new-a@example.org,1,A moved\n"
        "b@example.org,1x,B of somebody else\n"
        "a2@example.org,2,B moved\n"
        "c@example.org,3,C named\n"
        "d@example.org,4,D\n"
    )
    assert counts(report) == (1, 3, 0, 0, 1)
    assert report.errors[0].code == "ambiguous_match"
    found = {lead.external_id: (email, lead.name) for email, lead in leads(runtime, tenant).items()}
    assert found == {
        "1": ("new-a@example.org", "A moved"),
        "2": ("a2@example.org", "B moved"),
        "3": ("c@example.org", "C named"),
        "4": ("d@example.org", "D"),
    }


def test_declared_fields_are_converted_and_held_to(runtime, tenant, bring_in):
    with runtime.work(None, role="owner") as ctx:
        ctx.session.get(Tenant, tenant).settings = {
            "fields": {"orders": "number", "since": "date", "active": "boolean"}
        }
    report = bring_in("email,orders,since,active\na@example.org,12,2026-01-31,yes\nb@example.org,many,2026-02-30,\n")
    assert counts(report) == (1, 0, 0, 0, 1)
    assert leads(runtime, tenant)["a@example.org"].attributes == {"orders": 12, "since": "2026-01-31", "active": True}
    assert report.errors[0].column == "orders"


CONSENT = "email,consent,consent_at,consent_source,consent_ip\n"


def test_consent_comes_with_its_evidence_and_once(runtime, tenant, bring_in):
    text = CONSENT + "a@example.org,yes,2025-11-02T10:00:00Z,web form,192.0.2.7\nb@example.org,no,,,\n"
    assert bring_in(text).consents == 1
    bring_in(text)
    with runtime.work(tenant, mode="read") as ctx:
        consent = ctx.session.scalars(select(Consent)).one()
        assert (consent.source, consent.ip_address, consent.granted_at.isoformat()) == (
            "web form",
            "192.0.2.7",
            "2025-11-02T10:00:00+00:00",
        )
        assert len(consent.evidence["file_sha256"]) == 64


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("a@example.org,yes,,web form,", "no_consent_evidence"),
        ("a@example.org,yes,2025-11-02,,", "no_consent_evidence"),
        ("a@example.org,yes,2099-01-01,web form,", "out_of_bounds"),
        ("a@example.org,yes,yesterday,web form,", "not_a_datetime"),
        ("a@example.org,perhaps,2025-11-02,web form,", "not_a_consent"),
        ("a@example.org,yes,2025-11-02,web form,999.1.1.1", "not_an_ip_address"),
    ],
)
def test_consent_without_proof_keeps_the_row_out(runtime, tenant, bring_in, row, code):
    report = bring_in(CONSENT + row + "\n")
    assert [error.code for error in report.errors] == [code]
    assert leads(runtime, tenant) == {}


def test_no_file_undoes_an_unsubscribe_or_a_withdrawal(runtime, tenant, bring_in):
    with runtime.work(tenant) as ctx:
        gone = create_lead(ctx, {"email": "gone@example.org"}).id
        unsubscribe(ctx, gone, source="one_click")
        quiet = create_lead(ctx, {"email": "quiet@example.org"}).id
        record_consent(ctx, quiet, granted=False, source="phone")
    report = bring_in(CONSENT + "gone@example.org,yes,2026-01-05,list,\nquiet@example.org,yes,2026-01-05,list,\n")
    assert (report.consents, report.consents_refused) == (0, 2)
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalar(select(func.count()).where(Suppression.lifted_at.is_not(None))) == 0
        assert ctx.session.scalar(select(func.count()).where(Consent.granted_at.is_not(None))) == 0


def test_a_file_may_add_withdrawals(runtime, tenant, bring_in):
    text = CONSENT + "a@example.org,unsubscribed,2025-12-01,old system,\n"
    bring_in(text)
    bring_in(text)
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalar(select(func.count()).select_from(Suppression)) == 1
        assert ctx.session.scalars(select(Consent)).one().revoked_at is not None


def test_audit_counts_pieces_and_names_nobody(runtime, tenant, bring_in):
    bring_in("email,name\nann@example.org,Ann Lee\n")
    with runtime.work(tenant, mode="read") as ctx:
        rows = ctx.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [row.action for row in rows] == ["import.started", "leads.imported", "import.completed"]
    assert rows[1].body["count"]["after"] == 1
    assert len(rows[1].body["manifest"]["after"]) == 64
    assert "ann" not in str([row.body for row in rows]).lower()


def test_two_tenants_may_hold_the_same_person(runtime, tenant, other_tenant, bring_in):
    text = "email\nann@example.org\n"
    assert counts(bring_in(text)) == counts(bring_in(text, other_tenant)) == (1, 0, 0, 0, 0)


def test_a_key_without_the_scope_may_not_import(runtime, tenant, tmp_path):
    reader = Actor("key:1", frozenset({Permission.LEADS_READ}))
    with pytest.raises(PermissionDenied):
        import_leads(runtime, tenant, tmp_path / "x.csv", actor=reader)


def test_an_unclosed_quote_costs_its_row_only(runtime, tenant, bring_in):
    rows = "".join(f"p{n}@example.org,{'x' * 100}\n" for n in range(2_000))
    report = bring_in('email,name\na@example.org,A\nb@example.org,"B\n' + rows)
    assert report.created >= 1
    assert report.errors[0].row_no == 3
    assert "quote" in report.errors[0].message
    assert report.created + report.duplicate + report.rejected == report.rows


@pytest.mark.req("D04", "FR-P3-008")
def test_no_file_brings_back_who_was_erased(runtime, tenant, bring_in):
    report = bring_in("email,name\nann@example.org,Ann\nbob@example.org,Bob\n")
    with runtime.work(tenant) as ctx:
        erase_lead(ctx, leads(runtime, tenant)["ann@example.org"].id)
    again = "email,name\nANN@Example.org,Ann\nbob@example.org,Bob\ncy@example.org,Cy\n"
    for dry_run in (True, False):
        report = bring_in(again, dry_run=dry_run)
        assert (report.created, report.unchanged, report.rejected) == (1, 1, 1)
        assert [(error.row_no, error.column, error.code) for error in report.errors] == [(2, "email", "erased")]
    with runtime.work(tenant) as ctx:
        create_lead(ctx, {"email": "ann@example.org"})  # she came back by herself
    report = bring_in("email,name\nann@example.org,Ann Lee\n")
    assert (report.updated, report.rejected) == (1, 0)


@pytest.mark.req("FR-P2-012", "BR-013")
def test_segments_follow_an_import_piece_by_piece(runtime, tenant, bring_in):
    segment_id = create(runtime, tenant, conditions="country == 'DE'")
    settle(runtime)
    bring_in("email,country\nann@example.org,DE\nbob@example.org,FR\n")
    settle(runtime)
    assert members(runtime, tenant, segment_id) == {leads(runtime, tenant)["ann@example.org"].id}
    assert {cause for _, _, cause in changes(runtime, tenant, segment_id)} == {"change"}
