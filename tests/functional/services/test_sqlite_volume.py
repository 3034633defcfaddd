"""A hundred thousand leads in one SQLite file: in, chosen, changed, out again and undone."""

import io
import os
import random
from pathlib import Path

import pytest
from sqlalchemy import select

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import ImportOptions
from nexus_marketing.db.models import Lead, LeadImport
from nexus_marketing.db.queries.leads import count_leads
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.imports.jobs import request_undo
from nexus_marketing.services.imports.work import ImportWork
from nexus_marketing.services.leads.exports import export_leads
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.scores.records import create_score, publish_score
from nexus_marketing.tasks.loops import tend_scores
from tests.common.factories import make_tenant
from tests.common.segments import create, members, settle

#: CI does with fewer (NEXUS_VOLUME_LEADS).
COUNT = int(os.environ.get("NEXUS_VOLUME_LEADS", "100000"))
VISIT = {"key": "visit", "event": "page_visited", "points": 100}


@pytest.mark.no_cover
@pytest.mark.req("SCL-003", "FR-P2-003", "FR-P2-012", "PR-007")
def test_sqlite_holds_a_hundred_thousand_leads(sqlite_only_runtime: Runtime, tmp_path: Path) -> None:
    runtime = sqlite_only_runtime
    tenant = make_tenant(runtime)
    path = tmp_path / "leads.csv"
    rng = random.Random(7)
    places = [rng.choice(("DE", "FR", "US")) for _ in range(COUNT)]
    rows = (f"p{n}@example.org,Person {n},{place},{n % 90}\n" for n, place in enumerate(places))
    path.write_text("email,name,country,score\n" + "".join(rows))
    report = import_leads(runtime, tenant, path, actor=SYSTEM)
    assert (report.created, report.rejected) == (COUNT, 0)

    segment = create(runtime, tenant, conditions="country == 'DE' AND score >= 45")
    settle(runtime)
    expected = sum(place == "DE" and n % 90 >= 45 for n, place in enumerate(places))
    found = members(runtime, tenant, segment)
    assert len(found) == expected
    one = min(found)
    with runtime.work(tenant) as ctx:
        update_lead(ctx, one, {"country": "FR"})
    settle(runtime)
    assert members(runtime, tenant, segment) == found - {one}

    with runtime.work(tenant) as ctx:
        score = create_score(ctx, {"name": "score", "draft": {"rules": [VISIT]}})
        publish_score(ctx, score.id)
    rows = [{"type": "page_visited", "email": f"p{n}@example.org"} for n in range(0, 2_000, 2)]
    with runtime.work(tenant) as ctx:
        assert {each["status"] for each in record_engagements(ctx, rows)} == {"accepted"}
    while tend_scores(runtime):
        pass
    with runtime.work(tenant, mode="read") as ctx:
        scores = ctx.session.execute(
            select(Lead.email, Lead.score).where(Lead.email.in_(["p2@example.org", "p3@example.org"]))
        )
        assert {row.email: row.score for row in scores} == {"p2@example.org": 2 + 100, "p3@example.org": 3}

    path.write_text("email,name\n" + "".join(f"p{n}@example.org,Other {n}\n" for n in range(0, COUNT, 5)))
    again = import_leads(runtime, tenant, path, actor=SYSTEM, options=ImportOptions.read({}))
    assert (again.created, again.updated) == (0, COUNT // 5)
    assert again.import_id is not None
    with runtime.work(tenant) as ctx:
        request_undo(ctx, again.import_id)
    worker = ImportWork(runtime)
    while worker.turn():
        pass
    with runtime.work(tenant, mode="read") as ctx:
        row = ctx.session.get_one(LeadImport, (tenant, again.import_id))
        assert (row.status, row.restored, row.kept) == ("undone", COUNT // 5, 0)
        assert count_leads(ctx.session) == COUNT
    out = io.StringIO()
    assert export_leads(runtime, tenant, out, actor=SYSTEM) == COUNT
    assert "Other" not in out.getvalue()
