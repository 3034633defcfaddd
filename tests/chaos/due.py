"""Thousands of timers that are due within seconds, for any number of workers: each fires once, and soon (SECURITY.md R04)."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

from nexus_marketing.services.journeys.entries import enter_members
from nexus_marketing.services.journeys.records import create_journey, publish_journey
from tests.chaos.judge import query
from tests.chaos.stage import Stage, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, wait_until

#: Two schedulers and three reconcilers: with us any worker is both.
_WORKERS, _FEW_WORKERS = 5, 3
_LATE_AT_MOST_SECONDS: Final = 5.0
_WAY: Final = {
    "id": "way",
    "entry": {"triggers": [{"on": "list"}]},
    "nodes": {"wait": {"type": "delay", "for": "300 days", "next": "out"}, "out": {"type": "exit", "reason": "seen"}},
}
#: Nobody waits for 300 days: what is moved is the timer and, with it, what its run knows.
_MOVE: Final = (
    "UPDATE marketing_journey_runs SET wake_at = %s::timestamptz + (id %% 1000) * %s * interval '1 millisecond'"
)
_FOLLOW: Final = (
    "UPDATE marketing_timers t SET trigger_at = r.wake_at FROM marketing_journey_runs r"
    " WHERE t.type = 'journey.run' AND t.key = r.id::text AND t.tenant_id = r.tenant_id"
)
_WAITING: Final = "SELECT count(*) FROM marketing_journey_runs WHERE node = 'wait' AND state = 'waiting'"
_DUE: Final = "SELECT id, wake_at FROM marketing_journey_runs"
_ENDED: Final = "SELECT id, ended_at FROM marketing_journey_runs WHERE ended_at IS NOT NULL"
_FIRED: Final = "SELECT run_id FROM marketing_journey_steps WHERE said = 'executed' AND node = 'out'"


def due_timers(servers: Servers, plan: Plan) -> Verdict:
    """Runs of a journey whose waits end within fifteen seconds: no wait ends twice, none never, and of a hundred one late."""
    timers, spread = (300, 1.0) if plan.small else (10_000, 15.0)
    with open_stage(servers.cluster, audience=timers, reply_delay_seconds=0.0) as stage:
        with stage.runtime.work(stage.tenant_id) as ctx:
            journey = create_journey(ctx, {"name": "way", "draft": _WAY})
            publish_journey(ctx, journey.id)
            enter_members(ctx, journey.id, stage.segment_id, backfill=True)
        watch = Watch(stage.runtime)
        for _ in range(_FEW_WORKERS if plan.small else _WORKERS):
            stage.start_worker()
        wait_until(lambda: query(stage.dsn, _WAITING)[0][0] == timers, 60.0 + timers / 50)
        _let_them_be_due(stage, spread)
        due = dict(query(stage.dsn, _DUE))
        wait_until(lambda: len(query(stage.dsn, _ENDED)) == timers, 60.0 + spread)
        violations = watch.finish()
        stage.stop_workers()
        ended, fired = dict(query(stage.dsn, _ENDED)), Counter(run_id for (run_id,) in query(stage.dsn, _FIRED))
        late = sorted((at - due[run_id]).total_seconds() for run_id, at in ended.items())
        late_99 = late[int(0.99 * len(late))] if late else float("inf")
        verdict = Verdict("due_timers", timers, timers, recovery_s_max=round(late_99, 1))
        verdict.lost = timers - len(fired)
        verdict.duplicated = sum(count - 1 for count in fired.values())
        verdict.require(not verdict.lost, f"{verdict.lost} of {timers} timers never fired")
        verdict.require(not verdict.duplicated, f"{verdict.duplicated} fired more than once")
        verdict.require(late[:1] > [-0.001], "a timer fired before it was due")
        is_soon = plan.small or late_99 < _LATE_AT_MOST_SECONDS  # a machine that everybody shares says nothing of it
        verdict.require(is_soon, f"one of a hundred timers fired {late_99:.1f} s late or more")
        verdict.require(not violations, f"invariants broken on the way: {violations}")
        return verdict


def _let_them_be_due(stage: Stage, spread: float) -> None:
    start = datetime.now(UTC) + timedelta(seconds=1)
    with stage.runtime.engines.owner.begin() as connection:
        connection.exec_driver_sql(_MOVE, (start, spread))
        connection.exec_driver_sql(_FOLLOW)
