"""Webhooks of journeys: called without a transaction being open, repeated while the other side is away, told to their runs.

A call is a timer. Whoever leased it asks what is to be said, calls, and only then opens the transaction that removes the
timer and moves the run on; a crash in between repeats the call under the same id. Threads of their own call
(:mod:`nexus_marketing.services.asides`).
"""

import json
from datetime import timedelta
from typing import Any, NamedTuple

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.contracts import Call, CallingChannel, OutcomeKind
from nexus_marketing.core.contracts import Outcome as Answer
from nexus_marketing.core.fan_out import Leg
from nexus_marketing.core.journeys import Outcome, Reported
from nexus_marketing.core.journeys.bodies import filled
from nexus_marketing.core.journeys.nodes import CALL, Webhook
from nexus_marketing.core.journeys.statuses import JourneyStatus
from nexus_marketing.core.timers import TimerFact, TimerStatus, retry_after
from nexus_marketing.db.models import Journey, JourneyRun
from nexus_marketing.db.queries.journeys import CALL_DUE
from nexus_marketing.db.queries.timers import take_timer
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.campaigns.launching import ready_for
from nexus_marketing.services.journeys.facts import facts_of
from nexus_marketing.services.journeys.rows import journey_version, run_of
from nexus_marketing.services.journeys.runs import LATER, locked_run, step
from nexus_marketing.services.timers import give_back, set_timer


class _Asked(NamedTuple):
    """What is to be called, and how."""

    call: Call
    settings: dict[str, Any]


def make_call(runtime: Runtime, timer: TimerFact) -> None:
    """Call once, and tell the run or wait for the next attempt; what a run waits for no longer is not called."""
    with runtime.work(timer.tenant_id, SYSTEM, mode="read") as ctx:
        asked = _asked(ctx, timer)
    answer = _answer(runtime, asked) if isinstance(asked, _Asked) else None
    if answer is not None and answer.kind in (OutcomeKind.TRANSIENT, OutcomeKind.THROTTLED):
        pause = retry_after(timer.attempts, runtime.rng)
        if pause is not None:
            wanted = timedelta(seconds=answer.retry_after_seconds or 0.0)
            again = runtime.clock.now() + max(pause, wanted)
            give_back(runtime, timer, TimerStatus.WAITING, again, answer.code)
            return
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if not take_timer(ctx.session, timer):
            return
        if asked == JourneyStatus.PAUSED:
            set_timer(ctx, CALL_DUE, timer.key, ctx.now + LATER, timer.payload)
        elif answer is not None:
            accepted = answer.kind is OutcomeKind.ACCEPTED
            tell_call(ctx, timer, None if accepted else answer.code or str(answer.kind))


def tell_call(ctx: Context, timer: TimerFact, failure: str | None) -> None:
    """Tell a run what became of its call; also of one that was put aside for good."""
    run_id, visit = map(int, timer.key.split(":"))
    row = locked_run(ctx, run_id)
    if row is not None:
        outcome = Outcome.SENT if failure is None else Outcome.FAILED
        step(ctx, row, Reported(visit, CALL, outcome, None if failure is None else failure[:200]))
        ctx.ring("timers")


def _asked(ctx: Context, timer: TimerFact) -> "_Asked | JourneyStatus | None":
    """The call as it stands now; nothing where the run waits for something else by now."""
    run_id, visit = map(int, timer.key.split(":"))
    row = ctx.session.get(JourneyRun, (ctx.tenant_id, run_id))
    if row is None or row.visit != visit:
        return None
    if ctx.session.get_one(Journey, (ctx.tenant_id, row.journey_id)).status == JourneyStatus.PAUSED:
        return JourneyStatus.PAUSED
    journey = journey_version(ctx, row.journey_id, row.version_number)
    run, node = run_of(row, journey), journey.nodes.get(row.node)
    facts = facts_of(ctx, row.lead_id, journey)
    if not isinstance(node, Webhook) or CALL not in run.open or facts is None:
        return None
    told = {"journey": journey.code, "node": node.id, "run": run.id, "lead": run.lead_id, "sequence": run.sequence}
    body = filled(node.body, {**facts.record, "event": run.event}) if node.body else told
    (ready,) = ready_for(ctx, [Leg(CALL, None)])
    text = "" if node.method == "GET" else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    call = Call(f"j{ctx.tenant_id}-{run_id}-{visit}", node.method, node.url, text)
    return _Asked(call, dict(ready.sender or {}))


def _answer(runtime: Runtime, asked: _Asked) -> Answer:
    channel = runtime.channels.get(CALL)
    if not isinstance(channel, CallingChannel):
        return Answer(0, OutcomeKind.PERMANENT_SENDER, "no_channel")
    return channel.call(asked.settings, asked.call)
