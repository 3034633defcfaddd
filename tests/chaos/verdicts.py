"""What a scenario comes to: the judge's figures, bounds, and the invariants while it ran (DESIGN.md §7, SECURITY.md R29)."""

import json
import signal
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
from nexus_marketing.db.queries.completion import broken_invariants
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.runtime import Runtime
from tests.chaos.judge import broken, query, write_judgement
from tests.chaos.processes import Forked
from tests.chaos.stage import Stage
from tests.common.servers import PostgresCluster, RedisServer, Run, start_redis

NOBODY_WAITS_LONGER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Servers:
    """What breaks. Redis is started for the first scenario that wants it."""

    run: Run
    cluster: PostgresCluster

    @property
    def redis(self) -> RedisServer:
        """The one Redis of this run."""
        return start_redis(self.run)


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

    def require(self, holds: bool, complaint: str) -> None:
        """One more thing that this scenario asks for."""
        if not holds:
            self.complaints.append(f"{self.fault}: {complaint}")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: ``faults`` over ``audience`` leads, from a seed; ``small`` for every change, not for a night."""

    faults: int
    audience: int
    seed: int
    small: bool = False


class Watch(threading.Thread):
    """Checks the invariants about once a second while a scenario runs: the judge's, and the product's own alarm."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(daemon=True)
        self._runtime = runtime
        self._ended = threading.Event()
        self.violations: list[str] = []
        self.start()

    def run(self) -> None:
        while not self._ended.wait(1.0):
            with suppress(psycopg.OperationalError, DBAPIError):  # the database may be what breaks
                self.look()

    def look(self) -> None:
        """Once."""
        self.violations += broken(self._runtime.settings.database_owner_url)
        with open_session(self._runtime.engines.worker, tenant_id=None, mode="read") as session:
            self.violations += broken_invariants(session)

    def finish(self) -> list[str]:
        """Stop and answer what was seen."""
        self._ended.set()
        self.join()
        return sorted(set(self.violations))


def wait_until(condition: Callable[[], bool], seconds: float = NOBODY_WAITS_LONGER_SECONDS) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def status_of(stage: Stage) -> str:
    """Where the send stands, as far as the database answers."""
    try:
        return stage.send_status()
    except DBAPIError:
        return "unknown"  # the connection was one of those that broke


def settled(stage: Stage) -> int:
    """How many recipients have an outcome."""
    try:
        rows = query(stage.dsn, "SELECT count(*) FROM marketing_deliveries WHERE state <> 'planned'")
    except psycopg.OperationalError:
        return 0
    return int(rows[0][0])


def play_to_the_end(stage: Stage) -> None:
    """Wait until every send is over, for as long as somebody is written to now and then: a slow machine is no fault.

    Where nobody is for too long, every process says where it stands.
    """
    before, since = settled(stage), time.monotonic()
    while not (status_of(stage) == "completed" and not query(stage.dsn, _OPEN_SENDS)):
        time.sleep(0.1)
        now = settled(stage)
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > NOBODY_WAITS_LONGER_SECONDS:
            _ask_where_they_stand(stage)
            return


def _ask_where_they_stand(stage: Stage) -> None:
    for process in stage.living():
        process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    print(*stage.worker_log()[-60:], sep="\n", file=sys.stderr, flush=True)


_OPEN_SENDS = "SELECT 1 FROM marketing_sends WHERE status IN ('scheduled', 'planning', 'running')"


_LEFT_OPEN = """
SELECT s.status, s.status_reason, d.due_at IS NOT NULL, d.reason, count(*) FROM marketing_deliveries d
JOIN marketing_sends s ON s.tenant_id = d.tenant_id AND s.id = d.send_id WHERE d.state = 'planned' GROUP BY 1, 2, 3, 4
"""


def seconds_to_progress(stage: Stage) -> float:
    """How long until somebody is written to again."""
    started, before = time.monotonic(), settled(stage)
    wait_until(lambda: settled(stage) > before or status_of(stage) == "completed")
    return time.monotonic() - started


def pass_judgement(
    stage: Stage,
    fault: str,
    injected: int,
    *,
    recovered: float,
    violations: list[str],
    bound: int,
    message_class: MessageClass = MessageClass.MARKETING,
    skipped: int = 0,
) -> Verdict:
    """End the workers and ask the judge.

    Args:
        stage: where it was played.
        fault: what it is called.
        injected: how often it struck.
        recovered: the longest that anybody had to wait, in seconds.
        violations: what the watch saw.
        bound: how many may stay unknown.
        message_class: transactional mail may be repeated where the answer is missing.
        skipped: how many may have been left out: everybody is eligible at first.
    """
    stage.stop_workers()
    facts = _judged(stage)
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
    verdict.require(facts["skipped"] <= skipped, f"{facts['skipped']} left out, {skipped} may be")
    if facts["open"]:
        verdict.complaints.append(f"open, by send, wait for a retry, reason: {query(stage.dsn, _LEFT_OPEN)}")
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
        f"{facts['unasked']} arrived that no send asked for": facts["unasked"] > 0,
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
    log, path = stage.folder / "judge.log", stage.folder / "judgement.json"
    if Forked(log, write_judgement, path, stage.dsn, stage.sink_log, stage.audience).wait():
        raise RuntimeError(f"no judgement: {log.read_text(encoding='utf-8')}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def merge(total: Verdict, one: Verdict) -> None:
    """Add one verdict to those of its class."""
    for name in ("injected", "planned", "lost", "duplicated", "unknown", "unknown_undelivered", "bound"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.recovery_s_max = max(total.recovery_s_max, one.recovery_s_max)
    total.complaints += one.complaints
