"""PostgreSQL stopped and its connections ended, under workers that outlive it (SECURITY.md R09)."""

import random
import time
from collections.abc import Callable

from tests.chaos.stage import Stage, launch, open_stage
from tests.chaos.verdicts import (
    Plan,
    Servers,
    Verdict,
    Watch,
    pass_judgement,
    play_to_the_end,
    seconds_to_progress,
    settled,
    status_of,
    wait_until,
)
from tests.common.servers import PostgresCluster


def database_restart(servers: Servers, plan: Plan) -> Verdict:
    """Stop PostgreSQL at once, as a crash would, and start it again, under two workers (R09)."""

    def strike(_stage: Stage) -> None:
        servers.cluster.stop()
        servers.cluster.start()

    return _outages(servers.cluster, plan, "database_restart", strike)


def backends_terminated(servers: Servers, plan: Plan) -> Verdict:
    """End every connection to the database at once, again and again (R09)."""

    return _outages(servers.cluster, plan, "backends_terminated", lambda stage: terminate_backends(servers, stage))


def terminate_backends(servers: Servers, stage: Stage) -> None:
    """Part everybody from the stage's database."""
    database = stage.runtime.engines.worker.url.database
    with servers.cluster.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])


def _outages(cluster: PostgresCluster, plan: Plan, fault: str, strike: Callable[[Stage], None]) -> Verdict:
    """Workers outlive what happens to the database: nobody starts them again."""
    rng = random.Random(plan.seed)
    delay = max(0.002, 16 * plan.faults * 0.9 / plan.audience)
    with open_stage(cluster, audience=plan.audience, reply_delay_seconds=delay) as stage:
        launch(stage)
        watch = Watch(stage.runtime)
        workers = [stage.start_worker() for _ in range(2)]
        wait_until(lambda: settled(stage) > 0)
        injected, slowest = 0, 0.0
        while injected < plan.faults and status_of(stage) != "completed":
            time.sleep(rng.uniform(0.2, 1.2))
            strike(stage)
            injected += 1
            slowest = max(slowest, seconds_to_progress(stage))
        play_to_the_end(stage)
        ended = sum(worker.poll() is not None for worker in workers)
        # Both workers lose what they had on the wire: two windows each may be open, one message a connection on the wire.
        bound = injected * stage.connections * len(workers)
        verdict = pass_judgement(stage, fault, injected, recovered=slowest, violations=watch.finish(), bound=bound)
        verdict.require(not ended, f"{ended} workers did not outlive it")
        return verdict
