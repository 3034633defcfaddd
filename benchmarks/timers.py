"""``timers.claim``: due timers leased fairly over many tenants, against a claim by hand that looks at the moment alone."""

import time
from collections import Counter
from typing import Any

import psycopg

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.db.queries.timers import claim_timers
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Runtime
from tests.common import databases
from tests.common.databases import NOW
from tests.common.factories import make_tenant

_TENANTS = 200
_REPETITIONS = 5
#: What a claim of the worker takes.
_USUAL = 1_000


def claim(options: Options) -> Result:
    """Lease 10,000 due timers of 10 million, 50 of each of 200 tenants; each run takes others.

    The reference takes whatever is due first from a table of the same rows with an index by the moment instead of ours
    by tenant and moment. Both read what was claimed, commit, and have what was claimed removed before the next run.
    """
    total, tenants, each = options.size(10_000_000, 20_000), options.size(_TENANTS, 20), 50
    size, repetitions = each * tenants, options.size(_REPETITIONS, 1)
    with databases.postgres_runtime(options.cluster, options.folder, clock=FakeClock(NOW)) as runtime:
        for number in range(tenants):
            make_tenant(runtime, f"tenant{number}")
        _fill(runtime, tenants, total, size * (repetitions + 2))
        dsn = options.cluster.dsn("postgres", runtime.engines.worker.url.database)
        tokens = iter(range(1, 1_000))
        with psycopg.connect(dsn.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE marketing_timers")
            connection.execute("VACUUM ANALYZE timers_by_moment")

            def ours() -> float:
                begun = time.perf_counter()
                claimed = _ours(runtime, next(tokens), each, size)
                taken = time.perf_counter() - begun
                assert len(claimed) == size
                assert set(Counter(fact.tenant_id for fact in claimed).values()) == {each}
                connection.execute("DELETE FROM marketing_timers WHERE lease_token IS NOT NULL")
                return taken

            def reference() -> float:
                begun = time.perf_counter()
                with connection.transaction():
                    claimed = connection.execute(_BY_HAND, {"now": NOW, "size": size, "token": 1}).fetchall()
                taken = time.perf_counter() - begun
                assert len(claimed) == size
                connection.execute("DELETE FROM timers_by_moment WHERE lease_token IS NOT NULL")
                return taken

            found = paired(ours, reference, repetitions)
            begun = time.perf_counter()
            usual = len(_ours(runtime, next(tokens), each, min(size, _USUAL)))
            seconds = time.perf_counter() - begun
    notes = f"{size} of {total}; a claim of {usual} takes {seconds * 1e3:.1f} ms"
    return found.result("timers.claim", 1.2, per=size, unit="us", notes=notes)


def _ours(runtime: Runtime, token: int, each: int, most: int) -> list[Any]:
    with open_session(runtime.engines.worker, tenant_id=None, by_index=True) as session, session.begin():
        return claim_timers(session, NOW, token, lease_seconds=60.0, each=each, most=most)


_BY_HAND = """
UPDATE timers_by_moment SET lease_until = clock_timestamp() + interval '1 minute', lease_token = %(token)s,
  attempts = attempts + 1, crashes = crashes + CASE WHEN lease_token IS NULL THEN 0 ELSE 1 END
WHERE (tenant_id, id) IN (
  SELECT tenant_id, id FROM timers_by_moment
  WHERE status = 'waiting' AND trigger_at <= %(now)s AND (lease_until IS NULL OR lease_until <= clock_timestamp())
  ORDER BY trigger_at LIMIT %(size)s FOR UPDATE SKIP LOCKED)
RETURNING tenant_id, id, type, key, trigger_at, payload, campaign_id, attempts, crashes
"""


def _fill(runtime: Runtime, tenants: int, total: int, due: int) -> None:
    """Timers of all tenants in turn: so many that are due by now, the others in the year that follows."""
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(
            f"""INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
                SELECT (SELECT min(id) FROM marketing_tenants) + n %% {tenants}, 'journey.run', n::text,
                  timestamptz '{NOW.isoformat()}' + CASE WHEN n <= {due} THEN - {due} + n ELSE n END * interval '1 second',
                  '{{"token": 1}}', '{NOW.isoformat()}'
                FROM generate_series(1, {total}) n"""
        )
        connection.exec_driver_sql(
            "CREATE TABLE timers_by_moment (LIKE marketing_timers INCLUDING DEFAULTS INCLUDING IDENTITY)"
        )
        connection.exec_driver_sql("INSERT INTO timers_by_moment SELECT * FROM marketing_timers")
        for index in (
            "UNIQUE INDEX ON timers_by_moment (tenant_id, id)",
            "UNIQUE INDEX ON timers_by_moment (tenant_id, type, key)",
            "INDEX ON timers_by_moment (trigger_at) WHERE status = 'waiting'",
            "INDEX ON timers_by_moment (trigger_at) WHERE status = 'dead'",
            "INDEX ON timers_by_moment (tenant_id, campaign_id) WHERE campaign_id IS NOT NULL",
        ):
            connection.exec_driver_sql(f"CREATE {index}")


BENCHMARKS: dict[str, Any] = {"timers.claim": claim}
