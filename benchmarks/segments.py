"""``segments.rebuild`` and ``segments.sqlite``: a rule becomes membership, against hand-written SQL."""

import sqlite3
import time
from collections.abc import Iterable
from typing import Any

import orjson
import psycopg
from sqlalchemy import Engine

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import refresh
from tests.common import databases
from tests.common.factories import make_tenant

#: Five terms, about 2 % of the leads below.
RULE = (
    "score > 60 AND country in ['DE', 'FR', 'IT'] AND metadata.plan == 'pro' AND locale != 'xx'"
    " AND created_at after '2020-06-01T00:00:00Z'"
)
PLACES = ("DE", "FR", "IT", "US", "GB", "ES", "NL", "SE", "PL", "AT")
_MOMENT = "2026-01-05T12:00:00.000000Z"


def lead_rows(count: int, options: Options) -> list[tuple[Any, ...]]:
    """Leads of ten countries and four plans, with scores from 0 to 100."""
    rng = options.rng()
    plans = [orjson.dumps({"plan": plan, "city": "x" * 20}).decode() for plan in ("free", "basic", "pro", "team")]
    return [
        (
            f"p{n}@example.org",
            f"p{n}@example.org",
            f"Person {n}",
            rng.choice(PLACES),
            "en",
            rng.random() * 100,
            rng.choice(plans),
            f"20{rng.randrange(18, 26)}-03-01T00:00:00.000000Z",
        )
        for n in range(count)
    ]


_COLUMNS = "email, email_norm, name, country, locale, score, metadata, created_at, updated_at, tags, tenant_id"
_BY_HAND = """
INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
SELECT {tenant}, {segment}, id, {now}, 1 FROM marketing_leads
WHERE tenant_id = {tenant} AND score > 60 AND country IN ('DE', 'FR', 'IT') AND {plan}
  AND locale <> 'xx' AND created_at > '2020-06-01T00:00:00.000000Z'
"""


def rebuild(options: Options) -> Result:
    """A first build of a segment on PostgreSQL, both sides as the worker role with the same rows."""
    count = options.size(1_000_000, 20_000)
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        dsn = runtime.engines.worker.url.set(drivername="postgresql").render_as_string(hide_password=False)
        load_leads(dsn, tenant_id, lead_rows(count, options))
        run_as_owner(runtime, "VACUUM ANALYZE marketing_leads")
        segment_id = _segment(runtime, tenant_id)
        by_hand = _BY_HAND.format(
            tenant=tenant_id, segment=segment_id, now="now()", plan="""metadata @> '{"plan": "pro"}'"""
        )

        def ours() -> float:
            run_as_owner(runtime, "TRUNCATE marketing_segment_members")
            run_as_owner(runtime, "UPDATE marketing_segments SET pending = 'build'")
            begun = time.perf_counter()
            members.add(refresh(runtime, tenant_id, segment_id) or 0)
            return time.perf_counter() - begun

        def reference() -> float:
            run_as_owner(runtime, "TRUNCATE marketing_segment_members")
            begun = time.perf_counter()
            members.add(hand.execute(by_hand).rowcount)
            hand.commit()
            return time.perf_counter() - begun

        members: set[int] = set()
        with psycopg.connect(dsn) as hand:
            found = paired(ours, reference, 7)
        assert len(members) == 1, members
    share = members.pop() / count
    return found.result("segments.rebuild", 1.15, unit="ms", notes=f"{count} leads, {share:.1%} match")


def on_sqlite(options: Options) -> Result:
    """The same on an SQLite file."""
    count = options.size(100_000, 5_000)
    with databases.sqlite_runtime(options.run, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        path = str(runtime.engines.app.url.database)
        places = ", ".join("?" * 11)
        with sqlite3.connect(path) as connection:
            rows = [(*row, _MOMENT, "[]", tenant_id) for row in lead_rows(count, options)]
            connection.executemany(f"INSERT INTO marketing_leads ({_COLUMNS}) VALUES ({places})", rows)
        segment_id = _segment(runtime, tenant_id)
        by_hand = _BY_HAND.format(
            tenant=tenant_id, segment=segment_id, now=f"'{_MOMENT}'", plan="metadata ->> '$.plan' = 'pro'"
        )
        hand = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = NORMAL", "temp_store = MEMORY"):
            hand.execute(f"PRAGMA {pragma}")
        members: set[int] = set()

        def ours() -> float:
            hand.execute("DELETE FROM marketing_segment_members")
            hand.execute("UPDATE marketing_segments SET pending = 'build'")
            begun = time.perf_counter()
            members.add(refresh(runtime, tenant_id, segment_id) or 0)
            return time.perf_counter() - begun

        def reference() -> float:
            hand.execute("DELETE FROM marketing_segment_members")
            begun = time.perf_counter()
            hand.execute("BEGIN IMMEDIATE")
            members.add(hand.execute(by_hand).rowcount)
            hand.execute("COMMIT")
            return time.perf_counter() - begun

        found = paired(ours, reference, 15)
        hand.close()
        assert len(members) == 1, members
    share = members.pop() / count
    return found.result("segments.sqlite", 1.2, unit="ms", notes=f"{count} leads, {share:.1%} match")


def load_leads(dsn: str, tenant_id: int, rows: Iterable[tuple[Any, ...]]) -> None:
    """Through a temporary table: COPY into a table with row-level security is refused."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"CREATE TEMP TABLE loading ON COMMIT DROP AS SELECT {_COLUMNS} FROM marketing_leads LIMIT 0"
        )
        with connection.cursor().copy(f"COPY loading ({_COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row((*row, _MOMENT, "[]", tenant_id))
        connection.execute(f"INSERT INTO marketing_leads ({_COLUMNS}) SELECT {_COLUMNS} FROM loading")


def _segment(runtime: Runtime, tenant_id: int) -> int:
    with runtime.work(tenant_id, SYSTEM) as ctx:
        return create_segment(ctx, {"name": "bench", "conditions": RULE}).id


def run_as_owner(runtime: Runtime, statement: str) -> None:
    owner: Engine = runtime.engines.owner
    with owner.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.execute(statement)


BENCHMARKS: dict[str, Any] = {"segments.rebuild": rebuild, "segments.sqlite": on_sqlite}
