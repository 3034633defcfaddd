"""``journeys.step`` and ``journeys.enter``: runs of journeys against the same reads and writes by hand."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import func, select

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import ChannelAccount, JourneyRun, Timer
from nexus_marketing.db.queries.journeys import BACKFILL
from nexus_marketing.plugin.testing import RecordingChannel
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.journeys.entries import PIECE, backfill_due, enter_members
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.templates import create_template
from nexus_marketing.services.timers import cancel_timer, fire_due
from nexus_marketing.tasks.timers import TIMERS
from tests.common import databases
from tests.common.databases import NOW
from tests.common.factories import make_segment, make_tenant

_DRIP = {
    "id": "drip",
    "entry": {"triggers": [{"on": "list"}], "filter": "country == 'US'"},
    "nodes": {
        "wait": {"type": "delay", "for": "1 hour", "next": "hello"},
        "hello": {"type": "message", "channel": "email", "template": "hello", "class": "transactional"},
    },
}
_SENDER = {"from_email": "news@shop.example", "from_name": "Shop", "postal_address": "1 High Street, Town"}
_CONTENT = {"subject": "Hello", "html": "<p>Hello {{ name }}</p>"}
_REPETITIONS = 5


@dataclass(slots=True)
class Scene:
    """A journey that waits an hour and writes a message, and a segment of those who come in."""

    runtime: Runtime
    clock: FakeClock
    dsn: str
    tenant_id: int
    segment_id: int
    journey_id: int
    count: int

    def enter(self) -> None:
        """Have everybody come in, a piece at a time, each in its transaction as its timer does it."""
        with self.runtime.work(self.tenant_id) as ctx:
            assert enter_members(ctx, self.journey_id, self.segment_id, backfill=True) == self.count
        while True:
            with self.runtime.work(self.tenant_id) as ctx:
                row = ctx.session.scalars(select(Timer).where(Timer.type == BACKFILL)).first()
                if row is None:
                    break
                fact = TimerFact(self.tenant_id, row.id, row.type, row.key, row.trigger_at, row.payload, None, 1, 0, 1)
                assert cancel_timer(ctx, row.type, row.key)
                backfill_due(ctx, fact)

    def fire(self) -> int:
        """Fire what is due until nothing is; answers how many timers that were."""
        fired = 0
        while more := fire_due(self.runtime, TIMERS):
            fired += more
        return fired

    def runs(self, node: str) -> int:
        """How many runs are at a node."""
        with self.runtime.work(self.tenant_id, mode="read") as ctx:
            return ctx.session.scalar(select(func.count()).where(JourneyRun.node == node)) or 0

    def timers(self) -> dict[str, Any]:
        """When each timer is due, by its key."""
        with self.runtime.engines.owner.connect() as connection:
            return dict(connection.exec_driver_sql("SELECT key, trigger_at FROM marketing_timers").tuples().all())

    def forget_timers(self) -> None:
        """Let nobody wait for anything."""
        with self.runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql("TRUNCATE marketing_timers")

    def reset(self) -> None:
        """Let nobody ever have been here."""
        with self.runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql(
                "TRUNCATE marketing_journey_steps, marketing_journey_arrivals, marketing_journey_approvals,"
                " marketing_journey_runs, marketing_timers, marketing_deliveries"
            )
            connection.exec_driver_sql("UPDATE marketing_sends SET planned = 0")


@contextmanager
def open_scene(options: Options, count: int) -> Iterator[Scene]:
    """So many leads in one segment, and the journey published."""
    clock = FakeClock(NOW)
    channels = {"email": RecordingChannel()}
    with databases.postgres_runtime(options.cluster, options.folder, clock=clock, channels=channels) as runtime:
        tenant_id = make_tenant(runtime)
        segment_id = make_segment(runtime, tenant_id, name="All")
        with runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql(
                f"""INSERT INTO marketing_leads (tenant_id, email, email_norm, name, country, locale, time_zone, score,
                    tags, metadata, created_at, updated_at)
                    SELECT {tenant_id}, 'p' || n || '@example.org', 'p' || n || '@example.org', 'Person ' || n, 'US', 'en',
                      'UTC', n %% 100, '[]', '{{"plan": "pro"}}', '{NOW.isoformat()}', '{NOW.isoformat()}'
                    FROM generate_series(1, {count}) n"""
            )
            connection.exec_driver_sql(
                f"""INSERT INTO marketing_segment_members (tenant_id, segment_id, lead_id, entered_at, generation)
                    SELECT {tenant_id}, {segment_id}, id, '{NOW.isoformat()}', 1 FROM marketing_leads"""
            )
            connection.exec_driver_sql("ANALYZE marketing_leads")
            connection.exec_driver_sql("ANALYZE marketing_segment_members")
        with runtime.work(tenant_id) as ctx:
            times = {"created_at": ctx.now, "updated_at": ctx.now}
            ctx.session.add(ChannelAccount(type="email", name="main", config=_SENDER, enabled=True, **times))
            create_template(ctx, {"name": "hello", "type": "email", "content": _CONTENT})
            journey_id = create_journey(ctx, {"name": "drip", "draft": _DRIP}).id
            publish_journey(ctx, journey_id)
        dsn = options.cluster.dsn("postgres", runtime.engines.worker.url.database)
        yield Scene(
            runtime, clock, dsn.replace("postgresql+psycopg", "postgresql"), tenant_id, segment_id, journey_id, count
        )


def enter(options: Options) -> Result:
    """Members of a segment come into a journey, in pieces that each are a transaction.

    Ours decides on each by the journey's rules (filter, re-entry, concurrency, caps, holdout) and what the lead is; the
    reference is one statement for each piece of the same size, which locks the leads, leaves out who is gone, was
    there or is of another country, and writes the same rows: run, history, arrival, timer.
    """
    count = options.size(100_000, 500)
    with open_scene(options, count) as scene:

        def ours() -> float:
            scene.reset()
            begun = time.perf_counter()
            scene.enter()
            taken = time.perf_counter() - begun
            assert scene.runs("wait") == count
            return taken

        def reference() -> float:
            scene.reset()
            with psycopg.connect(scene.dsn, autocommit=True) as connection:
                begun = time.perf_counter()
                after: int | None = 0
                while after is not None:
                    values = {
                        "tenant": scene.tenant_id,
                        "segment": scene.segment_id,
                        "journey": scene.journey_id,
                        "after": after,
                        "piece": PIECE,
                        "now": scene.clock.now(),
                    }
                    with connection.transaction():
                        row = connection.execute(_ENTER, values).fetchone()
                    assert row is not None
                    after = row[0]
                taken = time.perf_counter() - begun
            assert scene.runs("wait") == count
            return taken

        found = paired(ours, reference, options.size(3, 1), warm_up=options.size(1, 0))
    return found.result("journeys.enter", 2.0, per=count, unit="us", notes=f"{count} leads, {PIECE} in a transaction")


_ENTER = """
WITH piece AS (
  SELECT l.id FROM marketing_segment_members m JOIN marketing_leads l ON l.tenant_id = m.tenant_id AND l.id = m.lead_id
  WHERE m.tenant_id = %(tenant)s AND m.segment_id = %(segment)s AND m.lead_id > %(after)s AND l.gone_at IS NULL
    AND l.country = 'US'
  ORDER BY m.lead_id LIMIT %(piece)s FOR UPDATE OF l),
runs AS (
  INSERT INTO marketing_journey_runs (tenant_id, journey_id, version_number, lead_id, sequence, is_single, state, node,
    visit, wake_at, wait_token, version, snapshot, entered_at)
  SELECT %(tenant)s, %(journey)s, 1, p.id, 1, true, 'ready', 'wait', 0, %(now)s, 1, 1, '{}', %(now)s FROM piece p
  WHERE NOT EXISTS (SELECT 1 FROM marketing_journey_runs r
    WHERE r.tenant_id = %(tenant)s AND r.journey_id = %(journey)s AND r.lead_id = p.id)
  RETURNING id, lead_id),
steps AS (
  INSERT INTO marketing_journey_steps (tenant_id, run_id, at, said, node, detail)
  SELECT %(tenant)s, id, %(now)s, 'entered', 'wait', '{"trigger": "list", "sequence": 1}' FROM runs),
arrivals AS (
  INSERT INTO marketing_journey_arrivals (tenant_id, journey_id, lead_id, occurrence, outcome, run_id, at)
  SELECT %(tenant)s, %(journey)s, lead_id, 'list:1:by hand', 'entered', id, %(now)s FROM runs),
timers AS (
  INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
  SELECT %(tenant)s, 'journey.run', id::text, %(now)s, '{"token": 1}', %(now)s FROM runs)
SELECT max(id) FROM piece
"""


def step(options: Options) -> Result:
    """The hour of a run is over: its message is written for delivery, and it waits for what becomes of it.

    On both sides a claim takes fifty of the tenant, and their steps are a transaction. The reference knows the journey and
    that all of them do the same; it removes the timers, reads and locks the runs with the journey's state, the leads and
    their segments, and writes in one statement what ours writes: runs, history, messages with their numbers, timers.
    """
    count = options.size(20_000, 100)
    with open_scene(options, count) as scene:

        def prepare() -> None:
            scene.reset()
            scene.enter()
            assert scene.fire() == count
            scene.clock.advance(hours=1)
            # As autovacuum has done long before: checks of foreign keys were planned when the table was empty.
            with scene.runtime.engines.owner.begin() as connection:
                connection.exec_driver_sql("ANALYZE marketing_journey_runs, marketing_timers")
            assert scene.runs("wait") == count

        def ours() -> float:
            prepare()
            begun = time.perf_counter()
            assert scene.fire() == count
            taken = time.perf_counter() - begun
            assert scene.runs("hello") == count
            return taken

        def reference() -> float:
            prepare()
            with psycopg.connect(scene.dsn, autocommit=True) as connection:
                begun = time.perf_counter()
                done = _all_by_hand(connection, scene)
                taken = time.perf_counter() - begun
            assert done == scene.runs("hello") == count
            return taken

        found = paired(ours, reference, options.size(_REPETITIONS, 1), warm_up=options.size(1, 0))
    return found.result("journeys.step", 2.0, per=count, unit="us", notes=f"{count} runs of one tenant, a message each")


_CLAIM = """
UPDATE marketing_timers SET lease_until = clock_timestamp() + interval '1 minute', lease_token = 7, attempts = attempts + 1
WHERE tenant_id = %s AND id IN (SELECT id FROM marketing_timers
  WHERE tenant_id = %s AND status = 'waiting' AND trigger_at <= %s
    AND (lease_until IS NULL OR lease_until <= clock_timestamp())
  ORDER BY trigger_at LIMIT 50 FOR UPDATE SKIP LOCKED)
RETURNING id, key, payload
"""


def _all_by_hand(connection: psycopg.Connection[Any], scene: Scene) -> int:
    now, done = scene.clock.now(), 0
    while claimed := connection.execute(_CLAIM, (scene.tenant_id, scene.tenant_id, now)).fetchall():
        with connection.transaction():
            _by_hand(connection.cursor(), scene.tenant_id, claimed, now)
        done += len(claimed)
    return done


def _by_hand(cursor: Any, tenant_id: int, claimed: Sequence[tuple[int, str, dict[str, Any]]], now: datetime) -> None:
    ids, tokens = [row[0] for row in claimed], {int(row[1]): row[2]["token"] for row in claimed}
    cursor.execute(
        "DELETE FROM marketing_timers WHERE tenant_id = %s AND id = ANY(%s) AND lease_token = 7", (tenant_id, ids)
    )
    assert cursor.rowcount == len(claimed)
    found = cursor.execute(_READ, (tenant_id, list(tokens))).fetchall()
    assert len(found) == len(claimed)
    wake_at, snapshots = now + timedelta(days=14), []
    for run_id, wait, state, status, snapshot, *_lead in found:
        assert wait == tokens[run_id]
        assert (status, state) == ("published", "waiting")
        snapshots.append(json.dumps({**snapshot, "arrived_at": now.isoformat(), "open": ["email"]}))
    values = {
        "tenant": tenant_id,
        "ids": [row[0] for row in found],
        "snapshots": snapshots,
        "wake_at": wake_at,
        "now": now,
        "left": json.dumps({"to": "hello", "edge": ""}),
        "executed": json.dumps({"channels": ["email"]}),
    }
    assert cursor.execute(_WRITE, values).fetchone() == (len(claimed),)


_READ = """
SELECT r.id, r.wait_token, r.state, j.status, r.snapshot, l.*, (SELECT array_agg(m.segment_id)
  FROM marketing_segment_members m WHERE m.tenant_id = l.tenant_id AND m.lead_id = l.id)
FROM marketing_journey_runs r JOIN marketing_journeys j ON j.tenant_id = r.tenant_id AND j.id = r.journey_id
  JOIN marketing_leads l ON l.tenant_id = r.tenant_id AND l.id = r.lead_id AND l.gone_at IS NULL
WHERE r.tenant_id = %s AND r.id = ANY(%s) ORDER BY r.id FOR UPDATE OF r
"""
_WRITE = """
WITH moved AS (
  UPDATE marketing_journey_runs r SET state = 'sending', node = 'hello', visit = r.visit + 1, wake_at = %(wake_at)s,
    wait_token = r.wait_token + 1, version = r.version + 1, snapshot = s.snapshot
  FROM (SELECT unnest(%(ids)s::bigint[]) AS id, unnest(%(snapshots)s::jsonb[]) AS snapshot) s
  WHERE r.tenant_id = %(tenant)s AND r.id = s.id
  RETURNING r.id, r.lead_id, r.journey_id, r.version_number, r.visit, r.wait_token),
steps AS (
  INSERT INTO marketing_journey_steps (tenant_id, run_id, at, said, node, detail)
  SELECT %(tenant)s, m.id, %(now)s, v.said, v.node, v.detail FROM moved m CROSS JOIN
    (VALUES ('left', 'wait', %(left)s::jsonb), ('executed', 'hello', %(executed)s::jsonb)) v(said, node, detail)),
counted AS (SELECT count(*) AS many, min(journey_id) AS journey_id, min(version_number) AS version FROM moved),
sends AS (
  UPDATE marketing_sends s SET planned = planned + c.many
  FROM counted c JOIN marketing_journeys j ON j.tenant_id = %(tenant)s AND j.id = c.journey_id
  WHERE s.tenant_id = %(tenant)s AND s.campaign_id = j.campaign_id AND s.journey_id = c.journey_id
    AND s.campaign_version = c.version AND s.occurrence_key = 'hello' AND s.channel = 'email'
  RETURNING s.id, s.planned - c.many AS before),
messages AS (
  INSERT INTO marketing_deliveries (tenant_id, send_id, seq, lead_id, channel, step, occurrence, state, due_at)
  SELECT %(tenant)s, s.id, s.before + row_number() OVER (ORDER BY m.id), m.lead_id, 'email', 'hello',
    m.id * 16384 + m.visit, 'planned', clock_timestamp()
  FROM moved m CROSS JOIN sends s),
timers AS (
  INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
  SELECT %(tenant)s, 'journey.run', m.id::text, %(wake_at)s, jsonb_build_object('token', m.wait_token), %(now)s FROM moved m
  ON CONFLICT (tenant_id, type, key) DO UPDATE SET trigger_at = excluded.trigger_at, payload = excluded.payload)
SELECT count(*) FROM moved
"""


BENCHMARKS: dict[str, Any] = {"journeys.enter": enter, "journeys.step": step}
