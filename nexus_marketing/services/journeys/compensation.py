"""What a run of a journey did is taken back where it fails, or is stopped so: the last first, one after the other (BR-004).

As with campaigns (``services.actions.compensation``) nothing here keeps a list: the history of the run says what it did, the
actions say what of it is under way, done or taken back already. What comes next is written and given its timer in the
transaction that settles the one before; whoever takes it after a crash calls under the same key.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from nexus_marketing.core.actions import OPEN_ACTIONS, ActionSource, ActionState
from nexus_marketing.core.compensation import Effect, EffectKind, next_to_undo
from nexus_marketing.core.deliveries import DeliveryState
from nexus_marketing.core.journeys import Journey, Outcome
from nexus_marketing.core.journeys.nodes import CALL, Act, Message, Webhook
from nexus_marketing.core.journeys.runs import Said
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.models import JourneyRun, JourneyStep, TakenAction
from nexus_marketing.db.queries.journeys import fates_of
from nexus_marketing.runtime import Context
from nexus_marketing.services.actions.requests import ActionRequest, hurry, request_action
from nexus_marketing.services.journeys.messages import cancel_messages
from nexus_marketing.services.journeys.rows import journey_version
from nexus_marketing.services.timers import set_timer, set_timers

#: The timer of a run that is to be taken back, or whose messages have not come to rest.
TAKE_BACK: Final = "journey.take_back"
#: What the history says of effects that were refused, and of a run that was taken back.
_REFUSED: Final = "refused"
_COMPENSATED: Final = "compensated"
_LOOK_AGAIN: Final = timedelta(seconds=2)
_NEVER_TAKEN: Final = frozenset({DeliveryState.SKIPPED, DeliveryState.FAILED})


class _Fate(StrEnum):
    """Whether a step has had its effect, or may have had it; or nobody can say yet."""

    DONE = "done"
    NOT_DONE = "not_done"
    OPEN = "open"


class _Done(NamedTuple):
    """A visit to a node that says how it is taken back; ``outcome`` is of a call."""

    visit: int
    line: JourneyStep
    outcome: str | None = None


def action_key(run_id: int, visit: int) -> str:
    """By which the action of a visit is known."""
    return f"journey:{run_id}:{visit}"


def begin_taking_back(ctx: Context, rows: Iterable[JourneyRun]) -> None:
    """Have what locked runs did that have just ended taken back, where their versions say how."""
    found: list[tuple[str, datetime, Mapping[str, Any]]] = []
    for row in rows:
        journey = journey_version(ctx, row.journey_id, row.version_number)
        if journey.compensations and row.taken_back_at is None:
            row.taken_back_at = ctx.now
            if row.snapshot.get("open"):
                cancel_messages(ctx, row, row.visit)
            found.append((str(row.id), ctx.now, {}))
    ctx.session.flush()
    set_timers(ctx, TAKE_BACK, found)
    ctx.ring("timers")


def take_back_due(ctx: Context, timer: TimerFact) -> None:
    """Go on with a run whose time has come."""
    row = locked(ctx, int(timer.key))
    if row is not None:
        take_back_run(ctx, row)


def locked(ctx: Context, run_id: int) -> JourneyRun | None:
    """A run's row, before the rows of its actions: whoever moves it on locks in this order."""
    return ctx.session.get(JourneyRun, (ctx.tenant_id, run_id), with_for_update=True, populate_existing=True)


def take_back_run(ctx: Context, row: JourneyRun) -> None:
    """Have the next thing that a locked run did taken back, unless something of it is still under way."""
    if row.taken_back_at is None:
        return
    journey = journey_version(ctx, row.journey_id, row.version_number)
    actions = _actions(ctx, row)
    if _is_under_way(ctx, actions):
        return
    done = {each.visit: each for each in _done(ctx, row, journey)}
    fates = {visit: _fate(ctx, row, journey, each, actions) for visit, each in done.items()}
    if _Fate.OPEN in fates.values():
        set_timer(ctx, TAKE_BACK, str(row.id), ctx.now + _LOOK_AGAIN)
        return
    effects = [
        Effect(EffectKind.STEP, visit, each.line.at) for visit, each in done.items() if fates[visit] is _Fate.DONE
    ]
    undoing = [each for each in actions.values() if each.source == ActionSource.COMPENSATION]
    found = next_to_undo(effects, {(EffectKind.STEP, int(each.data["of"]["visit"])) for each in undoing})
    if found is None:
        _finish(ctx, row, undoing)
    else:
        _undo(ctx, row, journey, done[found.id], actions)


def _undo(ctx: Context, row: JourneyRun, journey: Journey, step: _Done, actions: Mapping[str, TakenAction]) -> None:
    node, key = step.line.node, action_key(row.id, step.visit)
    taken = actions.get(key)
    about: dict[str, Any] = {"node": node, "type": str(journey.nodes[node].kind), "visit": step.visit, "key": key}
    if taken is not None:
        about |= {"action": taken.name, "data": taken.data}
    if isinstance(journey.nodes[node], Webhook):
        about["outcome"] = step.outcome or "unknown"
    request = ActionRequest(
        journey.compensations[node],
        f"undo:{key}",
        ActionSource.COMPENSATION,
        lead_id=row.lead_id,
        data={"of": about},
        undoes=None if taken is None else taken.id,
        run_id=row.id,
    )
    request_action(ctx, request)


def _actions(ctx: Context, row: JourneyRun) -> dict[str, TakenAction]:
    wanted = select(TakenAction).where(TakenAction.run_id == row.id).order_by(TakenAction.id).with_for_update()
    found = ctx.session.scalars(wanted.execution_options(populate_existing=True))
    return {each.key: each for each in found}


def _is_under_way(ctx: Context, actions: Mapping[str, TakenAction]) -> bool:
    """Whether an action is waited for, whose end says whether there is something to take back; what was not begun is not."""
    is_open = False
    for each in actions.values():
        if each.state not in OPEN_ACTIONS:
            continue
        if each.source == ActionSource.COMPENSATION:
            is_open = True
        elif each.attempts:
            is_open = True
            hurry(ctx, each)
        else:  # its timer finds it so and goes
            each.state, each.reason, each.settled_at = ActionState.CANCELLED, "taken_back", ctx.now
    ctx.session.flush()
    return is_open


def _done(ctx: Context, row: JourneyRun, journey: Journey) -> list[_Done]:
    """What the history says that the run did and that can be taken back, but for what the lead or a segment refused."""
    said = (Said.EXECUTED, Said.OUTCOME, _REFUSED)
    wanted = (JourneyStep.run_id == row.id, JourneyStep.said.in_(said))
    lines = ctx.session.scalars(select(JourneyStep).where(*wanted).order_by(JourneyStep.id)).all()
    refused = {each.detail.get("visit") for each in lines if each.said == _REFUSED}
    found: dict[str, _Done] = {}
    done: list[_Done] = []
    for line in lines:
        if line.said == Said.EXECUTED and "visit" in line.detail and line.node in journey.compensations:
            found[line.node] = _Done(line.detail["visit"], line)
            done.append(found[line.node])
        elif line.said == Said.OUTCOME and line.node in found and line.detail.get("channel") == CALL:
            done.remove(found[line.node])
            done.append(found.pop(line.node)._replace(outcome=line.detail["outcome"]))
    return [each for each in done if each.visit not in refused]


def _fate(ctx: Context, row: JourneyRun, journey: Journey, step: _Done, actions: Mapping[str, TakenAction]) -> _Fate:
    node = journey.nodes[step.line.node]
    if isinstance(node, Act):
        taken = actions.get(action_key(row.id, step.visit))
        return _Fate.DONE if taken is not None and taken.state == ActionState.DONE else _Fate.NOT_DONE
    if isinstance(node, Message):
        return _fate_of_messages(fates_of(ctx.session, row.lead_id, row.id, step.visit))
    if isinstance(node, Webhook):  # a call that nobody answered may have been heard
        return _Fate.DONE if step.outcome in (None, Outcome.SENT) else _Fate.NOT_DONE
    return _Fate.DONE


def _fate_of_messages(states: Sequence[str]) -> _Fate:
    """Messages that were taken, or may have been, are done."""
    if DeliveryState.PLANNED in states:
        return _Fate.OPEN
    return _Fate.NOT_DONE if set(states) <= _NEVER_TAKEN else _Fate.DONE


def _finish(ctx: Context, row: JourneyRun, undoing: Iterable[TakenAction]) -> None:
    states = [each.state for each in undoing]
    if states:
        counts = {str(state): states.count(state) for state in (ActionState.DONE, ActionState.FAILED)}
        ctx.session.add(JourneyStep(run_id=row.id, at=ctx.now, said=_COMPENSATED, node=row.node, detail=counts))
