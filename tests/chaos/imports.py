"""Killing workers in the middle of a file: it must come in as if nobody had died (issue of leads: killed 20 times)."""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.builtins.blobs.files import FileBlobs
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import AT_WORK, ImportOptions
from nexus_marketing.db.models import Lead, LeadImport, LeadImportError, LeadImportPiece, Tenant
from nexus_marketing.runtime import Runtime, new_blob_key
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.jobs import look_at, request_start, upload
from nexus_marketing.services.imports.reports import COUNTS
from nexus_marketing.services.imports.writing import ids_of
from tests.chaos.stage import Stage, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict
from tests.common.servers import PostgresCluster

_SECONDS_AT_MOST: Final = 600.0
_OPTIONS: Final = ImportOptions.read({"policies": {"tags": "append_unique", "score": "max"}})
_KNOWN: Final = 500


def import_kill(servers: Servers, plan: Plan) -> Verdict:
    """SIGKILL the worker in the middle of a file of leads, on both databases; it ends as if nobody had died."""
    verdict = Verdict("import_kill")
    for target, size in ((servers.cluster, 2_000), (None, 1_000)):
        rows = (2 * plan.faults + 5) * size
        killed, lost, different, complaints = play(target, plan.faults, rows, plan.seed)
        verdict.injected += killed
        verdict.planned += rows
        verdict.lost += lost
        verdict.duplicated += different
        verdict.complaints += complaints
        if killed < plan.faults:
            verdict.complaints.append(f"only {killed} of {plan.faults} kills fell into the file")
    if verdict.lost or verdict.duplicated:
        verdict.complaints.append(f"{verdict.lost} leads are missing, {verdict.duplicated} are not as they should be")
    return verdict


def play(cluster: PostgresCluster | None, kills: int, rows: int, seed: int) -> tuple[int, int, int, list[str]]:
    """Kill workers that bring a file in; how often, leads missing, leads that are not as they should be, complaints.

    Args:
        cluster: PostgreSQL, or SQLite without.
        kills: of worker processes, at random moments of the file.
        rows: of the file; every pause between two kills writes at least one piece.
    """
    rng = random.Random(seed)
    with open_stage(cluster, audience=0, reply_delay_seconds=0) as stage:
        settings = {**stage.settings, "nexus.lease_seconds": "1"}
        stage.settings = settings
        runtime = replace(stage.runtime, blobs=FileBlobs(stage.folder / "state" / "blobs"))
        path = stage.folder / "people.csv"
        _write(path, rows, rng)
        calm = _other_tenant(runtime)
        for tenant_id in (stage.tenant_id, calm):
            _known_leads(runtime, tenant_id, stage.folder)
        wanted = import_leads(runtime, calm, path, actor=SYSTEM, options=_OPTIONS)
        import_id = _begin(runtime, stage.tenant_id, path)
        killed = _kill(stage, runtime, import_id, kills, rng)
        return _judge(
            runtime, stage.tenant_id, import_id, calm, killed, {name: getattr(wanted, name) for name in COUNTS}
        )


def _write(path: Path, rows: int, rng: random.Random) -> None:
    """Ordinary rows, known leads, doubles, and rows that are wrong."""
    with path.open("w", encoding="utf-8") as file:
        file.write("email,name,customer_id,tags,score,plan\n")
        for number in range(rows):
            email = f"p{number}@inbox.example" if rng.random() > 0.01 else "not an address"
            if rng.random() < 0.02:
                email = f"p{rng.randrange(max(number, 1))}@inbox.example"
            customer = f"c{number}" if rng.random() < 0.5 else ""
            file.write(f"{email},Person {number},{customer},t{number % 7};vip,{number % 50},{'abc'[number % 3]}\n")


def _other_tenant(runtime: Runtime) -> int:
    with runtime.work(None, role="owner") as ctx:
        tenant = Tenant(slug="calm", name="Calm", settings={}, created_at=ctx.now)
        ctx.session.add(tenant)
        ctx.session.flush()
        return int(tenant.id)


def _known_leads(runtime: Runtime, tenant_id: int, folder: Path) -> None:
    path = folder / "known.csv"
    lines = (f"p{7 * number}@inbox.example,Old {number},{number % 90},old\n" for number in range(_KNOWN))
    path.write_text("email,name,score,tags\n" + "".join(lines), encoding="utf-8")
    import_leads(runtime, tenant_id, path, actor=SYSTEM)


def _begin(runtime: Runtime, tenant_id: int, path: Path) -> int:
    key = new_blob_key(tenant_id)
    with path.open("rb") as file:
        runtime.blobs.put(key, file)
    with runtime.work(tenant_id) as ctx:
        row = upload(ctx, look_at(path, ImportOptions()), name=path.name, blob_key=key)
        request_start(ctx, row.id, _OPTIONS)
        return row.id


def _kill(stage: Stage, runtime: Runtime, import_id: int, kills: int, rng: random.Random) -> int:
    """Let workers come and go until the import has ended; how many were killed while it was running."""
    killed = 0
    deadline = time.monotonic() + _SECONDS_AT_MOST
    while time.monotonic() < deadline:
        worker = stage.start_worker()
        begun_at = _state(runtime, stage.tenant_id, import_id)[1]
        while time.monotonic() < deadline:
            status, rows_done = _state(runtime, stage.tenant_id, import_id)
            if status not in AT_WORK:
                return killed
            if killed < kills and rows_done > begun_at:
                time.sleep(rng.random() * 0.05)
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                killed += 1
                break
            time.sleep(0.005)
    return killed


def _state(runtime: Runtime, tenant_id: int, import_id: int) -> tuple[str, int]:
    with runtime.work(tenant_id, mode="read") as ctx:
        row = ctx.session.get_one(LeadImport, (tenant_id, import_id))
        return row.status, row.row_count


def _judge(
    runtime: Runtime, tenant_id: int, import_id: int, calm: int, killed: int, wanted: dict[str, int]
) -> tuple[int, int, int, list[str]]:
    complaints = []
    with runtime.work(tenant_id, mode="read") as ctx:
        row = ctx.session.get_one(LeadImport, (tenant_id, import_id))
        found = {name: getattr(row, name) for name in COUNTS}
        if row.status != "completed":
            complaints.append(f"the import is {row.status}: {row.error}")
        pieces = ctx.session.scalars(select(LeadImportPiece).where(LeadImportPiece.import_id == import_id)).all()
        made = [id_ for piece in pieces for id_ in ids_of(piece.created)]
    if found != wanted:
        complaints.append(f"counted {found}, unkilled {wanted}")
    if len(made) != len(set(made)) or len(made) != found["created"]:
        complaints.append(f"traces name {len(set(made))} leads, {found['created']} were created")
    ours, theirs = _picture(runtime, tenant_id), _picture(runtime, calm)
    if _rejected(runtime, tenant_id) != _rejected(runtime, calm):
        complaints.append("other rows were rejected")
    lost = len(theirs.keys() - ours.keys())
    different = len(ours.keys() - theirs.keys()) + sum(ours[key] != theirs[key] for key in ours.keys() & theirs.keys())
    return killed, lost, different, complaints


def _picture(runtime: Runtime, tenant_id: int) -> dict[Any, tuple[Any, ...]]:
    names = ("external_id", "name", "first_name", "last_name", "tags", "score", "attributes", "version")
    with runtime.work(tenant_id, mode="read") as ctx:
        leads = ctx.session.scalars(select(Lead)).all()
        return {lead.email_norm: tuple(getattr(lead, name) for name in names) for lead in leads}


def _rejected(runtime: Runtime, tenant_id: int) -> list[tuple[int, str]]:
    with runtime.work(tenant_id, mode="read") as ctx:
        rows = ctx.session.scalars(select(LeadImportError).order_by(LeadImportError.row_no))
        return [(row.row_no, row.code) for row in rows]
