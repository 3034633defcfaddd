"""Files of leads over REST: uploaded, tried out, brought in by workers, stopped, undone, and taken out again."""

import csv
import io
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select

from nexus_marketing.core.permissions import Permission
from nexus_marketing.db.models import Lead, LeadImport, LeadImportChange
from nexus_marketing.runtime import MemoryBlobs, Runtime
from nexus_marketing.services.imports import intake as imports
from nexus_marketing.services.imports.work import ImportWork, forget_imports
from tests.common.segments import create
from tests.functional.conftest import Client

pytestmark = pytest.mark.req("FR-P2-009", "US-012", "FR-P2-003")

PATH = "/api/v1/lead-imports"
Bring = Callable[..., Any]


@pytest.fixture
def upload(client: Client) -> Bring:
    """Upload a file."""

    def send(content: str | bytes, name: str = "people.csv", status: int = 201, **headers: str) -> Any:
        body = content if isinstance(content, bytes) else content.encode()
        sent = {**client.headers, **headers}
        return client.app.post(f"{PATH}?name={name}", body, content_type="text/csv", headers=sent, status=status).json

    return send


def work(runtime: Runtime) -> ImportWork:
    """Let a worker do all there is."""
    worker = ImportWork(runtime)
    while worker.turn():
        pass
    return worker


def show(client: Client, document: Any) -> Any:
    return client.get(f"{PATH}/{document['id']}").json


def ask(client: Client, document: Any, what: str, body: Any = None, status: int = 202) -> Any:
    return client.post(f"{PATH}/{document['id']}/{what}", body or {}, status=status).json


def leads(runtime: Runtime, tenant: int) -> dict[str, Lead]:
    with runtime.work(tenant, mode="read") as ctx:
        found = ctx.session.scalars(select(Lead).where(Lead.gone_at.is_(None)))
        return {lead.email or lead.phone or "": lead for lead in found}


def test_from_a_file_to_leads(client: Client, runtime: Runtime, tenant: int, upload: Bring) -> None:
    made = upload("E-Mail;Vorname;Plan\nann@example.org;Ann;pro\nbroken;Bob;free\n".encode("utf-8-sig"))
    assert (made["status"], made["name"], made["form"]) == ("ready", "people.csv", "csv")
    seen = made["inspection"]
    assert (seen["encoding"], seen["confidence"], seen["delimiter"], seen["problems"]) == ("utf-8", 1.0, ";", [])
    assert seen["columns"][1] == {"column": "Vorname", "target": "metadata.vorname"}
    options = {"mapping": {"Vorname": "first_name"}}

    assert ask(client, made, "check", {"options": options})["status"] == "checking"
    work(runtime)
    checked = show(client, made)
    assert (checked["status"], checked["rows_done"], leads(runtime, tenant)) == ("ready", 0, {})
    report = checked["report"]
    assert (report["rows"], report["created"], report["rejected"]) == (2, 1, 1)
    assert report["errors"] == [{"row": 3, "column": "E-Mail", "code": "not_an_email"}]
    assert report["samples"][0]["outcome"] == "created"
    assert "ann@example.org" not in str(report)

    ask(client, made, "start")
    work(runtime)
    done = show(client, made)
    assert (done["status"], done["created"], done["rejected"], done["rows_done"]) == ("completed", 1, 1, 2)
    assert leads(runtime, tenant)["ann@example.org"].first_name == "Ann"
    response = client.get(f"{PATH}/{made['id']}/errors")
    assert response.content_type == "text/csv"
    rows = list(csv.reader(io.StringIO(response.text)))
    assert rows[0] == ["row", "column", "code", "message"]
    assert rows[1][:3] == ["3", "E-Mail", "not_an_email"]
    assert isinstance(runtime.blobs, MemoryBlobs)
    assert runtime.blobs._contents == {}  # what is imported is kept once


def test_options_are_held_against_the_file_before_anything_begins(client: Client, upload: Bring) -> None:
    made = upload("email,name,name\na@example.org,A,B\n")
    assert made["inspection"]["problems"][0]["code"] == "duplicate_header"
    refused = ask(client, made, "start", status=422)
    assert refused["errors"][0]["code"] == "duplicate_header"
    made = upload("mail address,name\na@example.org,A\n")
    for options, path in (
        ({"mapping": {"nome": "name"}}, "mapping.nome"),
        ({"policies": {"name": "max"}}, "options.policies.name"),
        ({"policies": {"metadata.plan": "append_unique"}}, "policies.metadata.plan"),
        ({"mapping": {"name": "nmae"}}, "options.mapping.name"),
        ({"existing": "merge"}, "options.existing"),
        ({"region": "XX"}, "options.region"),
    ):
        refused = ask(client, made, "start", {"options": options}, status=422)
        assert refused["errors"][0]["path"] == path, options
    assert show(client, made)["status"] == "ready"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04abc", b"\x00\x01\x00\x02" * 50])
def test_what_is_no_table_is_refused_and_leaves_no_bytes(runtime: Runtime, upload: Bring, content: bytes) -> None:
    upload(content, status=422)
    assert isinstance(runtime.blobs, MemoryBlobs)
    assert runtime.blobs._contents == {}


def test_an_upload_said_twice_is_one(client: Client, upload: Bring) -> None:
    key = {"Idempotency-Key": "upload-1"}
    assert upload("email\na@example.org\n", **key)["id"] == upload("email\na@example.org\n", **key)["id"]
    assert len(client.get(PATH).json["data"]) == 1


def test_profiles_keep_options_for_the_next_file(client: Client, runtime: Runtime, tenant: int, upload: Bring) -> None:
    profiles = "/api/v1/lead-import-profiles"
    options = {"mapping": {"Kunde": "external_id"}, "policies": {"name": "keep_existing"}}
    profile = client.post(profiles, {"name": "Shop", "options": options}).json
    client.post(profiles, {"name": "Shop", "options": {}}, status=409)
    client.post(profiles, {"name": "Bad", "options": {"policies": {"name": "max"}}}, status=422)
    for name in ("One", "Two"):
        made = upload(f"Kunde,name\n7,{name}\n")
        ask(client, made, "start", {"profile_id": profile["id"]})
        work(runtime)
    (lead,) = leads(runtime, tenant).values()
    assert (lead.external_id, lead.name) == ("7", "One")
    path = f"{profiles}/{profile['id']}"
    client.patch(path, {"options": {"existing": "fill_empty"}, "version": 1})
    client.patch(path, {"name": "x", "version": 1}, status=409)
    client.delete(path, status=204)
    ask(client, upload("email\na@example.org\n"), "start", {"profile_id": profile["id"]}, status=404)


def test_consent_needs_a_scope_of_its_own(
    make_client: Callable[..., Client], runtime: Runtime, tenant: int, client: Client, upload: Bring
) -> None:
    weaker = make_client(tenant, scopes=[Permission.LEADS_READ, Permission.LEADS_WRITE])
    text = "email,consent,consent_at,consent_source\na@example.org,yes,2026-01-05,form\n"
    made = upload(text)
    refused = ask(weaker, made, "start", status=403)
    assert "consents:write" in str(refused)
    lines = upload('{"email": "a@example.org", "consent": true, "consent_at": "2026-01-05", "consent_source": "x"}\n')
    ask(weaker, lines, "start", status=403)
    ask(weaker, made, "start", {"options": {"mapping": dict.fromkeys(CONSENT, "ignore")}})
    work(runtime)
    assert show(client, made)["consents"] == 0
    ask(client, lines, "start")
    work(runtime)
    assert show(client, lines)["consents"] == 1


CONSENT = ("consent", "consent_at", "consent_source")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "PIECE_ROWS", {"postgresql": 10, "sqlite": 10})


@pytest.mark.usefixtures("small_pieces")
def test_an_import_is_stopped_and_goes_on(client: Client, runtime: Runtime, tenant: int, upload: Bring) -> None:
    made = upload("email,name\n" + "".join(f"p{n}@example.org,P{n}\n" for n in range(45)))
    ask(client, made, "start")
    worker = ImportWork(runtime)
    worker.turn()
    worker.turn()
    assert (show(client, made)["rows_done"], show(client, made)["status"]) == (20, "running")
    assert ask(client, made, "cancel", status=200)["status"] == "cancelled"
    worker.turn()
    assert worker.turn() == 0
    assert len(leads(runtime, tenant)) == 20
    ask(client, made, "cancel", status=409)
    ask(client, made, "check", status=409)
    ask(client, made, "start", {"options": {"existing": "fill_empty"}}, status=409)
    ask(client, made, "start")
    work(runtime)
    assert (show(client, made)["status"], show(client, made)["created"]) == ("completed", 45)
    assert len(leads(runtime, tenant)) == 45


@pytest.mark.usefixtures("small_pieces")
def test_another_worker_goes_on_where_one_died(
    client: Client, runtime: Runtime, tenant: int, upload: Bring, clock: Any
) -> None:
    made = upload("email,name\n" + "".join(f"p{n}@example.org,P{n}\n" for n in range(45)))
    ask(client, made, "start")
    dead = ImportWork(runtime)
    dead.turn()
    second = ImportWork(runtime)
    assert second.turn() == 0  # the first may still be at it
    clock.advance(seconds=31)
    while second.turn():
        pass
    done = show(client, made)
    assert (done["status"], done["created"], done["rows_done"]) == ("completed", 45, 45)
    assert dead.turn() <= 1  # finds out that it is no longer its own
    assert len(leads(runtime, tenant)) == 45
    assert show(client, made) == done


@pytest.mark.usefixtures("small_pieces")
def test_a_worker_that_stops_gives_its_imports_back(client: Client, runtime: Runtime, upload: Bring) -> None:
    made = upload("email\n" + "".join(f"p{n}@example.org\n" for n in range(45)))
    ask(client, made, "start")
    worker = ImportWork(runtime)
    worker.turn()
    worker.close()
    work(runtime)
    assert show(client, made)["status"] == "completed"


@pytest.mark.usefixtures("small_pieces")
def test_big_files_do_not_keep_small_ones_waiting(client: Client, runtime: Runtime, upload: Bring) -> None:
    text = "email\n" + "".join(f"p{n}@example.org\n" for n in range(60))
    big = [upload(text) for _ in range(4)]
    for made in big:
        ask(client, made, "start")
    worker = ImportWork(runtime)
    assert worker.turn() == 3  # of one tenant
    small = upload("email\nsmall@example.org\n")
    ask(client, small, "start")
    work(runtime)
    while worker.turn():
        pass
    work(runtime)
    assert {show(client, made)["status"] for made in [*big, small]} == {"completed"}


def test_a_file_that_is_gone_fails_the_import_with_its_reason(client: Client, runtime: Runtime, upload: Bring) -> None:
    made = upload("email\na@example.org\n")
    ask(client, made, "start")
    assert isinstance(runtime.blobs, MemoryBlobs)
    runtime.blobs._contents.clear()
    work(runtime)
    failed = show(client, made)
    assert failed["status"] == "failed"
    assert "upload it again" in failed["error"]


def test_uploads_and_traces_are_forgotten_in_time(
    client: Client, runtime: Runtime, tenant: int, upload: Bring, clock: Any
) -> None:
    idle = upload("email\na@example.org\n")
    done = upload("email,name\na@example.org,A\nb\n")
    ask(client, done, "start")
    work(runtime)
    again = upload("email,name\na@example.org,B\n")
    ask(client, again, "start")
    work(runtime)
    clock.advance(days=8)
    forget_imports(runtime)
    assert show(client, idle)["status"] == "cancelled"
    ask(client, idle, "start", status=410)
    assert isinstance(runtime.blobs, MemoryBlobs)
    assert runtime.blobs._contents == {}
    clock.advance(days=30)
    while forget_imports(runtime):
        pass
    assert ask(client, again, "undo", status=410)["code"] == "gone"
    assert client.get(f"{PATH}/{done['id']}/errors").text.splitlines() == ["row,column,code,message"]
    with runtime.work(tenant, mode="read") as ctx:
        assert ctx.session.scalar(select(func.count()).select_from(LeadImportChange)) == 0
        rows = ctx.session.scalars(select(LeadImport)).all()
        assert {row.traces_until for row in rows} == {None}


def test_exports_stream_what_there_is_and_are_audited(client: Client, runtime: Runtime, tenant: int) -> None:
    for number in range(3):
        client.post("/api/v1/leads", {"email": f"p{number}@example.org", "name": f"=P{number}"})
    response = client.get("/api/v1/lead-exports")
    assert response.content_type == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="leads.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["name"] for row in rows] == ["'=P0", "'=P1", "'=P2"]
    lines = client.get("/api/v1/lead-exports?format=jsonl").text.splitlines()
    assert [orjson.loads(line)["name"] for line in lines] == ["=P0", "=P1", "=P2"]
    segment = create(runtime, tenant, conditions="name == '=P1'")
    client.get("/api/v1/lead-exports?format=xml", status=422)
    client.get("/api/v1/lead-exports?segment_id=987654", status=404)
    assert client.get(f"/api/v1/lead-exports?segment_id={segment}").status_int == 200
