"""Workers that are killed while they take back what failed campaigns did: the last first, each once (SECURITY.md R20)."""

import random
import signal
import time
from collections import Counter, defaultdict
from typing import Any, Final

from nexus_marketing.core.timers import MAX_CRASHES
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.records import create_campaign
from nexus_marketing.services.definitions import create_definition, publish_definition
from nexus_marketing.services.plugins.enabling import switch_on
from tests.chaos import deeds
from tests.chaos.judge import query
from tests.chaos.stage import Stage, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, wait_until
from tests.common.plugins import with_plugins

_WORKERS: Final = 2
_STEPS: Final = 5
_FAILS: Final = 3
#: Of each campaign, in this order.
_WANTED: Final = ["do 1", "do 2", "undo 2", "undo 1"]
_ROWS: Final = [("do", "done"), ("do", "done"), ("do", "failed"), ("undo", "done"), ("undo", "done")]
_UNDOING: Final = "SELECT campaign_id, name, state FROM marketing_actions ORDER BY campaign_id, id"
_TOLD: Final = "SELECT campaign_id, payload FROM marketing_history WHERE event = 'compensated'"
_OPEN: Final = "SELECT type, status, crashes FROM marketing_timers"
_WORST: Final = "SELECT coalesce(max(crashes), 0) FROM marketing_timers WHERE type = 'action.run'"


def compensation_kill(servers: Servers, plan: Plan) -> Verdict:
    """Campaigns of five steps whose third is refused; whoever takes the first two back is killed, again and again.

    Not three times over the same step: that one would be given up, and wait for a person.
    """
    rng = random.Random(plan.seed)
    campaigns = 8 if plan.small else 5 * plan.faults
    with open_stage(servers.cluster, audience=0, reply_delay_seconds=0.0) as stage:
        stage.settings = {**stage.settings, "nexus.lease_seconds": "1", "nexus.includes": deeds.__name__}
        launched = _launch(stage, campaigns)
        for _ in range(_WORKERS):
            stage.start_worker()
        killed, slowest = 0, 0.0
        while killed < plan.faults and not _is_over(stage, campaigns):
            before = _undone(stage)
            wait_until(lambda before=before: _undone(stage) > before or _is_over(stage, campaigns))  # type: ignore[misc]
            wait_until(lambda: query(stage.dsn, _WORST)[0][0] < MAX_CRASHES - 1)
            time.sleep(rng.uniform(0.0, 4 * deeds.PAUSE_SECONDS))
            victim = rng.choice(stage.living())
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            killed += 1
            stage.start_worker()
            began, before = time.monotonic(), _undone(stage)
            wait_until(lambda before=before: _undone(stage) > before or _is_over(stage, campaigns))  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
        wait_until(lambda: _is_over(stage, campaigns))
        stage.stop_workers()
        verdict = Verdict("compensation_kill", killed, campaigns, recovery_s_max=round(slowest, 1))
        return _judge(stage, verdict, launched, plan)


def _launch(stage: Stage, count: int) -> list[int]:
    steps: list[dict[str, Any]] = [
        {"action": "do", "data": {"n": n, **({"refused": True} if n == _FAILS else {})}, "compensate": "undo"}
        for n in range(1, _STEPS + 1)
    ]
    stage.runtime = with_plugins(stage.runtime, deeds.includeme)
    with stage.runtime.work(stage.tenant_id) as ctx:
        switch_on(ctx, deeds.PLUGIN, {"folder": str(stage.folder)})
        made = create_definition(ctx, {"schema": {"id": "five", "automation": {"steps": steps}}})
        publish_definition(ctx, made.id)
        launched = []
        for number in range(count):
            campaign_id = create_campaign(ctx, {"definition_id": str(made.id), "name": f"c{number}"}).id
            move_campaign(ctx, campaign_id, "launch")
            launched.append(campaign_id)
        return launched


def _judge(stage: Stage, verdict: Verdict, campaigns: list[int], plan: Plan) -> Verdict:
    """From the file that the actions wrote, then from plain SQL."""
    effects: dict[int, list[str]] = defaultdict(list)
    for line in deeds.read(stage.folder / deeds.EFFECTS):
        campaign, _, said = line.partition(" ")
        effects[int(campaign)].append(said)
    for campaign_id in campaigns:
        found = Counter(effects[campaign_id])
        verdict.lost += sum((Counter(_WANTED) - found).values())
        verdict.duplicated += sum((found - Counter(_WANTED)).values())
    disordered = {each: effects[each] for each in campaigns if effects[each] != _WANTED}
    rows: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for campaign_id, name, state in query(stage.dsn, _UNDOING):
        rows[campaign_id].append((name, state))
    wrong = {each: rows[each] for each in campaigns if rows[each] != _ROWS}
    told = dict(query(stage.dsn, _TOLD))
    untold = [each for each in campaigns if told.get(each) != {"done": 2, "failed": 0}]
    again = len(deeds.read(stage.folder / deeds.CALLS)) - sum(map(len, effects.values()))
    verdict.require(verdict.injected > 0, "nothing was injected")
    verdict.require(
        not disordered, f"{len(disordered)} not taken back in reverse, once: {list(disordered.items())[:2]}"
    )
    verdict.require(not wrong, f"{len(wrong)} with other rows: {list(wrong.items())[:2]}")
    verdict.require(not untold, f"{len(untold)} whose history does not tell of it")
    verdict.require(not query(stage.dsn, _OPEN), f"timers are left: {query(stage.dsn, _OPEN)[:3]}")
    verdict.require(plan.small or again > 0, "nobody was killed between an effect and its record: no evidence")
    if verdict.complaints:
        verdict.complaints += [f"worker said: {line}" for line in stage.worker_log()[-5:]]
    return verdict


def _undone(stage: Stage) -> int:
    return sum(" undo " in line for line in deeds.read(stage.folder / deeds.EFFECTS))


def _is_over(stage: Stage, campaigns: int) -> bool:
    return len(query(stage.dsn, _TOLD)) == campaigns
