"""Journeys whose workers are killed: each lead goes one way, step by step, and nobody stands still (R19)."""

import random
import signal
import time
from typing import Final

from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.services.journeys.entries import enter_members
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from nexus_marketing.services.templates import create_template
from tests.chaos.judge import query
from tests.chaos.stage import HTML, SUBJECT, Stage, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, wait_until

_WORKERS: Final = 2
_KILL_EVERY_SECONDS: Final = (1.0, 5.0)
_LIVE: Final = "state NOT IN ('done', 'exited', 'failed')"
_HELLO: Final = {"type": "message", "channel": "email", "template": "t", "class": "transactional"}
_WAIT: Final = {"type": "wait_until", "until": [{"event": "ordered", "to": "end"}], "grace": "1 second"}
_NODES: Final = {
    "first": {**_HELLO, "next": "pause"},
    "pause": {"type": "delay", "for": "1 second", "next": "which"},
    "which": {
        "type": "split",
        "ways": [{"name": "a", "weight": 50, "to": "a"}, {"name": "b", "weight": 50, "to": "b"}],
    },
    "a": {**_HELLO, "next": "asked"},
    "b": {"type": "score", "points": 1, "next": "asked"},
    "asked": {"type": "branch", "branches": [{"when": "score > 0", "to": "wait"}], "else": "later"},
    "later": {"type": "delay", "for": "1 second", "next": "wait"},
    "wait": {**_WAIT, "timeout": {"after": "1 second", "to": "last"}},
    "last": {**_HELLO, "next": "end"},
}
_TWICE: Final = (
    "SELECT lead_id, step FROM marketing_deliveries WHERE step <> '' GROUP BY lead_id, step HAVING count(*) > 1"
)
#: The nodes that each run executed, in the order of its history.
_WAYS: Final = (
    "SELECT way, count(*) FROM (SELECT run_id, string_agg(node, ' ' ORDER BY id) AS way FROM marketing_journey_steps"
    " WHERE said = 'executed' GROUP BY run_id) w GROUP BY way"
)
_ALLOWED: Final = frozenset({"first pause which a asked later wait last", "first pause which b asked wait last"})
#: Whose points are not those of the way they went.
_POINTS: Final = (
    "SELECT l.id FROM marketing_leads l WHERE l.score <>"
    " (SELECT count(*) FROM marketing_journey_steps s JOIN marketing_journey_runs r"
    " ON r.tenant_id = s.tenant_id AND r.id = s.run_id"
    " WHERE r.tenant_id = l.tenant_id AND r.lead_id = l.id AND s.node = 'b' AND s.said = 'executed')"
)


def journey_kill(servers: Servers, plan: Plan) -> Verdict:
    """Kill a worker every few seconds while everybody is on a journey with waits, a split, a branch and messages.

    In between everybody is let in once more, who may be in only once.
    """
    rng = random.Random(plan.seed)
    leads = 60 if plan.small else max(plan.audience, 10_000)
    with open_stage(servers.cluster, audience=leads, reply_delay_seconds=0.0) as stage:
        _begin(stage)
        watch = Watch(stage.runtime)
        for _ in range(_WORKERS):
            stage.start_worker()
        wait_until(lambda: _count(stage, "true") > leads // 10)
        killed, slowest, before = 0, 0.0, _progress(stage)
        while killed < plan.faults and not _is_over(stage, leads):
            time.sleep(rng.uniform(*_KILL_EVERY_SECONDS) if not plan.small else 1.0)
            victim = rng.choice(stage.living())
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            killed += 1
            if killed % 4 == 1:
                _let_in(stage)
            stage.start_worker()
            began, before = time.monotonic(), _progress(stage)
            wait_until(lambda before=before: _progress(stage) > before or _is_over(stage, leads))  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
        wait_until(lambda: _is_over(stage, leads), 240.0 + leads / 10)
        violations = watch.finish()
        stage.stop_workers()
        verdict = Verdict("journey_kill", killed, leads, recovery_s_max=round(slowest, 1))
        return _judge(stage, verdict, leads, violations)


def _begin(stage: Stage) -> None:
    with stage.runtime.work(stage.tenant_id) as ctx:
        create_template(ctx, {"name": "t", "type": "email", "content": {"subject": SUBJECT, "html": HTML}})
        draft = {"id": "way", "entry": {"triggers": [{"on": "list"}]}, "nodes": _NODES}
        journey = create_journey(ctx, {"name": "way", "draft": draft})
        publish_journey(ctx, journey.id)
    _let_in(stage)


def _let_in(stage: Stage) -> None:
    with stage.runtime.work(stage.tenant_id) as ctx:
        enter_members(ctx, 1, stage.segment_id, backfill=True)


def _judge(stage: Stage, verdict: Verdict, leads: int, violations: list[str]) -> Verdict:
    ways = dict(query(stage.dsn, _WAYS))
    verdict.lost = leads - _count(stage, "state = 'done'")
    verdict.duplicated = len(query(stage.dsn, _TWICE))
    with open_session(stage.runtime.engines.worker, tenant_id=None, mode="read") as session:
        broken = broken_invariants(session)
    verdict.require(verdict.injected > 0, "nothing was injected")
    verdict.require(not verdict.lost, f"{verdict.lost} of {leads} did not come to the end")
    verdict.require(_count(stage, "true") == leads, f"{_count(stage, 'true')} runs of {leads} leads")
    verdict.require(not _count(stage, _LIVE), f"{_count(stage, _LIVE)} runs stand still")
    verdict.require(not verdict.duplicated, f"{verdict.duplicated} steps sent twice to a lead")
    verdict.require(ways.keys() <= _ALLOWED, f"ways that there are not: {sorted(ways.keys() - _ALLOWED)[:3]}")
    wrong = query(stage.dsn, _POINTS)
    verdict.require(not wrong, f"{len(wrong)} leads got points that they should not have, or got none")
    verdict.require(not broken, f"invariants broken at the end: {sorted(broken)}")
    verdict.require(not violations, f"invariants broken on the way: {violations}")
    if verdict.complaints:
        verdict.complaints += [f"worker said: {line}" for line in stage.worker_log()[-5:]]
    return verdict


def _is_over(stage: Stage, leads: int) -> bool:
    return _count(stage, f"NOT ({_LIVE})") == leads


def _count(stage: Stage, which: str) -> int:
    return int(query(stage.dsn, f"SELECT count(*) FROM marketing_journey_runs WHERE {which}")[0][0])


def _progress(stage: Stage) -> int:
    return int(query(stage.dsn, "SELECT count(*) FROM marketing_journey_steps")[0][0])
