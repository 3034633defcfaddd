"""The campaign's life: what a move would make of a state, and why it would not (DESIGN.md 4.17).

Every function here is pure: a state, a definition and a moment in, a decision out. Storages apply it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from nexus_marketing.core.campaigns import (
    FINAL_STATUSES,
    CampaignAction,
    CampaignKey,
    CampaignState,
    CampaignStatus,
    Decision,
    HistoryEntry,
)
from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.conditions.clock import start_of_day
from nexus_marketing.core.definitions import Definition, Handlers, Transition
from nexus_marketing.core.engine.views import CampaignView
from nexus_marketing.core.errors import NexusError, Problem, TransitionRefused, ValidationError, hint
from nexus_marketing.core.money import minor_units
from nexus_marketing.core.values import DATE_SHAPE, canonical, parse_datetime

NO_HANDLERS: Final = Handlers()


@dataclass(frozen=True, slots=True)
class Move:
    """What is asked of a campaign, by whom and when (aware UTC).

    ``data`` are launch data; ``reason`` is shown to people beside the status.
    """

    action: str
    now: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    actor: str = "system"
    reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def new_state(definition: Definition, key: CampaignKey, now: datetime) -> CampaignState:
    """A campaign that is declared and not stored yet: a draft of version 0."""
    return CampaignState(
        key=key,
        id=key.id,
        title=definition.title,
        stage=definition.entry(CampaignStatus.DRAFT),
        status=CampaignStatus.DRAFT,
        version=0,
        data=definition.defaults,
        created_at=now,
    )


def prospect(definition: Definition, state: CampaignState, move: Move) -> CampaignState:
    """The state that guards, hooks and decisions look at: what is there, with the launch data that came along.

    Raises:
        ValidationError: a value of the data has no JSON form.
    """
    if move.action != CampaignAction.LAUNCH:
        return state
    return replace(state, data={**definition.defaults, **state.data, **canonical(move.data, "data")})


def refusals(
    definition: Definition, seen: CampaignState, move: Move, handlers: Handlers = NO_HANDLERS, subject: Any = None
) -> list[Problem]:
    """Why a move is not possible: every reason, or none. Changes nothing and tells nobody.

    Args:
        definition: the one the campaign runs on.
        seen: the state as :func:`prospect` answers it.
        move: what is asked.
        handlers: code that belongs to the definition.
        subject: what guards see as ``c.subject``.
    """
    transition, problems = _transition(definition, seen, move.action)
    if transition is None:
        return problems
    if move.action == CampaignAction.LAUNCH:
        problems = _data_faults(definition, handlers, seen)
    elif transition.condition is not None and not transition.condition(*_facts(definition, seen, move.now)):
        text = f"{transition.condition.spelling} does not hold: {move.action} is possible when it does."
        problems = [Problem(f"transitions.{move.action}", "condition_false", text)]
    if problems:
        return problems
    return [*_broken_rules(definition, seen, move), *_broken_guards(handlers, CampaignView(seen, subject), move)]


def decide(
    definition: Definition, seen: CampaignState, move: Move, handlers: Handlers = NO_HANDLERS, subject: Any = None
) -> Decision:
    """Take a move; arguments as in :func:`refusals`.

    Raises:
        ValidationError: the launch data are not as the definition asks.
        TransitionRefused: not possible from here, or a guard forbids it; names what is possible.
    """
    problems = refusals(definition, seen, move, handlers, subject)
    if problems:
        raise _refused(definition, seen, move, problems)
    transition = definition.transitions[move.action]
    stage = _target(definition, seen, transition, move)
    status = definition.status_of(stage)
    begins = starts_at(definition, seen.data) if move.action == CampaignAction.LAUNCH else seen.starts_at
    after = replace(
        seen,
        stage=stage,
        status=status,
        version=seen.version + 1,
        definition=definition.reference,
        reason=move.reason,
        starts_at=begins,
        resumes_to=seen.stage if status is CampaignStatus.PAUSED else None,
        started_at=seen.started_at or (move.now if status is CampaignStatus.ACTIVE else None),
        completed_at=move.now if status in FINAL_STATUSES else None,
        updated_at=move.now,
    )
    return Decision(
        move.action,
        after,
        _entry(seen, after, move.action, move),
        program=definition.document if definition.reference is None else None,
        attended=handlers.attended,
    )


def record(state: CampaignState, event: str, move: Move, count: int = 1) -> Decision:
    """Write an event of the user's own into the history, and count it."""
    counters = {**state.counters, event: state.counters.get(event, 0) + count}
    after = replace(state, version=state.version + 1, counters=counters, updated_at=move.now)
    return Decision(event, after, _entry(state, after, event, move), moves=False)


def note(state: CampaignState, event: str, move: Move) -> Decision:
    """Write into the history what was done for a campaign, without counting it."""
    after = replace(state, version=state.version + 1, updated_at=move.now)
    return Decision(event, after, _entry(state, after, event, move), moves=False)


def hold(definition: Definition, state: CampaignState, move: Move) -> Decision:
    """Pause an active campaign whatever its definition says about pausing: what cannot go on must not seem to."""
    return _forced(definition, replace(state, resumes_to=state.stage), state, CampaignStatus.PAUSED, move)


def fail(definition: Definition, state: CampaignState, move: Move) -> Decision:
    """End a campaign because it failed, whatever its definition says: what it did may be taken back from here on."""
    after = replace(state, resumes_to=None, completed_at=move.now)
    return _forced(definition, after, state, CampaignStatus.CANCELLED, move)


def _forced(
    definition: Definition, after: CampaignState, state: CampaignState, status: CampaignStatus, move: Move
) -> Decision:
    after = replace(
        after,
        stage=definition.entry(status),
        status=status,
        version=state.version + 1,
        reason=move.reason,
        updated_at=move.now,
    )
    return Decision(move.action, after, _entry(state, after, move.action, move))


def due(definition: Definition, state: CampaignState, now: datetime) -> str | None:
    """The move the clock may take now, or none."""
    for transition in definition.automatic:
        if state.stage in transition.sources and _is_due(definition, state, transition, now):
            return transition.action
    return None


def next_look(definition: Definition, state: CampaignState, now: datetime) -> datetime | None:
    """When the clock may next have something to do, as long as nobody changes the campaign; or never."""
    moments: list[datetime] = []
    for transition in definition.automatic:
        if state.stage not in transition.sources:
            continue
        if _is_due(definition, state, transition, now):
            return now
        if state.status is CampaignStatus.QUEUED and state.starts_at is not None and state.starts_at > now:
            moments.append(state.starts_at)
        elif transition.condition is not None:
            flip = transition.condition.next_flip(*_facts(definition, state, now))
            moments += [flip] if flip is not None else []
    return min(moments, default=None)


def possible(definition: Definition, state: CampaignState) -> list[str]:
    """The moves that lead on from a state, guards and conditions aside."""
    return sorted(each.action for each in definition.transitions.values() if state.stage in each.sources)


def _is_due(definition: Definition, state: CampaignState, transition: Transition, now: datetime) -> bool:
    if state.status is CampaignStatus.QUEUED and state.starts_at is not None and state.starts_at > now:
        return False
    return transition.condition is None or transition.condition(*_facts(definition, state, now))


def _transition(definition: Definition, state: CampaignState, action: str) -> tuple[Transition | None, list[Problem]]:
    transition = definition.transitions.get(action)
    if transition is None:
        sentence = f"There is no move {action!a}{hint(action, definition.transitions)}."
        return None, [Problem("action", "unknown_action", sentence)]
    if state.stage not in transition.sources:
        here = ", ".join(possible(definition, state)) or "nothing more; it has ended"
        sentence = f"A campaign that is {state.stage} cannot be asked to {action}: possible here: {here}."
        return None, [Problem("action", "transition_refused", sentence)]
    return transition, []


def _target(definition: Definition, seen: CampaignState, transition: Transition, move: Move) -> str:
    if not transition.target:  # back to where the pause came from
        known = seen.resumes_to in definition.stages
        return seen.resumes_to if known and seen.resumes_to else definition.entry(CampaignStatus.ACTIVE)
    if move.action != CampaignAction.LAUNCH or definition.stages[transition.target] is not CampaignStatus.ACTIVE:
        return transition.target
    begins = starts_at(definition, seen.data)
    queued = definition.entry(CampaignStatus.QUEUED)
    waits = begins is not None and begins > move.now
    starts = next((each for each in definition.automatic if queued in each.sources), None)
    rules = [each.condition for each in (transition, starts) if each is not None and each.condition is not None]
    facts = _facts(definition, seen, move.now) if rules else None
    if waits or (facts is not None and not all(rule(*facts) for rule in rules)):
        return queued
    return transition.target


def starts_at(definition: Definition, data: Mapping[str, Any]) -> datetime | None:
    """When a campaign with these data is to begin; a day begins in the definition's zone."""
    text = data.get("start_date")
    if text is None:
        return None
    if DATE_SHAPE.match(text):
        return start_of_day(date.fromisoformat(text), definition.time_zone)
    return parse_datetime(text, "start_date")


def facts(
    definition: Definition, state: CampaignState, now: datetime, metrics: Mapping[str, Any]
) -> tuple[dict[str, Any], Evaluation]:
    """What the conditions of escalation read: what those of moves do, and ``campaign.metrics``."""
    record, evaluation = _facts(definition, state, now)
    record["campaign"]["metrics"] = dict(metrics)
    return record, evaluation


def _facts(definition: Definition, state: CampaignState, now: datetime) -> tuple[dict[str, Any], Evaluation]:
    """What conditions read: the data with the measures, the campaign, and the clock."""
    record = {
        "data": {**_measures(state.counters), **state.data},
        "campaign": {
            "id": state.id,
            "name": state.key.name,
            "title": state.title,
            "status": str(state.status),
            "stage": state.stage,
            "version": state.version,
            "counters": dict(state.counters),
        },
    }
    return record, Evaluation(now, definition.time_zone)


def _measures(counters: Mapping[str, int]) -> dict[str, float]:
    """The engine's measures from recorded events: opens and clicks per e-mail sent are the engagement rate.

    ``channels_joined`` counts launches over several channels of which enough were through (BR-008).
    """
    sent = counters.get("email_sent", 0)
    engaged = counters.get("email_opened", 0) + counters.get("email_clicked", 0)
    joined = counters.get("channels_joined", 0)
    return {"emails_sent": sent, "engagement_rate": engaged / sent if sent else 0, "channels_joined": joined}


def _data_faults(definition: Definition, handlers: Handlers, seen: CampaignState) -> list[Problem]:
    problems = definition.form.faults(seen.data, path="data")
    if problems:
        return problems
    budget = seen.data.get("budget")
    if budget is not None:
        try:
            minor_units(budget, seen.data.get("currency"), "data.budget")
        except ValidationError as error:
            problems += error.problems
    for name, checks in handlers.validators.items():
        value = seen.data if not name else seen.data.get(name)
        if name and value is None:
            continue
        for check in checks:
            problems += _validator_faults(check, value, f"data.{name}" if name else "data")
    return problems


def _validator_faults(check: Any, value: Any, path: str) -> Iterable[Problem]:
    """A validator refuses by raising, by answering false, or with the sentence that says why."""
    try:
        answer = check(value)
    except NexusError as error:
        return error.problems or [Problem(path, error.code, error.message)]
    except Exception as error:  # noqa: BLE001 - a user's code says no in its own way
        return [Problem(path, "validator_refused", f"{_called(check)} says: {error or type(error).__name__}.")]
    if isinstance(answer, str) and answer:
        return [Problem(path, "validator_refused", answer)]
    if answer is False:
        return [Problem(path, "validator_refused", f"{value!a} is not acceptable to {_called(check)}.")]
    return []


def _broken_rules(definition: Definition, seen: CampaignState, move: Move) -> Iterable[Problem]:
    rules = definition.guards.get(move.action, ())
    facts = _facts(definition, seen, move.now) if rules else None
    for rule in rules:
        if facts is not None and not rule(*facts):
            yield Problem(f"guards.{move.action}", "guard_refused", f"{rule.spelling} does not hold.")


def _broken_guards(handlers: Handlers, view: CampaignView, move: Move) -> Iterable[Problem]:
    for guard in handlers.guards.get(move.action, ()):
        path = f"guards.{move.action}"
        try:
            answer = guard(view)
        except Exception as error:  # noqa: BLE001 - a guard that cannot say yes says no
            text = f"{_called(guard)} failed with {type(error).__name__}: {error}."
            yield Problem(path, "guard_failed", text)
            continue
        if not answer:
            yield Problem(path, "guard_refused", f"{_called(guard)} says no.")


def _called(function: Any) -> str:
    """A name by which its author finds a function again."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"the function {name} (line {code.co_firstlineno})" if code is not None else name


def _refused(definition: Definition, state: CampaignState, move: Move, problems: list[Problem]) -> NexusError:
    if problems[0].path == "data" or problems[0].path.startswith("data."):
        return ValidationError(problems=problems)
    return TransitionRefused(
        "; ".join(each.message for each in problems),
        problems=problems,
        status=state.status,
        stage=state.stage,
        action=move.action,
        possible=possible(definition, state),
    )


def _entry(before: CampaignState, after: CampaignState, event: str, move: Move) -> HistoryEntry:
    metadata = canonical(move.metadata, "metadata")
    if move.reason is not None:
        metadata = {"reason": move.reason, **metadata}
    return HistoryEntry(
        version=after.version,
        event=str(event),
        before={"stage": before.stage, "status": str(before.status)},
        after={"stage": after.stage, "status": str(after.status)},
        actor=move.actor,
        at=move.now,
        metadata=metadata,
        campaign=after.key.name,
    )
