"""``segments.refresh``, ``.incremental``, ``.dirty``, ``.many``: segments kept true, against SQL by hand."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.common import Options, Result, paired
from benchmarks.segments import PLACES, lead_rows, load_leads, run_as_owner
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.tenancy import run as run_sql
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.segments.marks import mark_leads
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import recalculate_requested, refresh
from nexus_marketing.services.segments.upkeep import keep_segments
from tests.common import databases
from tests.common.factories import make_tenant

_SCAN = (
    "INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)"
    " SELECT {tenant}, {segment}, id, now(), 1 FROM marketing_leads WHERE tenant_id = {tenant} AND {test}"
)


@dataclass(frozen=True)
class _Bench:
    """A tenant with leads on PostgreSQL, and a connection of the worker role."""

    runtime: Runtime
    tenant_id: int
    hand: "psycopg.Connection[Any]"
    count: int

    def segment(self, name: str, conditions: str) -> int:
        with self.runtime.work(self.tenant_id, SYSTEM) as ctx:
            segment_id = create_segment(ctx, {"name": name, "conditions": conditions}).id
        refresh(self.runtime, self.tenant_id, segment_id)
        return segment_id

    def owner(self, statement: str) -> None:
        run_as_owner(self.runtime, statement)

    def members(self) -> int:
        found = self.hand.execute("SELECT count(*) FROM marketing_segment_members").fetchone()
        self.hand.commit()
        assert found is not None
        return int(found[0])

    def timed(self, work: Callable[[], object]) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    def by_hand(self, statements: Sequence[str]) -> float:
        def work() -> None:
            for statement in statements:
                self.hand.execute(statement)
                self.hand.commit()

        return self.timed(work)

    def scan(self, segment_id: int, test: str) -> str:
        return _SCAN.format(tenant=self.tenant_id, segment=segment_id, test=test)


@contextmanager
def _bench(options: Options, count: int) -> Iterator[_Bench]:
    with databases.postgres_runtime(options.cluster, options.folder) as runtime:
        tenant_id = make_tenant(runtime)
        dsn = runtime.engines.worker.url.set(drivername="postgresql").render_as_string(hide_password=False)
        load_leads(dsn, tenant_id, lead_rows(count, options))
        run_as_owner(runtime, "VACUUM ANALYZE marketing_leads")
        with psycopg.connect(dsn) as hand:
            yield _Bench(runtime, tenant_id, hand, count)


def refresh_of_half(options: Options) -> Result:
    """A segment of half of the leads of which one in a hundred moved, against writing all of it by hand."""
    with _bench(options, options.size(1_000_000, 20_000)) as bench:
        segment_id = bench.segment("half", "score > 50")
        churn = iter(range(1_000))

        def move() -> None:
            # One of a hundred leads, another one each time, from one half into the other.
            bench.owner(f"UPDATE marketing_leads SET score = 100 - score WHERE id % 100 = {next(churn) % 100}")
            bench.owner("VACUUM ANALYZE marketing_leads")

        def ours() -> float:
            move()
            return bench.timed(lambda: refresh(bench.runtime, bench.tenant_id, segment_id))

        def reference() -> float:
            move()
            bench.owner("TRUNCATE marketing_segment_members")
            return bench.by_hand([bench.scan(segment_id, "score > 50")])

        found = paired(ours, reference, 5)
        note = f"{bench.count} leads, {bench.members()} members"
    return found.result("segments.refresh", 0.65, unit="ms", notes=note)


#: A refresh by a careful hand: who matches against who is in, and only the difference written.
_DIFF = """
WITH m AS (SELECT id FROM marketing_leads WHERE tenant_id = {tenant} AND gone_at IS NULL AND {test}),
  p AS (SELECT lead_id FROM marketing_segment_members WHERE tenant_id = {tenant} AND segment_id = {segment}),
  d AS (SELECT coalesce(m.id, p.lead_id) AS id, m.id IS NULL AS gone FROM m FULL JOIN p ON m.id = p.lead_id
        WHERE m.id IS NULL OR p.lead_id IS NULL),
  i AS (INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
        SELECT {tenant}, {segment}, id, now(), 1 FROM d WHERE NOT gone)
DELETE FROM marketing_segment_members n USING d
WHERE n.tenant_id = {tenant} AND n.segment_id = {segment} AND n.lead_id = d.id AND d.gone
"""


def many_at_once(options: Options) -> Result:
    """Twenty segments that are asked for together, one lead in a hundred changed: against twenty refreshes by hand."""
    with _bench(options, options.size(1_000_000, 20_000)) as bench:
        rules = [_one_of_many(number) for number in range(20)]
        segments = [bench.segment(f"one of many {number}", rule) for number, (rule, _) in enumerate(rules)]
        tests = [test for _, test in rules]
        bench.owner("VACUUM ANALYZE marketing_segment_members")
        diffs = [
            _DIFF.format(tenant=bench.tenant_id, segment=segment_id, test=test)
            for segment_id, test in zip(segments, tests, strict=True)
        ]
        counts = [
            f"SELECT count(*) FROM marketing_leads WHERE tenant_id = {bench.tenant_id} AND {test}" for test in tests
        ]
        bench.hand.execute("SET max_parallel_workers_per_gather = 0")  # ours has no help of others either
        bench.hand.commit()
        churn = iter(range(1_000))

        def move() -> None:
            bench.owner(f"UPDATE marketing_leads SET score = 100 - score WHERE id % 100 = {next(churn) % 100}")
            bench.owner("VACUUM ANALYZE marketing_leads")
            bench.owner("UPDATE marketing_segments SET requested_at = now()")

        def ours() -> float:
            move()
            return bench.timed(lambda: recalculate_requested(bench.runtime))

        def reference() -> float:
            move()
            return bench.by_hand(diffs)

        found = paired(ours, reference, 5)
        scans = bench.by_hand(counts)
        share = bench.members() / 20 / bench.count
    note = f"20 segments of {bench.count} leads, {share:.1%} in each; counting who matches alone {scans * 1e3:.0f} ms"
    return found.result("segments.many", 0.5, unit="ms", notes=note)


def _one_of_many(number: int) -> tuple[str, str]:
    """A rule of five terms, and the same by hand."""
    least, plan, year = 50 + number, ("free", "basic", "pro", "team")[number % 4], 2018 + number % 5
    places = [PLACES[(number + step) % len(PLACES)] for step in range(3)]
    rule = (
        f"score > {least} AND country in {places} AND metadata.plan == '{plan}' AND locale != 'xx'"
        f" AND created_at after '{year}-01-01T00:00:00Z'"
    )
    by_hand = (
        f"score > {least} AND country IN ({', '.join(repr(place) for place in places)})"
        f""" AND metadata @> '{{"plan": "{plan}"}}' AND locale <> 'xx'"""
        f" AND created_at > '{year}-01-01T00:00:00.000000Z'"
    )
    return rule, by_hand


def one_change(options: Options) -> Result:
    """A lead changes, and fifty segments that read it follow; against the bare update of its row.

    Changes come one by one, each in a transaction with its mark; the worker's turn takes those that came meanwhile.
    """
    with _bench(options, options.size(100_000, 2_000)) as bench:
        for number in range(50):
            bench.segment(f"from {number}", f"score >= {number * 2} AND country in ['DE', 'FR', 'US']")
        ids = [row[0] for row in bench.hand.execute("SELECT id FROM marketing_leads ORDER BY id LIMIT 200")]
        bench.hand.commit()
        update = (
            "UPDATE marketing_leads SET score = :score, version = version + 1, updated_at = now()"
            " WHERE tenant_id = :tenant_id AND id = :id"
        )
        by_hand = update.replace(":score", "%s").replace(":tenant_id", "%s").replace(":id", "%s")
        turn = iter(range(10_000_000))

        def ours() -> float:
            begun = time.perf_counter()
            for lead_id in ids[:100]:
                with bench.runtime.work(bench.tenant_id, SYSTEM) as ctx:
                    run_sql(ctx.session, update, {"score": next(turn) % 99 + 0.25, "id": lead_id}, writes=True)
                    mark_leads(ctx, [lead_id], ["score"])
            assert keep_segments(bench.runtime) == 100
            return time.perf_counter() - begun

        def reference() -> float:
            begun = time.perf_counter()
            for lead_id in ids[100:]:
                bench.hand.execute(by_hand, (next(turn) % 99 + 0.75, bench.tenant_id, lead_id))
                bench.hand.commit()
            return time.perf_counter() - begun

        found = paired(ours, reference, 7)
    return found.result("segments.incremental", 3, unit="ms", notes="100 changes one by one, 50 segments read them")


def many_changes(options: Options) -> Result:
    """A tenth of a million leads changed, fifty segments read it; against one pass of those segments by hand."""
    with _bench(options, options.size(1_000_000, 20_000)) as bench:
        segments = [bench.segment(f"from {number}", f"score >= {95 + number / 10}") for number in range(50)]
        changed = bench.count // 10
        ids = [row[0] for row in bench.hand.execute(f"SELECT id FROM marketing_leads ORDER BY id LIMIT {changed}")]
        bench.hand.commit()
        scans = [bench.scan(id_, f"score >= {95 + number / 10}") for number, id_ in enumerate(segments)]
        churn = iter(range(1_000))

        def keep() -> None:
            while keep_segments(bench.runtime) + recalculate_requested(bench.runtime):
                continue

        def ours() -> float:
            shift = 1 if next(churn) % 2 else -1
            bench.owner(f"UPDATE marketing_leads SET score = score + {shift} WHERE id <= {ids[-1]}")
            bench.owner("VACUUM ANALYZE marketing_leads")
            with bench.runtime.work(bench.tenant_id, SYSTEM) as ctx:
                for start in range(0, changed, 1_000):
                    mark_leads(ctx, ids[start : start + 1_000], ["score", "updated_at"])
            return bench.timed(keep)

        def reference() -> float:
            bench.owner("TRUNCATE marketing_segment_members")
            return bench.by_hand(scans)

        found = paired(ours, reference, 3)
        note = f"{changed} of {bench.count} leads changed, 50 segments"
    return found.result("segments.dirty", 1.5, unit="ms", notes=note)


def window(options: Options) -> Result:
    """Three clicks and more in thirty days, among all events, against a hand-written aggregate."""
    with _bench(options, options.size(1_000_000, 5_000)) as bench:
        events, now = bench.count * 10, f"timestamptz '{bench.runtime.clock.now().isoformat()}'"
        bench.owner(
            "INSERT INTO marketing_engagements (tenant_id, tracked_at, type, lead_id, verdict, metadata)"
            f" SELECT {bench.tenant_id}, {now} - n % 5000 * interval '20 minutes', CASE WHEN n % 3 = 0 THEN 'email_clicked'"
            f" ELSE 'page_visited' END, 1 + (n::bigint * 7919) % {bench.count}, 'human', '{{}}' FROM generate_series(1, {events}) n"
        )
        bench.owner("VACUUM ANALYZE marketing_engagements")
        segment_id = bench.segment("clicks", "count(email_clicked) >= 3 within 30 days")
        by_hand = (
            "INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)"
            f" SELECT {bench.tenant_id}, {segment_id}, l.id, now(), 1 FROM marketing_leads l JOIN (SELECT lead_id"
            f" FROM marketing_engagements WHERE tenant_id = {bench.tenant_id} AND type = 'email_clicked' AND verdict = 'human'"
            f" AND tracked_at > {now} - interval '30 days' GROUP BY lead_id HAVING count(*) >= 3) e ON e.lead_id = l.id"
            f" WHERE l.tenant_id = {bench.tenant_id} AND l.gone_at IS NULL"
        )
        members: set[int] = set()

        def ours() -> float:
            bench.owner("TRUNCATE marketing_segment_members")
            bench.owner("UPDATE marketing_segments SET pending = 'build'")
            took = bench.timed(lambda: refresh(bench.runtime, bench.tenant_id, segment_id))
            members.add(bench.members())
            return took

        def reference() -> float:
            bench.owner("TRUNCATE marketing_segment_members")
            took = bench.by_hand([by_hand])
            members.add(bench.members())
            return took

        found = paired(ours, reference, 5)
        assert len(members) == 1, members
    return found.result("segments.window", 1.1, unit="ms", notes=f"{events} events, {max(members)} members")


BENCHMARKS: dict[str, Any] = {
    "segments.refresh": refresh_of_half,
    "segments.many": many_at_once,
    "segments.incremental": one_change,
    "segments.dirty": many_changes,
    "segments.window": window,
}
