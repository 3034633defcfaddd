"""``tenancy.rls``: point reads, writes and a segment rebuild with row-level security against without."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, event

from benchmarks.common import Options, Paired, Result, paired
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.engines import DatabaseSettings
from nexus_marketing.db.models import Lead
from nexus_marketing.db.tenancy import find
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import refresh
from tests.common import databases
from tests.common.factories import make_tenant
from tests.common.servers import PostgresCluster

TARGET = 1.2
TENANT, OTHERS = 1, 9
RULE = "score > 90 AND country == 'DE' AND created_at after '2026-01-01T01:00:00Z'"

#: Half of the leads belong to one tenant, the rest to nine others.
_LEADS = """
INSERT INTO marketing_leads (tenant_id, email, email_norm, score, country, tags, metadata, created_at, updated_at)
SELECT CASE WHEN n %% 2 = 0 THEN 1 ELSE 2 + n %% 9 END, 'p' || n || '@example.org', 'p' || n || '@example.org',
       n %% 1009 / 10.0, CASE WHEN n %% 3 = 0 THEN 'DE' ELSE 'US' END, '[]', '{}',
       timestamptz '2026-01-01' + n * interval '10 seconds', now()
FROM generate_series(1, %(count)s) n
"""


@dataclass(frozen=True, slots=True)
class Arena:
    """One of the two databases: same rows, same code, fenced or not."""

    runtime: Runtime
    segment_id: int
    lead_ids: tuple[int, ...]

    def read(self) -> None:
        """One transaction of the web role per lead, by key."""
        for lead_id in self.lead_ids:
            with self.runtime.work(TENANT, SYSTEM, mode="read", role="app") as ctx:
                assert find(ctx.session, Lead, lead_id).tenant_id == TENANT

    def write(self) -> None:
        """One changed lead per transaction of the web role."""
        for lead_id in self.lead_ids[: len(self.lead_ids) // 4]:
            with self.runtime.work(TENANT, SYSTEM, role="app") as ctx:
                lead = find(ctx.session, Lead, lead_id, lock=True)
                lead.version += 1

    def rebuild(self) -> None:
        """A dynamic segment from nothing, by the worker role."""
        with self.runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql("TRUNCATE marketing_segment_members")
            connection.exec_driver_sql("UPDATE marketing_segments SET pending = 'build'")
        assert refresh(self.runtime, TENANT, self.segment_id)


def tenancy_rls(options: Options) -> Result:
    """The worst of the three ratios; each by medians of interleaved runs in the same process."""
    count = options.size(200_000, 5_000)
    repetitions = options.size(9, 3)
    with arenas(options, count) as (fenced, open_):
        sides: dict[str, Callable[[Arena], None]] = {
            "point reads": Arena.read,
            "writes": Arena.write,
            "rebuild": Arena.rebuild,
        }
        measured = {name: _against(side, fenced, open_, repetitions) for name, side in sides.items()}
    worst = max(measured, key=lambda name: measured[name].ratio)
    notes = ", ".join(f"{name} {pair.ratio:.3f}x" for name, pair in measured.items())
    return measured[worst].result("tenancy.rls", TARGET, unit="ms", notes=f"{notes}; shown: {worst}; {count:,} leads")


def _against(side: Callable[[Arena], None], fenced: Arena, open_: Arena, repetitions: int) -> Paired:
    return paired(lambda: side(fenced), lambda: side(open_), repetitions, warm_up=2)


@contextmanager
def arenas(options: Options, count: int) -> Iterator[tuple[Arena, Arena]]:
    """The fenced database and a copy of it whose tables have no row-level security."""
    cluster = options.cluster
    names = [databases.postgres_copy(cluster)]
    with ExitStack() as stack:
        stack.callback(_drop, cluster, names)
        with databases.opened(databases.postgres_settings(cluster, names[0])) as engines:
            segment_id = _fill(databases.build_runtime(_settings(options, names[0]), engines, options.folder), count)
        names.append(cluster.create_database(template=names[0], owner="nexus_owner"))
        runtimes = []
        for name in names:
            engines = stack.enter_context(databases.opened(_settings(options, name)))
            runtimes.append(databases.build_runtime(_settings(options, name), engines, options.folder))
        _unfence(runtimes[1])
        # What is compared is what it says: without a tenant one shows nothing and the other everything.
        assert [_visible(runtime) for runtime in runtimes] == [0, count]
        for runtime in runtimes:
            _vacuum(runtime)
        lead_ids = tuple(options.rng().sample(range(2, count, 2), options.size(400, 40)))
        yield Arena(runtimes[0], segment_id, lead_ids), Arena(runtimes[1], segment_id, lead_ids)


def _drop(cluster: PostgresCluster, names: list[str]) -> None:
    for name in names:
        cluster.drop_database(name)


def _settings(options: Options, name: str) -> DatabaseSettings:
    return databases.postgres_settings(options.cluster, name)


def _fill(runtime: Runtime, count: int) -> int:
    for number in range(OTHERS + 1):
        make_tenant(runtime, f"tenant-{number}")
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(_LEADS, {"count": count})
    with runtime.work(TENANT) as ctx:
        return create_segment(ctx, {"name": "Bench", "kind": "dynamic", "conditions": RULE}).id


def _unfence(runtime: Runtime) -> None:
    with runtime.engines.owner.begin() as connection:
        for (table,) in connection.exec_driver_sql("SELECT DISTINCT tablename FROM pg_policies").all():
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")

    # Nobody would tell such a database the tenant either.
    def plain_begin(connection: Connection) -> None:
        begin = str(connection.connection.info["nexus_begin"])
        connection.connection.info["nexus_begin"] = begin.partition(";")[0]

    event.listen(runtime.engines.app, "begin", plain_begin)
    event.listen(runtime.engines.worker, "begin", plain_begin)


def _visible(runtime: Runtime) -> int:
    with runtime.engines.app.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM marketing_leads").scalar_one())


def _vacuum(runtime: Runtime) -> None:
    with runtime.engines.owner.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute("VACUUM ANALYZE")  # outside of a transaction


BENCHMARKS = {"tenancy.rls": tenancy_rls}
