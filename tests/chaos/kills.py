"""Processes that are killed mid-send, at random and at every commit of the protocol (SECURITY.md R01)."""

import random
import signal
import time
from collections.abc import Callable
from typing import Any

from nexus_marketing.core.campaigns import MessageClass
from tests.chaos.judge import query
from tests.chaos.stage import Stage, launch, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, merge, pass_judgement, play_to_the_end, wait_until
from tests.common.servers import PostgresCluster

#: Points that a worker passes around every commit of the protocol, and around the wire.
PROBES = (
    "delivery.claim.before",
    "delivery.claim.after",
    "delivery.intent.before",
    "delivery.intent.after",
    "wire.before",
    "wire.after",
    "delivery.wire",
    "delivery.close.before",
    "delivery.close.after",
    "delivery.plan.piece",
)


def worker_kill(servers: Servers, plan: Plan) -> Verdict:
    """SIGKILL a random one of two workers again and again during a marketing campaign."""
    return _random_kills(servers.cluster, plan, "worker_kill", MessageClass.MARKETING)


def worker_kill_transactional(servers: Servers, plan: Plan) -> Verdict:
    """The same for transactional mail, which is sent once more where the answer is missing."""
    return _random_kills(servers.cluster, plan, "worker_kill_transactional", MessageClass.TRANSACTIONAL)


def worker_kill_embedded(_servers: Servers, plan: Plan) -> Verdict:
    """The same on SQLite with one worker at a time."""
    return _random_kills(None, plan, "worker_kill_embedded", MessageClass.MARKETING)


def pserve_kill(_servers: Servers, plan: Plan) -> Verdict:
    """SIGKILL ``pserve`` itself in embedded mode, its worker thread with it."""
    return _random_kills(None, plan, "pserve_kill", MessageClass.MARKETING, Stage.start_server)


def probes(servers: Servers, plan: Plan) -> Verdict:
    """Kill once before and after every commit of the protocol, on both databases, one by one; small: on either of them."""
    total = Verdict("probes")
    for target, first in ((servers.cluster, 1), (None, 3)):
        for number, name in enumerate(PROBES):
            if plan.small and number % 2 == (target is None):
                continue
            for nth in (first,) if plan.small else (1, 3):
                merge(total, _probe(target, name, nth, plan))
    return total


def _random_kills(
    cluster: PostgresCluster | None,
    plan: Plan,
    fault: str,
    message_class: MessageClass,
    start: Callable[[Stage], Any] = Stage.start_worker,
) -> Verdict:
    rng = random.Random(plan.seed)
    workers = 2 if cluster is not None else 1
    # Slow enough answers that the audience outlasts the kills: about 0.7 s of work per kill.
    delay = max(0.002, 8 * workers * plan.faults * 0.9 / plan.audience)
    with open_stage(cluster, audience=plan.audience, reply_delay_seconds=delay) as stage:
        launch(stage, message_class)
        watch = Watch(stage.runtime)
        for _ in range(workers):
            start(stage)
        injected, slowest = 0, 0.0
        while injected < plan.faults and stage.send_status() != "completed":
            time.sleep(rng.uniform(0.2, 1.2))
            victim = rng.choice([each for each in stage.workers if each.poll() is None])
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            injected += 1
            start(stage)
            slowest = max(slowest, _recovery_seconds(stage, victim.pid))
        play_to_the_end(stage)
        # With its journal on the same host, a worker that is killed leaves one unknown per connection at most.
        return pass_judgement(
            stage,
            fault,
            injected,
            recovered=slowest,
            violations=watch.finish(),
            bound=injected * stage.connections,
            message_class=message_class,
        )


def _probe(cluster: PostgresCluster | None, name: str, nth: int, plan: Plan) -> Verdict:
    audience = min(1_200, plan.audience)
    with open_stage(cluster, audience=audience, reply_delay_seconds=0.0) as stage:
        launch(stage)
        victim = stage.start_worker(f"{name}:{nth}")
        died = wait_until(lambda: victim.poll() is not None or stage.send_status() == "completed")
        killed = victim.poll() == -signal.SIGKILL
        stage.start_worker()
        recovered = _recovery_seconds(stage, victim.pid)
        play_to_the_end(stage)
        bound = int(killed) * stage.connections
        verdict = pass_judgement(stage, f"{name}:{nth}", int(killed), recovered=recovered, violations=[], bound=bound)
        if not died:
            verdict.complaints.append(f"{name}:{nth}: the worker neither died nor finished")
        return verdict


def _recovery_seconds(stage: Stage, pid: int) -> float:
    """How long a dead process's chunks stay leased: start of its successor included."""
    started = time.monotonic()
    held = (
        "SELECT 1 FROM marketing_delivery_chunks c JOIN marketing_workers w ON w.id = c.worker"
        f" WHERE w.pid = {pid:d} AND c.closed_at IS NULL AND c.lease_until IS NOT NULL"
    )
    wait_until(lambda: not query(stage.dsn, held))
    return time.monotonic() - started
