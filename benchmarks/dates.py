"""``journeys.dates``: a timer for the next date of every lead, against one statement for each piece of them."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import select

from benchmarks.common import Options, Result, paired
from benchmarks.journeys import open_scene
from nexus_marketing.db.models import Timer
from nexus_marketing.services.journeys.dates import DATES_DUE, PIECE
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.timers import fire_due, set_timer
from nexus_marketing.tasks.timers import TIMERS

_BIRTHDAYS = {
    "id": "birthdays",
    "entry": {"triggers": [{"on": "date", "field": "metadata.born", "every": "year", "at": "09:00"}]},
    "nodes": {"bye": {"type": "exit", "reason": "seen"}},
}
#: A process may grow by so much (MiB) between the first tenth of the leads and the last: Python's own give and take.
_GROWTH = 16.0


def dates(options: Options) -> Result:
    """The next birthday of everybody is found, by the clock where each lives, and waited for: a timer for each lead.

    Both in pieces of the same size, each a transaction. The reference is one statement for each piece; ours also looks at
    every turn for other timers that are due, and takes dates in all the forms that a lead may keep one in.
    """
    count = options.size(100_000, 1_000)
    with open_scene(options, count) as scene:
        with scene.runtime.engines.owner.begin() as connection:
            connection.exec_driver_sql(
                """UPDATE marketing_leads SET time_zone = (ARRAY['Europe/Berlin', 'America/New_York', 'Asia/Kolkata'])[1 + mod(id, 3)],
                   metadata = jsonb_build_object('born', (date '1950-01-01' + mod(id * 7919, 20000)::int)::text)"""
            )
            connection.exec_driver_sql("ANALYZE marketing_leads")
        with scene.runtime.work(scene.tenant_id) as ctx:
            journey_id = create_journey(ctx, {"name": "birthdays", "draft": _BIRTHDAYS}).id
            publish_journey(ctx, journey_id)
            (first,) = ctx.session.scalars(select(Timer).where(Timer.type == DATES_DUE))
            again = (first.type, first.key, first.trigger_at, first.payload)
        grown: list[float] = []

        def ours() -> float:
            scene.forget_timers()
            with scene.runtime.work(scene.tenant_id) as ctx:
                set_timer(ctx, *again)
            begun, fired, early = time.perf_counter(), 0, 0.0
            while more := fire_due(scene.runtime, TIMERS):
                fired += more
                early = early or (_resident() if fired * PIECE >= count / 10 else 0.0)
            taken = time.perf_counter() - begun
            grown.append(_resident() - early)
            return taken

        def reference() -> float:
            scene.forget_timers()
            with psycopg.connect(scene.dsn, autocommit=True) as connection:
                begun = time.perf_counter()
                after: int | None = 0
                while after is not None:
                    values = {"tenant": scene.tenant_id, "journey": journey_id, "after": after, "piece": PIECE}
                    with connection.transaction():
                        row = connection.execute(_DATES, {**values, "now": scene.clock.now()}).fetchone()
                    assert row is not None
                    after = row[0]
                return time.perf_counter() - begun

        ours()
        found_by_us = scene.timers()
        reference()
        assert found_by_us == scene.timers()
        assert len(found_by_us) == count
        found = paired(ours, reference, options.size(3, 1), warm_up=0)
    result = found.result("journeys.dates", 2.0, per=count, unit="us", notes=f"{count} leads, {PIECE} in a transaction")
    most = max(grown)
    missed = (f"{most:.0f} MiB more at the end than after a tenth, more than {_GROWTH:.0f}",) if most > _GROWTH else ()
    return replace(result, missed=missed)


def _resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


_DATES = """
WITH piece AS (
  SELECT id, (metadata->>'born')::date AS born, time_zone FROM marketing_leads
  WHERE tenant_id = %(tenant)s AND id > %(after)s AND gone_at IS NULL ORDER BY id LIMIT %(piece)s),
years AS (
  SELECT id, born, time_zone, extract(year FROM %(now)s::timestamptz AT TIME ZONE time_zone)::int AS year FROM piece),
both_of AS (
  SELECT id,
    ((born + make_interval(years => year - extract(year FROM born)::int))::date + time '09:00') AT TIME ZONE time_zone AS this,
    ((born + make_interval(years => year + 1 - extract(year FROM born)::int))::date + time '09:00') AT TIME ZONE time_zone AS next
  FROM years),
timers AS (
  INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
  SELECT %(tenant)s, 'journey.date', %(journey)s || ':' || id, CASE WHEN this > %(now)s THEN this ELSE next END,
    jsonb_build_object('after', %(now)s::timestamptz), %(now)s FROM both_of
  ON CONFLICT (tenant_id, type, key) DO UPDATE SET status = 'waiting', attempts = 0, crashes = 0, error = NULL,
    lease_until = NULL, lease_token = NULL, trigger_at = excluded.trigger_at, payload = excluded.payload)
SELECT max(id) FROM piece
"""


BENCHMARKS: dict[str, Any] = {"journeys.dates": dates}
