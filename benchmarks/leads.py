"""``leads.import`` against a hand-written parse, staging COPY and upsert; ``leads.export`` against raw COPY."""

import csv
import json
import resource
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.common import Options, Result, paired
from benchmarks.segments import lead_rows, load_leads, run_as_owner
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.audience import EXPORTED
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.leads.exports import export_leads
from tests.common import databases
from tests.common.factories import make_tenant

_COLUMNS = ("email", "name", "country", "locale", "time_zone", "plan", "orders")


def write_file(path: Path, rows: int, options: Options) -> None:
    """Ordinary leads: names, a country, a locale, a zone and two fields of their own."""
    rng = options.rng()
    places = [("DE", "de-DE", "Europe/Berlin"), ("US", "en-US", "America/New_York"), ("FR", "fr-FR", "Europe/Paris")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for number in range(rows):
            place = rng.choice(places)
            email = f"first{rng.randrange(1000)}.last{number}@example{rng.randrange(40)}.com"
            writer.writerow((email, f"First{number} Last{number}", *place, rng.choice("abc"), rng.randrange(30)))


_STAGE = """
CREATE TEMP TABLE stage (email text, name text, first_name text, last_name text, country text, locale text,
                         time_zone text, metadata jsonb) ON COMMIT DROP
"""
_UPSERT = """
INSERT INTO marketing_leads AS l (tenant_id, email, email_norm, name, first_name, last_name, country, locale,
                                  time_zone, metadata, tags, created_at, updated_at)
SELECT %s, email, lower(email), name, first_name, last_name, country, locale, time_zone, metadata, '[]', now(), now()
FROM stage
ON CONFLICT (tenant_id, email_norm) DO UPDATE SET
    name = excluded.name, first_name = excluded.first_name, last_name = excluded.last_name,
    country = excluded.country, locale = excluded.locale, time_zone = excluded.time_zone,
    metadata = l.metadata || excluded.metadata, version = l.version + 1, updated_at = excluded.updated_at
WHERE (l.name, l.first_name, l.last_name, l.country, l.locale, l.time_zone, l.metadata) IS DISTINCT FROM
      (excluded.name, excluded.first_name, excluded.last_name, excluded.country, excluded.locale,
       excluded.time_zone, l.metadata || excluded.metadata)
"""


def by_hand(dsn: str, tenant_id: int, path: Path) -> tuple[float, float]:
    """Seconds of everything, and of the COPY alone: what somebody would write for this one file."""
    begun = time.perf_counter()
    with path.open(newline="") as file, psycopg.connect(dsn) as connection:
        reader = csv.reader(file)
        next(reader)
        connection.execute(_STAGE)
        copied = time.perf_counter()
        with connection.cursor().copy("COPY stage FROM STDIN") as copy:
            for email, name, country, locale, zone, plan, orders in reader:
                first, _, last = name.partition(" ")
                metadata = json.dumps({"plan": plan, "orders": orders})
                copy.write_row((email, name, first, last, country, locale, zone, metadata))
        copied = time.perf_counter() - copied
        connection.execute(_UPSERT, [tenant_id])
    return time.perf_counter() - begun, copied


def lead_import(options: Options) -> Result:
    """Both sides create every lead of the file, as the worker role, in an emptied table."""
    rows = options.size(100_000, 3_000)
    path = options.folder / "leads.csv"
    write_file(path, rows, options)
    copies: list[float] = []
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        dsn = runtime.engines.worker.url.set(drivername="postgresql").render_as_string(hide_password=False)

        def ours() -> float:
            _empty(runtime)
            begun = time.perf_counter()
            report = import_leads(runtime, tenant_id, path, actor=SYSTEM)
            taken = time.perf_counter() - begun
            assert (report.created, report.rejected, report.duplicate) == (rows, 0, 0), report
            return taken

        def reference() -> float:
            _empty(runtime)
            taken, copied = by_hand(dsn, tenant_id, path)
            copies.append(copied)
            return taken

        found = paired(ours, reference, 5)
    return found.result("leads.import", 2.5, notes=f"raw COPY {sorted(copies)[len(copies) // 2]:.2f} s")


def _empty(runtime: Runtime) -> None:
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(
            "TRUNCATE marketing_leads, marketing_lead_imports, marketing_lead_import_errors CASCADE"
        )


def lead_export(options: Options) -> Result:
    """Every lead of a tenant as CSV, neutralised, against COPY of the same columns as they lie in the table."""
    count = options.size(1_000_000, 20_000)
    out, raw = options.folder / "ours.csv", options.folder / "raw.csv"
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        dsn = runtime.engines.worker.url.set(drivername="postgresql").render_as_string(hide_password=False)
        load_leads(dsn, tenant_id, lead_rows(count, options))
        run_as_owner(runtime, "VACUUM ANALYZE marketing_leads")

        def ours() -> None:
            with out.open("w", encoding="utf-8", newline="") as file:
                assert export_leads(runtime, tenant_id, file, actor=SYSTEM) == count

        def reference() -> None:
            statement = (
                f"COPY (SELECT {', '.join(EXPORTED)} FROM marketing_leads WHERE tenant_id = {tenant_id} ORDER BY id)"
                " TO STDOUT (FORMAT csv, HEADER)"
            )
            with (
                psycopg.connect(dsn) as connection,
                raw.open("wb") as file,
                connection.cursor().copy(statement) as copy,
            ):
                for block in copy:
                    file.write(block)

        ours()
        before = _resident_kib()
        found = paired(ours, reference, 3, warm_up=0)
        grown = (_resident_kib() - before) / 1024
    assert grown < 30, f"{grown:.0f} MiB more memory"
    return found.result("leads.export", 4.0, notes=f"{count} leads, {grown:.1f} MiB more memory")


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


BENCHMARKS: dict[str, Any] = {"leads.import": lead_import, "leads.export": lead_export}
