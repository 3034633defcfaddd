"""``engagements.ingest``: reported events against bare COPY; ``rollups``: a campaign's numbers against the rows."""

import time
from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
from sqlalchemy import text

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.analytics import campaign_analytics
from nexus_marketing.services.counters import fold_counters, reconcile_counters
from nexus_marketing.services.engagements import record_engagements
from tests.common import databases
from tests.common.databases import NOW
from tests.common.factories import make_campaign, make_leads, make_tenant

_BATCH = 1000
_COPY = """
COPY marketing_engagements (tenant_id, tracked_at, type, lead_id, campaign_id, verdict, metadata, words) FROM STDIN
"""
_COPY_IDS = "COPY marketing_event_seen (tenant_id, event_id, received_on) FROM STDIN"
_KINDS = ("page_visited", "conversion", "form_submitted", "email_clicked")


def _events(options: Options, count: int, leads: list[int], campaigns: list[int]) -> list[dict[str, Any]]:
    rng = options.rng()
    return [
        {
            "type": rng.choice(_KINDS),
            "lead_id": str(rng.choice(leads)),
            "campaign_id": str(campaigns[min(int(rng.paretovariate(1.2)) - 1, len(campaigns) - 1)]),
            "event_id": f"{rng.getrandbits(128):032x}",
            "tracked_at": f"2026-03-02T0{rng.randrange(10)}:{rng.randrange(60):02}:{rng.randrange(60):02}Z",
            "metadata": {"url": f"/shop/{rng.randrange(1000)}", "plan": rng.choice("abc")},
        }
        for _ in range(count)
    ]


def _batches(lines: list[bytes]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(lines), _BATCH):
        yield [orjson.loads(line) for line in lines[start : start + _BATCH]]


def _copied(tenant_id: int, row: dict[str, Any]) -> tuple[Any, ...]:
    metadata = row["metadata"]
    words = f"{metadata['url'].replace('/', ' ').strip()} {metadata['plan']}"
    named = (int(row["lead_id"]), int(row["campaign_id"]), "human")
    return (tenant_id, row["tracked_at"], row["type"], *named, orjson.dumps(metadata).decode(), words)


def ingest(options: Options) -> Result:
    """Batches of 1,000, a transaction each: validated, de-duplicated, counted and audited, against COPY of the same.

    Both begin with the lines of a request and end with a commit for each batch. COPY is done by a superuser, because
    PostgreSQL refuses it under row-level security; it writes the same engagements and the same event ids, checks
    nothing, and counts nothing.
    """
    rows = options.size(100_000, 5_000)
    copies: list[float] = []
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        leads = make_leads(runtime, tenant_id, 2000)
        campaigns = [make_campaign(runtime, tenant_id, f"c{n}") for n in range(200)]
        lines = [orjson.dumps(event) for event in _events(options, rows, leads, campaigns)]
        database = runtime.engines.worker.url.database
        dsn = options.cluster.dsn("postgres", database).replace("postgresql+psycopg", "postgresql")

        def ours() -> float:
            _empty(runtime)
            begun = time.perf_counter()
            accepted = 0
            for batch in _batches(lines):
                with runtime.work(tenant_id, SYSTEM, role="app") as ctx:
                    accepted += sum(each["status"] == "accepted" for each in record_engagements(ctx, batch))
            taken = time.perf_counter() - begun
            assert accepted == rows == _count(runtime)
            return taken

        def reference() -> float:
            _empty(runtime)
            with psycopg.connect(dsn) as connection:
                begun = time.perf_counter()
                alone = 0.0
                for batch in _batches(lines):
                    started = time.perf_counter()
                    with connection.cursor().copy(_COPY) as copy:
                        for row in batch:
                            copy.write_row(_copied(tenant_id, row))
                    alone += time.perf_counter() - started
                    with connection.cursor().copy(_COPY_IDS) as copy:
                        for row in batch:
                            copy.write_row((tenant_id, row["event_id"], NOW.date()))
                    connection.commit()
                taken = time.perf_counter() - begun
            copies.append(alone)
            assert _count(runtime) == rows
            return taken

        found = paired(ours, reference, 5)
        while fold_counters(runtime, tenant_id):
            pass
        ours()
        assert reconcile_counters(runtime, tenant_id) == []
    alone = sorted(copies)[len(copies) // 2] / rows * 1e6
    return found.result(
        "engagements.ingest", 1.55, per=rows, unit="us", notes=f"COPY of engagements without ids {alone:.1f} us"
    )


_FILL = """
INSERT INTO marketing_engagements (tenant_id, tracked_at, type, lead_id, campaign_id, verdict, metadata)
SELECT :tenant, timestamptz '2026-02-01' + (n % 2500000) * interval '1 second',
       (ARRAY['email_opened', 'email_clicked', 'page_visited', 'conversion'])[1 + n % 4], 1 + n % 100000,
       1 + n % :campaigns, (ARRAY['human', 'machine', 'unknown'])[1 + n % 3], '{}'
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n
"""
_RAW = text(
    "SELECT campaign_id, type, verdict, count(*) AS hits FROM marketing_engagements"
    " WHERE tenant_id = :tenant GROUP BY campaign_id, type, verdict"
)


def rollups(options: Options) -> Result:
    """The engagements of every campaign by type and verdict: each campaign's analytics against one raw aggregate."""
    rows, campaigns = options.size(10_000_000, 200_000), 10
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        ids = [make_campaign(runtime, tenant_id, f"c{n}") for n in range(campaigns)]
        assert ids == list(range(1, campaigns + 1))
        with runtime.engines.owner.connect().execution_options(nexus_mode="write") as connection:
            for first in range(0, rows, 500_000):
                values = {"tenant": tenant_id, "campaigns": campaigns, "first": first}
                connection.execute(text(_FILL), {**values, "last": min(first + 500_000, rows) - 1})
                connection.commit()
        reconcile_counters(runtime, tenant_id, repair=True)
        while fold_counters(runtime, tenant_id):
            pass
        answers: dict[str, Any] = {}

        def ours() -> None:
            with runtime.work(tenant_id, mode="read", role="app") as ctx:
                counted = {id_: campaign_analytics(ctx, id_)["engagements"] for id_ in ids}
            answers["ours"] = {
                (id_, type_, verdict): hits
                for id_, by_type in counted.items()
                for type_, by_verdict in by_type.items()
                for verdict, hits in by_verdict.items()
                if hits
            }

        def reference() -> None:
            with runtime.engines.worker.connect().execution_options(nexus_mode="read") as connection:
                found = connection.execute(_RAW, {"tenant": tenant_id})
                answers["raw"] = {(row.campaign_id, row.type, row.verdict): row.hits for row in found}

        result = paired(ours, reference, 5)
        assert answers["ours"] == answers["raw"]
        assert sum(answers["raw"].values()) == rows
        begun = time.perf_counter()
        assert reconcile_counters(runtime, tenant_id) == []
        counted = time.perf_counter() - begun
    notes = f"{rows:,} events; reconciled in {counted:.1f} s"
    return result.result("rollups", 0.02, unit="ms", notes=notes)


def _empty(runtime: Runtime) -> None:
    tables = "marketing_engagements, marketing_event_seen, marketing_engagement_deltas, marketing_engagement_rollups"
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {tables}")


def _count(runtime: Runtime) -> int:
    with runtime.engines.owner.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM marketing_engagements").scalar_one())


BENCHMARKS: dict[str, Any] = {"engagements.ingest": ingest, "rollups": rollups}
