"""Many due timers, several workers, some of them killed: each fires once; what is much too late is missed (R04, R13)."""

import random
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nexus_marketing.core.errors import ValidationError
from nexus_marketing.db.models import Campaign
from nexus_marketing.services.campaigns.moving import move_campaign
from nexus_marketing.services.campaigns.recurring import TYPE as RUN_DUE
from nexus_marketing.services.campaigns.runs import move_next_run
from nexus_marketing.services.timers import set_timer
from tests.chaos.judge import query
from tests.chaos.stage import Stage, begin_campaign, launch, make_segment, open_stage
from tests.chaos.verdicts import Plan, Servers, Verdict, Watch, pass_judgement, play_to_the_end, wait_until

_WORKERS: Final = 3
_FEW: Final = 3
#: How long nobody worked, and whether it is still in time after that: the grace is an hour.
_DOWN: Final = {timedelta(minutes=10): True, timedelta(hours=6): False, timedelta(days=3): False}
#: The rule itself is due next year; each run is moved to the moment that is wanted.
_YEARLY: Final = {"cron": "0 0 1 1 *"}
_SENDS_OF = "SELECT campaign_id, count(*) FROM marketing_sends WHERE campaign_id IN ({ids}) GROUP BY campaign_id"


def two_schedulers(servers: Servers, plan: Plan) -> Verdict:
    """Recurring campaigns that are all due at once, for workers that are killed while they fire them.

    Each begins one send, and each of its few leads gets one message. Then others become due while nobody works, some for
    longer than the grace: those are ``missed``, and nobody gets anything before a person says so.
    """
    rng = random.Random(plan.seed)
    runs = 20 if plan.small else 50 * plan.faults
    kills = 2 if plan.small else 2 * (plan.faults // 2)
    with open_stage(servers.cluster, audience=_FEW, reply_delay_seconds=0.0) as stage:
        launch(stage)
        watch = Watch(stage.runtime)
        segment_id = make_segment(stage, _FEW)
        campaigns = [recurring(stage, f"run {number}", segment_id) for number in range(runs)]
        down = [(each, recurring(stage, f"down {each} {number}", segment_id)) for each in _DOWN for number in range(3)]
        for _ in range(_WORKERS):
            stage.start_worker()
        play_to_the_end(stage)  # all of them are up
        due = _due_in(stage, campaigns, 1.0)
        killed = 0
        while killed < kills:
            share = (killed + 1) * runs // (kills + 2)
            wait_until(lambda share=share: begun(stage, campaigns) > share)  # type: ignore[misc]
            for victim in rng.sample(stage.living(), _WORKERS - 1):
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                stage.start_worker()
                killed += 1
        wait_until(lambda: begun(stage, campaigns) == runs)
        slowest = time.time() - due
        play_to_the_end(stage)
        stage.stop_workers()
        for away, campaign_id in down:
            _were_due(stage, campaign_id, away)
        in_time, too_late = ([each for away, each in down if _DOWN[away] is kept] for kept in (True, False))
        stage.start_worker()
        wait_until(lambda: begun(stage, [each for _, each in down]) == len(down) and not _planning(stage), 30.0)
        wait_until(lambda: len(_paused(stage, too_late)) == len(too_late), 30.0)
        confirmed = too_late.pop()
        with stage.runtime.work(stage.tenant_id) as ctx:
            move_campaign(ctx, confirmed, "resume")
        play_to_the_end(stage)
        stage.audience = _FEW * (1 + runs + len(in_time) + 1)
        verdict = pass_judgement(
            stage,
            "two_schedulers",
            killed,
            recovered=slowest,
            violations=watch.finish(),
            bound=killed * stage.connections,
        )
        for campaigns_of, wanted in (([*campaigns, *in_time, confirmed], "completed"), (too_late, "missed")):
            require_once(stage, verdict, campaigns_of, wanted)
        return verdict


def recurring(stage: Stage, name: str, segment_id: int) -> int:
    """A campaign that is sent every year, at a moment that is to be moved; which one."""
    return begin_campaign(stage, name, segment_id, recurrence=_YEARLY)


def _due_in(stage: Stage, campaigns: list[int], seconds: float) -> float:
    """Let all of them be due at one moment; which (seconds since 1970)."""
    at = datetime.now(UTC)
    for patience in (0.03, 0.1, 0.5):  # what it takes to move them is part of the wait
        at = datetime.now(UTC) + timedelta(seconds=seconds + patience * len(campaigns))
        with suppress(ValidationError):  # it passed meanwhile: none of them was moved
            be_due(stage, campaigns, at)
            break
    time.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
    return at.timestamp()


def _were_due(stage: Stage, campaign_id: int, away: timedelta) -> None:
    """As if that had been long ago, and nobody had been there since."""
    due = datetime.now(UTC) - away
    with stage.runtime.work(stage.tenant_id) as ctx:
        ctx.session.get_one(Campaign, (stage.tenant_id, campaign_id)).next_run_at = due
        set_timer(ctx, RUN_DUE, str(campaign_id), due, campaign_id=campaign_id)


def _paused(stage: Stage, campaigns: list[int]) -> list[tuple[Any, ...]]:
    """Those that wait for a person."""
    ids = ", ".join(map(str, campaigns))
    return query(stage.dsn, f"SELECT id FROM marketing_campaigns WHERE id IN ({ids}) AND status = 'paused'")


def be_due(stage: Stage, campaigns: list[int], at: datetime) -> None:
    """Let the next run of all of them be at one moment."""
    with stage.runtime.work(stage.tenant_id) as ctx:
        for campaign_id in campaigns:
            move_next_run(ctx, campaign_id, at)


def begun(stage: Stage, campaigns: list[int]) -> int:
    """How many of the campaigns have a send."""
    return len(query(stage.dsn, _SENDS_OF.format(ids=", ".join(map(str, campaigns)))))


def _planning(stage: Stage) -> bool:
    return bool(query(stage.dsn, "SELECT 1 FROM marketing_sends WHERE status = 'planning'"))


def require_once(stage: Stage, verdict: Verdict, campaigns: list[int], wanted: str) -> None:
    """Each of them has one send, and that ended so."""
    ids = ", ".join(map(str, campaigns))
    counts = dict(query(stage.dsn, _SENDS_OF.format(ids=ids)))
    never = len(campaigns) - len(counts)
    twice = sum(count > 1 for count in counts.values())
    verdict.require(not never, f"{never} of {len(campaigns)} timers never fired")
    verdict.require(not twice, f"{twice} timers fired more than once")
    others = query(
        stage.dsn,
        f"SELECT status, count(*) FROM marketing_sends WHERE campaign_id IN ({ids}) AND status <> '{wanted}' GROUP BY status",
    )
    verdict.require(not others, f"sends that should be {wanted} are {others}")
