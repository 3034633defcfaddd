"""A worker whose clock is set forward and back while it works: everything goes by the database's time (SECURITY.md R14)."""

import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.chaos.judge import query
from tests.chaos.processes import Running
from tests.chaos.schedules import be_due, begun, recurring, require_once
from tests.chaos.stage import Stage, begin_campaign, launch, make_segment, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, wait_until

#: Two hours, an hour as if the machine's clock showed local time in spring and autumn, a leap second, and right again.
_JUMPS: Final = (7_200, -7_200, 3_600, -3_600, 1, -1, 0)
FEW: Final = 3
#: What is due in the middle of the jumps, and what only a clock that is wrong calls due.
DUE: Final = 5
_LATER: Final = timedelta(hours=1)
_LEASE_SECONDS: Final = 2.0
_SLACK_SECONDS: Final = 3.0
_HELD = "SELECT 1 FROM marketing_delivery_chunks WHERE closed_at IS NULL AND lease_until IS NOT NULL AND worker = '{}'"


def clock_jumps(servers: Servers, plan: Plan) -> Verdict:
    """Two workers send; the clock of each jumps while the other one's is right or wrong the other way.

    Nobody takes over what a living worker holds, so nothing is ``unknown``. What is launched between the jumps is not
    missed; what is due fires once and not early; what is due in an hour does not fire. Then one worker is killed whose journal
    the other cannot see: with its clock two hours slow, the other takes over when the lease is over by the database's time.
    """
    rng = random.Random(plan.seed)
    jumps = len(_JUMPS) if plan.small else max(2 * len(_JUMPS), 2 * plan.faults)
    audience = min(plan.audience, 2_000) if plan.small else plan.audience
    delay = 16 * (jumps * 0.25 + _LEASE_SECONDS) * 1.3 / audience
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=delay) as stage:
        stage.settings = {**stage.settings, "nexus.chunk_size": "50", "nexus.lease_seconds": str(_LEASE_SECONDS)}
        clocks = [stage.folder / f"clock{number}" for number in range(2)]
        few = make_segment(stage, FEW)
        launch(stage)
        due = [recurring(stage, f"due {number}", few) for number in range(DUE)]
        later = [recurring(stage, f"later {number}", few) for number in range(DUE)]
        be_due(stage, later, datetime.now(UTC) + _LATER)
        watch = Watch(stage.runtime)
        for clock in clocks:
            set_clock(clock, 0)
        workers = [stage.start_worker(clock=clock, state_dir=str(clock.with_suffix(".state"))) for clock in clocks]
        wait_until(lambda: len(_leased(stage)) == len(workers))
        at = datetime.now(UTC) + timedelta(seconds=0.15 * jumps)
        be_due(stage, due, at)
        injected, launched = 0, []
        while injected < jumps and stage.send_status() == "running":
            set_clock(rng.choice(clocks), _JUMPS[injected % len(_JUMPS)])
            injected += 1
            launched.append(begin_campaign(stage, f"between {injected}", few))
            time.sleep(rng.uniform(0.1, 0.4))
        set_clock(clocks[0], 0)
        set_clock(clocks[1], min(_JUMPS))
        early = query(stage.dsn, "SELECT count(*) FROM marketing_deliveries WHERE state = 'unknown'")[0][0]
        recovered = kill_holder(stage, workers[0], names_of(stage, workers[0]))
        play_to_the_end(stage)
        wait_until(lambda: begun(stage, due) == len(due))
        play_to_the_end(stage)
        stage.audience += FEW * (len(due) + len(launched))
        # Without its journal, a killed worker leaves what its two open windows hold.
        verdict = pass_judgement(
            stage,
            "clock_jumps",
            injected,
            recovered=recovered or 0.0,
            violations=watch.finish(),
            bound=2 * stage.connections,
        )
        verdict.require(injected == jumps, f"only {injected} of {jumps} jumps fell into the send")
        verdict.require(early == 0, f"{early} unknown before anybody was killed: a living worker was taken over")
        if recovered is not None:
            allowed = _LEASE_SECONDS + _SLACK_SECONDS
            verdict.require(
                recovered <= allowed, f"taken over after {recovered:.1f} s, the lease is {_LEASE_SECONDS} s"
            )
            verdict.require(recovered > 0.5, "taken over at once: its lease was not waited for")
        for campaigns in (due, launched):
            require_once(stage, verdict, campaigns, "completed")
        require_not_early(stage, verdict, due, at)
        verdict.require(not begun(stage, later), f"what is due in {_LATER} was sent")
        verdict.require(recovered is not None, "the worker held nothing when it was killed: no evidence")
        return verdict


def require_not_early(stage: Stage, verdict: Verdict, campaigns: list[int], at: datetime) -> None:
    """By the mail server's clock, which is right."""
    ids = ", ".join(map(str, campaigns))
    sends = {id_ for (id_,) in query(stage.dsn, f"SELECT id FROM marketing_sends WHERE campaign_id IN ({ids})")}
    early = [each for each in stage.arrivals() if each.send_id in sends and each.at < at.timestamp()]
    verdict.require(not early, f"{len(early)} arrived before they were due")


def set_clock(clock: Path, seconds: int) -> None:
    """Say in a file by how many seconds a clock is wrong; in one step, as somebody reads it all the time."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.replace(clock)


def _leased(stage: Stage) -> list[tuple[str]]:
    return query(
        stage.dsn,
        "SELECT DISTINCT worker FROM marketing_delivery_chunks WHERE closed_at IS NULL AND lease_until IS NOT NULL",
    )


def names_of(stage: Stage, worker: Running) -> list[str]:
    """What a worker is called in the database, once it has said so."""
    statement = f"SELECT id FROM marketing_workers WHERE pid = {worker.pid:d}"
    wait_until(lambda: bool(query(stage.dsn, statement)))
    return [name for (name,) in query(stage.dsn, statement)]


def kill_holder(
    stage: Stage, worker: Running, names: list[str], then: Callable[[], None] = lambda: None
) -> float | None:
    """End a worker that holds something, and do what comes next; how long until that is taken over.

    ``None`` where it held nothing until everybody was written to.
    """
    worker.send_signal(signal.SIGSTOP)
    while not (held := [name for name in names if query(stage.dsn, _HELD.format(name))]):
        worker.send_signal(signal.SIGCONT)
        if stage.send_status() == "completed":
            break
        time.sleep(0.02)
        worker.send_signal(signal.SIGSTOP)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    then()
    begun = time.monotonic()
    if not held:
        return None
    wait_until(lambda: not query(stage.dsn, _HELD.format(held[0])), 30.0)
    return time.monotonic() - begun
