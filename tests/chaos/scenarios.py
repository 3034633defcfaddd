"""The faults: each plays one campaign to its end while something breaks, and asks the judge (SECURITY.md R01, R29)."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.campaigns import MessageClass
from tests.chaos import imports
from tests.chaos.judge import broken, query
from tests.chaos.stage import Stage, launch, open_stage
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
_NOBODY_WAITS_LONGER_SECONDS = 60.0


@dataclass(slots=True)
class Verdict:
    """What DESIGN.md §7 asks of every fault class; ``ok`` sums it up."""

    fault: str
    injected: int = 0
    planned: int = 0
    lost: int = 0
    duplicated: int = 0
    unknown: int = 0
    unknown_undelivered: int = 0
    bound: int = 0
    recovery_s_max: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nobody lost, nothing twice that may not be, unknown within its bound, no complaint."""
        return not self.complaints


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: ``faults`` kills over ``audience`` leads, from a seed; each probe once or several times."""

    faults: int
    audience: int
    seed: int
    every_probe: bool = True


class Watch(threading.Thread):
    """Checks the invariants about once a second while a scenario runs (R29)."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._ended = threading.Event()
        self.violations: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(1.0):
            with suppress(psycopg.OperationalError):  # the database is what breaks
                self.violations += broken(self._dsn)

    def finish(self) -> list[str]:
        """Stop and answer what was seen."""
        self._ended.set()
        self.join()
        return sorted(set(self.violations))


def worker_kill(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """SIGKILL a random one of two workers again and again during a marketing campaign."""
    return _random_kills(cluster, plan, "worker_kill", MessageClass.MARKETING)


def worker_kill_transactional(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """The same for transactional mail, which is sent once more where the answer is missing."""
    return _random_kills(cluster, plan, "worker_kill_transactional", MessageClass.TRANSACTIONAL)


def worker_kill_embedded(_cluster: PostgresCluster, plan: Plan) -> Verdict:
    """The same on SQLite with one worker at a time."""
    return _random_kills(None, plan, "worker_kill_embedded", MessageClass.MARKETING)


def pserve_kill(_cluster: PostgresCluster, plan: Plan) -> Verdict:
    """SIGKILL ``pserve`` itself in embedded mode, its worker thread with it."""
    return _random_kills(None, plan, "pserve_kill", MessageClass.MARKETING, Stage.start_server)


def database_restart(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """Stop PostgreSQL at once, as a crash would, and start it again, under two workers (R09)."""

    def strike(_stage: Stage) -> None:
        cluster.stop()
        cluster.start()

    return _outages(cluster, plan, "database_restart", strike)


def backends_terminated(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """End every connection to the database at once, again and again (R09)."""

    def strike(stage: Stage) -> None:
        database = stage.runtime.engines.worker.url.database
        with cluster.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])

    return _outages(cluster, plan, "backends_terminated", strike)


def probes(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """Kill once before and after every commit of the protocol, on both databases, one by one."""
    total = Verdict("probes")
    for target, first in ((cluster, 1), (None, 3)):
        for name in PROBES:
            for nth in (1, 3) if plan.every_probe else (first,):
                _merge(total, _probe(target, name, nth, plan))
    return total


def import_kill(cluster: PostgresCluster, plan: Plan) -> Verdict:
    """SIGKILL the worker in the middle of a file of leads, on both databases; it ends as if nobody had died."""
    verdict = Verdict("import_kill")
    for target, size in ((cluster, 2_000), (None, 1_000)):
        rows = (2 * plan.faults + 5) * size
        killed, lost, different, complaints = imports.play(target, plan.faults, rows, plan.seed)
        verdict.injected += killed
        verdict.planned += rows
        verdict.lost += lost
        verdict.duplicated += different
        verdict.complaints += complaints
        if killed < plan.faults:
            verdict.complaints.append(f"only {killed} of {plan.faults} kills fell into the file")
    if verdict.lost or verdict.duplicated:
        verdict.complaints.append(f"{verdict.lost} leads are missing, {verdict.duplicated} are not as they should be")
    return verdict


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
        watch = Watch(stage.runtime.settings.database_owner_url)
        watch.start()
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
        _play_to_the_end(stage)
        return _verdict(stage, fault, injected, message_class, slowest, watch.finish())


def _outages(cluster: PostgresCluster, plan: Plan, fault: str, strike: Callable[[Stage], None]) -> Verdict:
    """Workers outlive what happens to the database: nobody starts them again."""
    rng = random.Random(plan.seed)
    delay = max(0.002, 16 * plan.faults * 0.9 / plan.audience)
    with open_stage(cluster, audience=plan.audience, reply_delay_seconds=delay) as stage:
        launch(stage)
        watch = Watch(stage.runtime.settings.database_owner_url)
        watch.start()
        workers = [stage.start_worker() for _ in range(2)]
        _wait(lambda: _settled(stage) > 0)
        injected, slowest = 0, 0.0
        while injected < plan.faults and _status(stage) != "completed":
            time.sleep(rng.uniform(0.2, 1.2))
            strike(stage)
            injected += 1
            slowest = max(slowest, _seconds_to_progress(stage))
        _play_to_the_end(stage)
        ended = sum(worker.poll() is not None for worker in workers)
        # Both workers lose what they had on the wire: two windows each may be open, one message a connection on the wire.
        verdict = _verdict(stage, fault, injected, MessageClass.MARKETING, slowest, watch.finish(), struck=len(workers))
        if ended:
            verdict.complaints.append(f"{fault}: {ended} workers did not outlive it")
        return verdict


def _status(stage: Stage) -> str:
    try:
        return stage.send_status()
    except DBAPIError:
        return "unknown"  # the connection was one of those that broke


def _settled(stage: Stage) -> int:
    try:
        rows = query(stage.runtime.settings.database_owner_url, _SETTLED)
    except psycopg.OperationalError:
        return 0
    return int(rows[0][0])


_SETTLED = "SELECT count(*) FROM marketing_deliveries WHERE state <> 'planned'"


def _seconds_to_progress(stage: Stage) -> float:
    """How long until somebody is written to again."""
    started, before = time.monotonic(), _settled(stage)
    _wait(lambda: _settled(stage) > before or _status(stage) == "completed")
    return time.monotonic() - started


def _probe(cluster: PostgresCluster | None, name: str, nth: int, plan: Plan) -> Verdict:
    audience = min(1_200, plan.audience)
    with open_stage(cluster, audience=audience, reply_delay_seconds=0.0) as stage:
        launch(stage)
        victim = stage.start_worker(f"{name}:{nth}")
        died = _wait(lambda: victim.poll() is not None or stage.send_status() == "completed")
        killed = victim.poll() == -signal.SIGKILL
        stage.start_worker()
        recovered = _recovery_seconds(stage, victim.pid)
        _play_to_the_end(stage)
        verdict = _verdict(stage, f"{name}:{nth}", int(killed), MessageClass.MARKETING, recovered, [])
        if not died:
            verdict.complaints.append(f"{name}:{nth}: the worker neither died nor finished")
        return verdict


def _play_to_the_end(stage: Stage) -> None:
    _wait(lambda: _status(stage) == "completed")


def _recovery_seconds(stage: Stage, pid: int) -> float:
    """How long a dead process's chunks stay leased: start of its successor included."""
    started = time.monotonic()
    held = (
        "SELECT 1 FROM marketing_delivery_chunks c JOIN marketing_workers w ON w.id = c.worker"
        f" WHERE w.pid = {pid:d} AND c.closed_at IS NULL AND c.lease_until IS NOT NULL"
    )
    _wait(lambda: not query(stage.runtime.settings.database_owner_url, held))
    return time.monotonic() - started


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _NOBODY_WAITS_LONGER_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _verdict(
    stage: Stage,
    fault: str,
    injected: int,
    message_class: MessageClass,
    recovered: float,
    violations: list[str],
    *,
    struck: int = 1,
) -> Verdict:
    stage.stop_workers()
    facts = _judged(stage)
    # With its journal on the same host, a worker that is struck leaves one unknown per connection at most.
    bound = injected * stage.connections * struck
    verdict = Verdict(
        fault=fault,
        injected=injected,
        planned=facts["planned"],
        lost=facts["lost"],
        duplicated=facts["duplicated"],
        unknown=facts["unknown"],
        unknown_undelivered=facts["unknown_undelivered"],
        bound=bound,
        recovery_s_max=round(recovered, 1),
    )
    verdict.complaints = _complaints(facts, verdict, message_class, violations)
    if verdict.complaints:
        verdict.complaints += [f"worker said: {line}" for line in stage.worker_log()[-5:]]
    return verdict


def _complaints(
    facts: Mapping[str, Any], verdict: Verdict, message_class: MessageClass, violations: list[str]
) -> list[str]:
    may_repeat = verdict.bound if message_class is MessageClass.TRANSACTIONAL else 0
    checks = {
        f"{facts['lost']} lost": facts["lost"] > 0,
        f"{facts['duplicated']} duplicated, {may_repeat} allowed": facts["duplicated"] > may_repeat,
        f"{facts['changed_message_id']} copies with another Message-ID": facts["changed_message_id"] > 0,
        f"{facts['unknown']} unknown, bound {verdict.bound}": facts["unknown"] > verdict.bound,
        f"{facts['unknown']} unknown is over 5 % of the audience: no evidence": facts["unknown"]
        > 0.05 * facts["audience"],
        f"planned {facts['planned']} of {facts['audience']}": facts["planned"] != facts["audience"],
        f"{facts['open']} rows still open": facts["open"] > 0,
        f"invariants broken at the end: {facts['broken']}": bool(facts["broken"]),
        f"invariants broken on the way: {violations}": bool(violations),
        "nothing was injected": verdict.injected == 0 and ":" not in verdict.fault,
    }
    return [f"{verdict.fault}: {text}" for text, wrong in checks.items() if wrong]


def _judged(stage: Stage) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos.judge", "--dsn", stage.runtime.settings.database_owner_url]
    command += ["--log", str(stage.sink_log), "--audience", str(stage.audience)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(printed.stdout))


def _merge(total: Verdict, one: Verdict) -> None:
    for name in ("injected", "planned", "lost", "duplicated", "unknown", "unknown_undelivered", "bound"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.recovery_s_max = max(total.recovery_s_max, one.recovery_s_max)
    total.complaints += one.complaints


FAULTS: Mapping[str, Callable[[PostgresCluster, Plan], Verdict]] = {
    "worker_kill": worker_kill,
    "worker_kill_transactional": worker_kill_transactional,
    "worker_kill_embedded": worker_kill_embedded,
    "pserve_kill": pserve_kill,
    "database_restart": database_restart,
    "backends_terminated": backends_terminated,
    "probes": probes,
    "import_kill": import_kill,
}
