"""Actions are taken: begun, done and settled in three steps, so that nothing is open while a plugin works.

The first transaction holds the timer, counts the attempt and reads what the tenant set. What the plugin does comes
between; the last one removes the timer and writes what became of it, with audit and history. A worker that dies in
between leaves the timer to the next one, which calls again under the same key: what was done is not done twice.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from nexus_marketing.core.actions import OPEN_ACTIONS, ActionSource, ActionState, ActionVerdict, OwnAction, judged
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.campaigns import FINAL_STATUSES, CampaignStatus
from nexus_marketing.core.compensation import RETRACT
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.extensions import Action, ActionCall, ActionOutcome, ActionResult
from nexus_marketing.core.timers import TimerFact, retry_after
from nexus_marketing.db.models import Campaign, JourneyRun, TakenAction
from nexus_marketing.db.queries.timers import hold_timer, take_timer
from nexus_marketing.db.tenancy import find
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.actions.compensation import fail_locked, take_back
from nexus_marketing.services.actions.names import action_settings
from nexus_marketing.services.actions.own import take_own
from nexus_marketing.services.actions.requests import arm
from nexus_marketing.services.audit import record
from nexus_marketing.services.campaigns.moving import finish_if_sent
from nexus_marketing.services.campaigns.rows import note
from nexus_marketing.services.campaigns.steps import number_of, request_step
from nexus_marketing.services.definitions import definition_of
from nexus_marketing.services.journeys.compensation import locked, take_back_run
from nexus_marketing.services.retractions import Retracting
from nexus_marketing.services.timers import Outside
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: How often it is looked whether a plugin that is gone or off is back.
_LOOK_AGAIN: Final = timedelta(minutes=5)
_OWN: Final = frozenset(str(each) for each in OwnAction)


@dataclass(frozen=True, slots=True)
class _Begun:
    """An attempt whose beginning is durable."""

    action: Action
    call: ActionCall


@dataclass(frozen=True, slots=True)
class _Whose:
    """Who asked for an action, as far as its end means something to them."""

    campaign: Campaign | None = None
    run: JourneyRun | None = None

    @property
    def failure(self) -> str | None:
        """Why it is not tried again: what was done for them is taken back."""
        if self.campaign is not None and self.campaign.failed_at is not None:
            return "campaign_failed"
        return "taken_back" if self.run is not None and self.run.taken_back_at is not None else None


def run_action(runtime: Runtime, timer: TimerFact) -> None:
    """Take the action whose timer is due."""
    begun = _begin(runtime, timer)
    if begun is None:
        return
    runtime.telemetry.point("actions.begun")
    outcome = _call(runtime, begun)
    runtime.telemetry.point("actions.called")
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        whose, row = _locked(ctx, timer)
        if not take_timer(ctx.session, timer):
            return  # the lease was over: whoever has it now calls under the same key, and tells
        if row is None or row.state not in OPEN_ACTIONS:
            return
        _settle(ctx, whose, row, judged(outcome, retry_after(max(1, row.attempts), runtime.rng)))
        runtime.telemetry.point("actions.settling")
    runtime.telemetry.point("actions.settled")


def _begin(runtime: Runtime, timer: TimerFact) -> _Begun | None:
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        whose, row = _locked(ctx, timer)
        if not hold_timer(ctx.session, timer, runtime.settings.lease.total_seconds()):
            return None
        if row is None or row.state not in OPEN_ACTIONS or _is_held(ctx, whose.campaign, row):
            take_timer(ctx.session, timer)
            if row is not None and row.state in OPEN_ACTIONS:
                arm(ctx, row.id, row.campaign_id, ctx.now + _LOOK_AGAIN)
            return None
        if row.name in _OWN:
            take_timer(ctx.session, timer)
            _take_own(ctx, whose, row)
            return None
        is_retraction = row.name == RETRACT
        settings = {} if is_retraction else action_settings(ctx, row.name)
        if settings is None:
            take_timer(ctx.session, timer)
            _wait_for_plugin(ctx, row)
            return None
        row.state, row.reason = ActionState.WAITING, None
        row.attempts += 1
        call = ActionCall(timer.tenant_id, row.key, ctx.now, row.lead_id, row.campaign_id, row.data, settings)
        taken = (
            Retracting(runtime, timer, row.attempts)
            if is_retraction
            else runtime.plugins.of(Capability.ACTION)[row.name]
        )
        return _Begun(taken, call)


def _is_held(ctx: Context, campaign: Campaign | None, row: TakenAction) -> bool:
    """Whether a step may not be begun: its campaign is paused, or over, which ends the step too."""
    if row.source != ActionSource.STEP or row.attempts or campaign is None or campaign.status == CampaignStatus.ACTIVE:
        return False
    if campaign.status in FINAL_STATUSES:
        row.state, row.reason, row.settled_at = ActionState.CANCELLED, f"campaign_{campaign.status}", ctx.now
        ctx.session.flush()
    return True


def _call(runtime: Runtime, begun: _Begun) -> object:
    started = time.monotonic()
    try:
        return begun.action.run(begun.call)
    except Exception as error:
        call = begun.call
        log.warning("action_raised", tenant_id=call.tenant_id, action=begun.action.name, call=call.key, exc_info=True)
        return ActionOutcome(ActionResult.TRANSIENT, f"It raised {type(error).__name__}.")
    finally:
        runtime.telemetry.observe("actions.seconds", time.monotonic() - started, action=begun.action.name)


def _take_own(ctx: Context, whose: _Whose, row: TakenAction) -> None:
    row.attempts += 1
    campaign = whose.campaign
    if campaign is None:
        said = f"{row.name} is about a campaign, and this is about none."
        _settle(ctx, whose, row, ActionVerdict(ActionState.FAILED, "no_campaign", said))
        return
    try:
        with ctx.session.begin_nested():
            detail = take_own(ctx, row.name, campaign, row.data)
    except NexusError as error:
        _settle(ctx, whose, row, ActionVerdict(ActionState.FAILED, error.code, error.message))
    else:
        _settle(ctx, whose, row, ActionVerdict(ActionState.DONE, None, detail))


def _wait_for_plugin(ctx: Context, row: TakenAction) -> None:
    if row.state != ActionState.PAUSED:
        record(ctx, "action.paused", "action", row.id, {"reason": (row.reason, "plugin_missing")})
    row.state, row.reason = ActionState.PAUSED, "plugin_missing"
    arm(ctx, row.id, row.campaign_id, ctx.now + _LOOK_AGAIN)


def give_up(ctx: Context, timer: TimerFact, reason: str) -> None:
    """Whoever took it died over it, again and again: it is not tried any more until a person says so."""
    whose, row = _locked(ctx, timer)
    if row is not None and row.state in OPEN_ACTIONS:
        _settle(ctx, whose, row, ActionVerdict(ActionState.FAILED, "given_up", reason))


def _settle(ctx: Context, whose: _Whose, row: TakenAction, verdict: ActionVerdict) -> None:
    """Write what became of an attempt: the row, its next timer or its end, audit and history."""
    campaign = whose.campaign
    if verdict.again_in is not None and whose.failure and row.source != ActionSource.COMPENSATION:
        verdict = replace(verdict, state=ActionState.FAILED, reason=whose.failure, again_in=None)
    row.state, row.reason, row.detail = verdict.state, verdict.reason, verdict.detail
    if verdict.again_in is not None:
        arm(ctx, row.id, row.campaign_id, ctx.now + verdict.again_in)
        return
    row.settled_at = ctx.now
    ctx.session.flush()
    ctx.runtime.telemetry.count("actions.settled", action=row.name, state=str(verdict.state))
    verb = "taken" if verdict.state is ActionState.DONE else "failed"
    changes: Mapping[str, tuple[Any, Any]] = {"name": (None, row.name), "reason": (None, verdict.reason)}
    record(ctx, f"action.{verb}", "action", row.id, changes)
    if campaign is not None and row.lead_id is None:
        said = {"action": row.name, "source": row.source, "reason": verdict.reason, "action_id": str(row.id)}
        note(ctx, campaign, f"action_{verb}", said)
    if campaign is not None:
        _go_on(ctx, campaign, row)
    if whose.run is not None:
        take_back_run(ctx, whose.run)


def _go_on(ctx: Context, campaign: Campaign, row: TakenAction) -> None:
    """What the end of an action means for its campaign: the next step, its failure, or the next thing to be taken back."""
    if campaign.failed_at is not None:
        take_back(ctx, campaign)
    elif row.source == ActionSource.STEP and row.state == ActionState.FAILED:
        fail_locked(ctx, campaign, f"step {number_of(row) + 1}, {row.name}: {row.detail or row.reason}")
    elif row.source == ActionSource.STEP and not request_step(
        ctx, campaign, definition_of(ctx, campaign), number_of(row) + 1
    ):
        finish_if_sent(ctx, campaign)


def _locked(ctx: Context, timer: TimerFact) -> tuple[_Whose, TakenAction | None]:
    """The action and its campaign or run, locked in the order in which everybody does; the timer comes behind them."""
    wanted = select(TakenAction).where(TakenAction.id == int(timer.key))
    row = ctx.session.scalars(wanted).first()
    campaign = run = None
    if row is not None and row.campaign_id is not None:
        campaign = find(ctx.session, Campaign, row.campaign_id, lock=True)
    if row is not None and row.run_id is not None:
        run = locked(ctx, row.run_id)
    again = wanted.with_for_update().execution_options(populate_existing=True)
    return _Whose(campaign, run), ctx.session.scalars(again).first()


#: What the timer of an action does.
ACTION_DUE: Final = Outside(run_action, give_up)
