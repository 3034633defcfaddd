"""A message and a timer that end every worker that takes them up: given up, with nobody else harmed (SECURITY.md R12)."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import update

from nexus_marketing.core.deliveries import MAX_CRASHES as MOST_BY_MESSAGE
from nexus_marketing.core.timers import MAX_CRASHES as MOST_BY_TIMER
from nexus_marketing.db.models import Lead
from tests.chaos.judge import query
from tests.chaos.schedules import be_due, begun, recurring
from tests.chaos.stage import Stage, launch, make_segment, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, wait_until
from tests.chaos.worker import POISON

_LEASE_SECONDS: Final = 2.0
_FEW: Final = 3
_DEAD = "SELECT count(*) FROM marketing_timers WHERE status = 'dead'"
_CRASHED = """
SELECT l.email, d.reason FROM marketing_deliveries d JOIN marketing_leads l ON l.tenant_id = d.tenant_id AND l.id = d.lead_id
WHERE d.state = 'failed'
"""


def poison_actor(servers: Servers, plan: Plan) -> Verdict:
    """Poisoned messages by ``os._exit`` and a poisoned timer by SIGKILL, for one worker that a supervisor starts again.

    Each is given up after so many workers, as a dead letter and as a dead timer; the other messages and timers are as if
    there had been none.
    """
    audience = min(plan.audience, 1_000) if plan.small else plan.audience
    poisoned = [audience // 2] if plan.small else [audience // 5 * number for number in range(1, 5)]
    with open_stage(servers.cluster, audience=audience, reply_delay_seconds=0.005) as stage:
        stage.settings = {**stage.settings, "nexus.lease_seconds": str(_LEASE_SECONDS)}
        few = make_segment(stage, _FEW)
        with stage.runtime.work(stage.tenant_id) as ctx:
            for number in poisoned:
                address = f"{POISON}{number}@inbox.example"
                changed = update(Lead).where(Lead.id == number).values(email=address, email_norm=address)
                ctx.session.execute(changed)
        launch(stage)
        timers = [recurring(stage, name, few) for name in (f"{POISON}ed", "good", "good too")]
        be_due(stage, timers, datetime.now(UTC) + timedelta(seconds=1))
        watch = Watch(stage.runtime)
        ended, longest = _supervise(stage, timers[1:])
        stage.audience += 2 * _FEW
        verdict = pass_judgement(
            stage, "poison_actor", ended, recovered=longest, violations=watch.finish(), bound=ended * stage.connections
        )
        failed = {(f"{POISON}{number}@inbox.example", "crashed") for number in poisoned}
        found = set(query(stage.dsn, _CRASHED))
        verdict.require(found == failed, f"given up: {sorted(found)}, wanted {sorted(failed)}")
        most = len(poisoned) * MOST_BY_MESSAGE + MOST_BY_TIMER
        verdict.require(ended <= most, f"{ended} workers ended, {most} may")
        verdict.require(not begun(stage, timers[:1]), "the poisoned timer fired")
        verdict.require(begun(stage, timers[1:]) == 2, "a good timer did not fire")
        return verdict


def _supervise(stage: Stage, good: list[int]) -> tuple[int, float]:
    """Start a worker again whenever one ends, until all is done; how many ended, and the longest time without progress."""
    ended, longest, worker = 0, 0.0, stage.start_worker(poisoned=True)
    deadline = time.monotonic() + 120.0

    def over() -> bool:
        return (
            begun(stage, good) == len(good)
            and query(stage.dsn, _DEAD)[0][0] == 1
            and stage.send_status() == "completed"
        )

    while time.monotonic() < deadline and not over():
        begun_at = time.monotonic()
        if wait_until(lambda worker=worker: worker.poll() is not None, 1.0):  # type: ignore[misc]
            ended += 1
            worker = stage.start_worker(poisoned=True)
        longest = max(longest, time.monotonic() - begun_at)
    play_to_the_end(stage)
    return ended, longest
