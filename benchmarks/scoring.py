"""``scoring.update``: a lead that did something, looked at by 20 rules, against the same reads and writes by hand."""

import json
import math
import time
from datetime import datetime, timedelta
from typing import Any

import psycopg

from benchmarks.common import Options, Result, paired
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.clock import FakeClock
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.engagements import record_engagements
from nexus_marketing.services.scores.looking import Batch
from nexus_marketing.services.scores.recomputing import finish_recompute
from nexus_marketing.services.scores.records import create_score, publish_score
from nexus_marketing.services.scores.scoring import score_leads, score_marked
from nexus_marketing.services.scores.sheets import published_sheets
from tests.common import databases
from tests.common.databases import NOW
from tests.common.factories import make_leads, make_tenant

#: PR-006.
_MOST_MS = 50.0
_HISTORY = 50
_POINTS = 3.0
_HALF_LIFE_DAYS = 30.0


def _rules() -> dict[str, Any]:
    """Ten rules about events, of which two meet a visit to the prices, and ten about what a lead is."""
    visits = [
        {"key": "prices", "event": "page_visited", "where": "metadata.url == '/prices'", "points": _POINTS},
        {
            "key": "visit",
            "event": "page_visited",
            "points": 1,
            "cap": {"points": 10, "period": "1 day"},
            "group": "web",
        },
    ]
    visits += [
        {"key": f"page{n}", "event": "page_visited", "where": f"metadata.url == '/{n}'", "points": n}
        for n in range(1, 5)
    ]
    forms = [{"key": f"form{n}", "event": "form_submitted", "points": n, "counts": "once"} for n in range(1, 5)]
    leads = [{"key": f"country{n}", "when": f"country == 'C{n}'", "points": n} for n in range(1, 10)]
    leads.append({"key": "us", "when": "country == 'US' AND metadata.plan != 'free'", "points": 10})
    return {
        "rules": [*visits, *forms, *leads],
        "groups": {"web": {"max": 40}},
        "max": 1000,
        "decay": {"half_life": f"{_HALF_LIFE_DAYS:.0f} days"},
        "thresholds": [{"key": "hot", "up": 500, "down": 450}],
    }


def update(options: Options) -> Result:
    """From a mark to a stored score, a transaction per lead, each with 50 earlier contributions.

    The reference knows the two rules that meet the event. It takes a mark, locks the lead, reads the engagement, the
    contributions and the value, adds up what is left of each by its age, and writes what ours writes: two
    contributions (as one batch), the value with the moment of its next change, the lead, the timer of that moment,
    the mark for segments and an audit row.

    Until 2026-11 it left the moment, the timer and the mark out, which are no less part of a changed score
    (BEHAVIOUR.md 5.4, BR-013), wrote its contributions one by one and looked values up without the score's id.
    """
    count = options.size(300, 40)
    with databases.postgres_runtime(options.cluster, options.folder, clock=FakeClock(NOW)) as runtime:
        tenant_id = make_tenant(runtime)
        leads = make_leads(runtime, tenant_id, count, country="US", score=0.0)
        with runtime.work(tenant_id, SYSTEM) as ctx:
            row = publish_score(ctx, create_score(ctx, {"name": "score", "draft": _rules()}).id)
        finish_recompute(runtime, tenant_id, row.id)
        _fill(runtime, tenant_id, leads)
        database = runtime.engines.worker.url.database
        dsn = options.cluster.dsn("postgres", database).replace("postgresql+psycopg", "postgresql")
        slowest: list[float] = []

        def prepare() -> float:
            """One more visit of each lead; answers how much all scores come to."""
            rows = [{"type": "page_visited", "lead_id": str(lead), "metadata": {"url": "/prices"}} for lead in leads]
            with runtime.work(tenant_id, SYSTEM) as ctx:
                assert all(each["status"] == "accepted" for each in record_engagements(ctx, rows))
            return _total(runtime)

        def ours() -> float:
            before = prepare()
            taken = 0.0
            for _ in leads:
                begun = time.perf_counter()
                assert score_marked(runtime, tenant_id, 1) == 1
                slowest.append(time.perf_counter() - begun)
                taken += slowest[-1]
            assert score_marked(runtime, tenant_id, 1) == 0
            assert _total(runtime) - before >= count * _POINTS * 0.9
            return taken

        def reference() -> float:
            before = prepare()
            with psycopg.connect(dsn, autocommit=True) as connection:
                begun = time.perf_counter()
                for _ in leads:
                    with connection.transaction():
                        _by_hand(connection, tenant_id)
                taken = time.perf_counter() - begun
            assert _total(runtime) - before >= count * _POINTS * 0.9
            return taken

        found = paired(ours, reference, 5)
        prepare()
        begun = time.perf_counter()
        done = 0
        while done < count:
            done += score_marked(runtime, tenant_id)
        batched = (time.perf_counter() - begun) / count * 1e3
    worst = sorted(slowest)[int(len(slowest) * 0.99)] * 1e3
    missed = (f"{worst:.1f} ms, more than {_MOST_MS:.0f} ms (PR-006)",) if worst > _MOST_MS else ()
    result = found.result(
        "scoring.update",
        2.0,
        per=count,
        unit="ms",
        notes=f"99 of 100 within {worst:.1f} ms; {batched:.2f} ms a lead in batches of 100",
    )
    return Result(**{**{name: getattr(result, name) for name in _FIELDS}, "missed": missed})


_FIELDS = ("name", "ours", "reference", "unit", "target", "repetitions", "notes")


def _fill(runtime: Runtime, tenant_id: int, leads: list[int]) -> None:
    """Earlier points of each lead, as the worker writes them, and its value."""
    with runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(
            f"""INSERT INTO marketing_score_contributions
                (tenant_id, score_id, rule, version, cause, turn, lead_id, kind, points, at)
                SELECT {tenant_id}, s.id, 'prices', 1, -(l.id * 1000 + n), 0, l.id, 'event', {_POINTS},
                       timestamptz '{NOW.isoformat()}' - n * interval '1 day'
                FROM marketing_scores s, marketing_leads l, generate_series(1, {_HISTORY}) n"""
        )
        connection.exec_driver_sql("ANALYZE marketing_score_contributions")
    with runtime.work(tenant_id, SYSTEM) as ctx:
        assert len(score_leads(ctx, published_sheets(ctx), Batch(set(leads)))) == len(leads)


def _by_hand(connection: psycopg.Connection[Any], tenant_id: int) -> None:
    cursor: Any = connection.cursor()
    lead_id, since, until = cursor.execute(
        """DELETE FROM marketing_score_marks WHERE tenant_id = %s AND id = (SELECT id FROM marketing_score_marks
           WHERE tenant_id = %s ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING lead_id, since, until""",
        (tenant_id, tenant_id),
    ).fetchone()
    country, shown = cursor.execute(
        "SELECT country, score FROM marketing_leads WHERE tenant_id = %s AND id = %s FOR NO KEY UPDATE",
        (tenant_id, lead_id),
    ).fetchone()
    (score_id, rules) = cursor.execute(
        """SELECT s.id, v.rules FROM marketing_scores s JOIN marketing_score_versions v ON v.tenant_id = s.tenant_id
           AND v.score_id = s.id AND v.number = s.published WHERE s.tenant_id = %s""",
        (tenant_id,),
    ).fetchone()
    events = cursor.execute(
        """SELECT id, tracked_at, metadata FROM marketing_engagements WHERE tenant_id = %s AND lead_id = %s
           AND tracked_at >= %s AND tracked_at <= %s AND type = 'page_visited' AND verdict = 'human'""",
        (tenant_id, lead_id, since, until),
    ).fetchall()
    rows = cursor.execute(
        """SELECT rule, cause, turn, points, at FROM marketing_score_contributions
           WHERE tenant_id = %s AND lead_id = %s AND score_id = %s ORDER BY at""",
        (tenant_id, lead_id, score_id),
    ).fetchall()
    cursor.execute(
        "SELECT value, version, marks FROM marketing_score_values WHERE tenant_id = %s AND score_id = %s AND lead_id = %s",
        (tenant_id, score_id, lead_id),
    ).fetchone()
    assert country == "US"
    assert len(rules["rules"]) == 20
    known = {(rule, cause) for rule, cause, *_ in rows}
    new = [
        (rule, event_id, 0, points, at)
        for event_id, at, metadata in events
        for rule, points in (("prices", _POINTS), ("visit", 1.0))
        if metadata["url"] == "/prices" and (rule, event_id) not in known
    ]
    cursor.executemany(
        """INSERT INTO marketing_score_contributions (tenant_id, score_id, rule, version, cause, turn, lead_id, kind,
           points, at) VALUES (%s, %s, %s, 1, %s, %s, %s, 'event', %s, %s)""",
        [(tenant_id, score_id, rule, cause, turn, lead_id, points, at) for rule, cause, turn, points, at in new],
    )
    value, change_at = _added_up([*rows, *new])
    cursor.execute(
        """INSERT INTO marketing_score_values (tenant_id, score_id, lead_id, value, version, next_change_at, computed_at)
           VALUES (%s, %s, %s, %s, 1, %s, %s) ON CONFLICT (tenant_id, score_id, lead_id)
           DO UPDATE SET value = excluded.value, next_change_at = excluded.next_change_at,
           computed_at = excluded.computed_at""",
        (tenant_id, score_id, lead_id, value, change_at, NOW),
    )
    cursor.execute(
        """INSERT INTO marketing_timers (tenant_id, type, key, trigger_at, payload, created_at)
           VALUES (%s, 'scores.due', '', %s, '{}', %s) ON CONFLICT (tenant_id, type, key)
           DO UPDATE SET trigger_at = excluded.trigger_at WHERE marketing_timers.trigger_at > excluded.trigger_at""",
        (tenant_id, change_at, NOW),
    )
    cursor.execute(
        """INSERT INTO marketing_segment_marks (tenant_id, names, lead_ids, marked_at)
           VALUES (%s, '["score"]', %s, %s)""",
        (tenant_id, json.dumps([lead_id]), NOW),
    )
    cursor.execute(
        "UPDATE marketing_leads SET score = %s WHERE tenant_id = %s AND id = %s", (value, tenant_id, lead_id)
    )
    body = json.dumps({"before": shown, "after": value})
    cursor.execute(
        """INSERT INTO marketing_audit (tenant_id, at, actor, action, subject_type, subject_id, request_id, body, body_hash)
           VALUES (%s, %s, 'system', 'scores.updated', 'lead', %s, '', %s, '')""",
        (tenant_id, NOW, str(lead_id), body),
    )


def _added_up(rows: list[tuple[str, int, int, float, datetime]]) -> tuple[float, datetime]:
    """The score, and when it is another: attributes give 10; visits of a day at most 10 points, at most 40 in all."""
    fading, web = 0.0, 0.0
    by_day: dict[int, float] = {}
    for rule, _, _, points, at in rows:
        weight = 0.5 ** ((NOW - at).total_seconds() / 86_400 / _HALF_LIFE_DAYS)
        if rule == "prices":
            fading += points * weight
        elif rule == "visit":
            day = int(at.timestamp() // 86_400)
            counted = min(points, 10.0 - by_day.get(day, 0.0))
            by_day[day] = by_day.get(day, 0.0) + counted
            web += counted * weight
    fading += min(web, 40.0)
    value = float(round(10.0 + fading))
    days = _HALF_LIFE_DAYS * math.log2(fading / max(value - 0.5 - 10.0, 0.01))
    return value, NOW + timedelta(days=max(days, 0.001))


def _total(runtime: Runtime) -> float:
    with runtime.engines.owner.connect() as connection:
        return float(connection.exec_driver_sql("SELECT sum(score) FROM marketing_leads").scalar_one())


BENCHMARKS: dict[str, Any] = {"scoring.update": update}
