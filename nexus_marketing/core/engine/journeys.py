"""What happens next to a run of a journey: one pure function of a snapshot (BEHAVIOUR.md 5.1).

A shell loads a run with its lead, asks, and writes the whole answer or nothing, where the run is still of the version that
was asked about. The simulator does the same on a clock of its own. Whatever means nothing to a run any more (a timer of an
earlier wait, an outcome that was told twice) changes nothing: the first to commit wins.
"""

from collections.abc import Iterable
from datetime import datetime

from nexus_marketing.core.engine.journey_nodes import OUTCOME_TIMEOUT, execute, message_to, wait_wakes_at
from nexus_marketing.core.engine.journey_situations import LeadFacts, Situation
from nexus_marketing.core.journeys.delays import ends_at
from nexus_marketing.core.journeys.model import Goal, GoalEffect, Journey
from nexus_marketing.core.journeys.nodes import Approval, ChannelMode, Delay, Message, Outcome, WaitUntil, Way, Webhook
from nexus_marketing.core.journeys.occasions import has_happened, is_event
from nexus_marketing.core.journeys.runs import (
    Answered,
    CancelMessages,
    Changed,
    Happened,
    Occurrence,
    Reported,
    Run,
    RunDecision,
    RunState,
    Said,
    Stopped,
    Woken,
)


def decide(journey: Journey, run: Run, facts: LeadFacts, occurrence: Occurrence, now: datetime) -> RunDecision:
    """What an occurrence makes of a run.

    Goals are looked at first, then exit criteria, then the node: a purchase that is both is a goal of a run that exits.

    Args:
        journey: the version that the run is on.
        run: as it is stored.
        facts: of the lead, with what just happened.
        occurrence: what woke it.
        now: the moment (aware UTC).
    """
    situation = Situation(journey, run, facts, now)
    if _is_stale(run, occurrence, now):
        return situation.draft.decision()
    goal = _reach_goals(situation, occurrence)
    if run.is_live:
        reason = _must_leave(situation, occurrence)
        if reason is not None:
            situation.draft.end(RunState.EXITED, reason)
        elif goal is not None:
            _follow(situation, goal)
        else:
            _proceed(situation, occurrence)
    elif run.state is RunState.FAILED and isinstance(occurrence, Reported):
        _note(situation, occurrence)  # for whoever revives it
    return situation.draft.decision()


def go_on_sending(situation: Situation) -> None:
    """Have a run that was sending wait for the outcomes that nobody told yet; where there are none left it goes on."""
    run, node = situation.run, situation.journey.nodes.get(situation.run.node)
    kept = {"arrived_at": run.arrived_at, "open": run.open, "left": run.left, "outcomes": run.outcomes}
    situation.draft.rest(RunState.SENDING, situation.now + OUTCOME_TIMEOUT, **kept)
    if not run.open and isinstance(node, (Message, Webhook)):
        _settled(situation, node, run.outcomes)


def is_wanted(journey: Journey, run: Run, facts: LeadFacts, visit: int, channel: str, now: datetime) -> bool:
    """Whether a message may still leave: asked right before it is handed over."""
    is_open = run.state is RunState.SENDING and run.visit == visit and channel in run.open
    return is_open and _must_leave(Situation(journey, run, facts, now), Changed(now)) is None


def _is_stale(run: Run, occurrence: Occurrence, now: datetime) -> bool:
    match occurrence:
        case Happened() | Changed():
            return False  # goals count after the end too
        case Woken():
            return occurrence.token != run.wait_token or run.wake_at is None or now < run.wake_at
        case Reported():
            return occurrence.visit != run.visit or occurrence.channel not in run.open
        case Answered():
            return run.state is not RunState.WAITING or occurrence.token != run.wait_token
    return not run.is_live


def _reach_goals(situation: Situation, occurrence: Occurrence) -> Goal | None:
    """Record what was reached for the first time; answers the first goal that moves the run."""
    moves = None
    for goal in situation.journey.goals:
        if goal.id not in situation.draft.get("goals") and _is_reached(situation, goal, occurrence):
            situation.draft.set(goals=situation.draft.get("goals") | {goal.id})
            situation.draft.say(Said.GOAL, situation.run.node, goal=goal.id)
            if moves is None and goal.effect is not GoalEffect.RECORD:
                moves = goal
    return moves


def _is_reached(situation: Situation, goal: Goal, occurrence: Occurrence) -> bool:
    run, until = situation.run, situation.run.entered_at + goal.window
    occasion = goal.occasion
    if occasion.when is not None:
        return situation.now <= until and occasion.when.holds(situation.record, situation.evaluation)
    if not isinstance(occurrence, Happened):
        return False
    return is_event(occasion, occurrence.event, run, situation.evaluation, run.entered_at, until)


def _must_leave(situation: Situation, occurrence: Occurrence) -> str | None:
    """The reason of the first exit criterion that is met."""
    run = situation.run
    for criterion in situation.journey.exits:
        rule = criterion.occasion.when
        if rule is not None:
            is_met = rule.holds(situation.record, situation.evaluation)
        else:
            is_met = isinstance(occurrence, Happened) and is_event(
                criterion.occasion, occurrence.event, run, situation.evaluation, run.entered_at
            )
        if is_met:
            return criterion.reason
    return None


def _follow(situation: Situation, goal: Goal) -> None:
    draft = situation.draft
    if goal.effect is GoalEffect.EXIT or goal.to is None:
        draft.end(RunState.EXITED, f"goal:{goal.id}")
        return
    if situation.run.open:
        draft.do(CancelMessages(situation.run.visit, f"goal:{goal.id}"))
    _leave(situation, goal.to, f"goal {goal.id}")


def _leave(situation: Situation, to: str, edge: str) -> None:
    """A wait is over: the next node is executed in the same step."""
    draft = situation.draft
    draft.say(Said.LEFT, situation.run.node, edge=edge, to=to)
    draft.set(open=(), left=())
    execute(situation, to)


def _proceed(situation: Situation, occurrence: Occurrence) -> None:
    match occurrence:
        case Woken():
            _wake(situation)
        case Happened() | Changed():
            _hear(situation, occurrence)
        case Reported():
            _settle(situation, occurrence)
        case Answered():
            _answer(situation, occurrence)
        case Stopped():
            situation.draft.end(RunState.EXITED, occurrence.reason)


def _wake(situation: Situation) -> None:
    run, node = situation.run, situation.journey.nodes.get(situation.run.node)
    if run.state is RunState.WAITING and isinstance(node, Delay):
        _leave(situation, node.next, "")
    elif run.state is RunState.WAITING and isinstance(node, WaitUntil):
        _look_again(situation, node)
    elif run.state is RunState.WAITING and isinstance(node, Approval):
        _leave(situation, node.timeout_to, "timeout")
    elif run.state is RunState.SENDING and isinstance(node, (Message, Webhook)):
        _give_up(situation, node)
    else:
        execute(situation, run.node)


def _look_again(situation: Situation, node: WaitUntil) -> None:
    """The clock made a condition true, or time is up: what happened before that and is told late still wins."""
    run, deadline = situation.run, situation.run.deadline or situation.now
    is_over = situation.now >= deadline + node.grace
    was_in_time = run.wake_at is not None and run.wake_at <= deadline
    if was_in_time or not is_over:
        has_left = _match(situation, node, Changed(min(situation.now, deadline)), deadline)
        if has_left or not is_over:
            return
    for way in node.ways:
        since = run.arrived_at if way.after_arrival and run.arrived_at else run.entered_at
        if way.occasion.event is not None and has_happened(
            way.occasion, situation.record, run, situation.evaluation, since, deadline
        ):
            _leave(situation, way.to, way.occasion.label)
            return
    _leave(situation, node.timeout_to, "timeout")


def _hear(situation: Situation, occurrence: Happened | Changed) -> None:
    """Something happened to the lead, which may be what a wait is about."""
    node = situation.journey.nodes.get(situation.run.node)
    if situation.run.state is not RunState.WAITING:
        return
    if isinstance(node, Delay) and node.recompute_on_change and isinstance(occurrence, Changed):
        _recompute(situation, node)
    if isinstance(node, WaitUntil) and situation.run.deadline is not None:
        _match(situation, node, occurrence, situation.run.deadline)


def _recompute(situation: Situation, node: Delay) -> None:
    """The lead moved, or its date did: the wait ends when it would have, had it been so on arrival."""
    arrived = situation.run.arrived_at or situation.now
    until = ends_at(node.rule, arrived, situation.zone(node.zone), situation.record)
    if until is not None and until != situation.run.wake_at:
        situation.draft.set(wake_at=max(until, situation.now), wait_token=situation.run.wait_token + 1)
        situation.draft.say(Said.EXECUTED, node.id, until=until, zone=situation.zone(node.zone).key, again=True)


def _match(situation: Situation, node: WaitUntil, occurrence: Happened | Changed, deadline: datetime) -> bool:
    """Take the first way that is open now; answers whether there was one."""
    still_held: set[int] = set()
    if occurrence.at > deadline:
        return False
    for number, way in enumerate(node.ways):
        is_open = _is_open(situation, way, occurrence, deadline)
        if is_open and number in situation.run.held:
            still_held.add(number)
        elif is_open:
            _leave(situation, way.to, way.occasion.label)
            return True
    _wait_on(situation, node, deadline, still_held)
    return False


def _is_open(situation: Situation, way: Way, occurrence: Happened | Changed, deadline: datetime) -> bool:
    run, rule = situation.run, way.occasion.when
    if rule is not None:
        return rule.holds(situation.record, situation.evaluation)
    since = run.arrived_at if way.after_arrival and run.arrived_at else run.entered_at
    return isinstance(occurrence, Happened) and is_event(
        way.occasion, occurrence.event, run, situation.evaluation, since, deadline
    )


def _wait_on(situation: Situation, node: WaitUntil, deadline: datetime, held: set[int]) -> None:
    """What did not end the wait may have moved the moment at which the clock ends it."""
    wake_at = wait_wakes_at(situation, node, deadline)
    if wake_at != situation.run.wake_at:
        situation.draft.set(wake_at=wake_at, wait_token=situation.run.wait_token + 1)
    if held != situation.run.held:
        situation.draft.set(held=frozenset(held))


def _settle(situation: Situation, reported: Reported) -> None:
    """One channel's outcome: the run goes on when all are known, whatever they are."""
    node = situation.journey.nodes.get(situation.run.node)
    _note(situation, reported)
    if not situation.draft.get("open") and isinstance(node, (Message, Webhook)):
        _settled(situation, node, situation.draft.get("outcomes"))


def _note(situation: Situation, reported: Reported) -> None:
    run, draft = situation.run, situation.draft
    why = {"reason": reported.reason} if reported.reason else {}
    draft.say(Said.OUTCOME, run.node, channel=reported.channel, outcome=str(reported.outcome), **why)
    waiting = tuple(channel for channel in run.open if channel != reported.channel)
    draft.set(open=waiting, outcomes=(*run.outcomes, reported.outcome))


def _settled(situation: Situation, node: Message | Webhook, outcomes: tuple[Outcome, ...]) -> None:
    """What was written is known: the next channel has its turn where there is one and nothing was sent."""
    run, draft = situation.run, situation.draft
    if isinstance(node, Message) and node.mode is ChannelMode.FIRST and Outcome.SENT not in outcomes and run.left:
        draft.set(open=run.left[:1], left=run.left[1:], wake_at=situation.now + OUTCOME_TIMEOUT)
        draft.do(message_to(node, situation, run.left[0]))
    else:
        _go_on(situation, node, outcomes)


def _give_up(situation: Situation, node: Message | Webhook) -> None:
    """Nobody told in time what became of it: that is a failure, and no reason to stand still."""
    run, draft = situation.run, situation.draft
    draft.do(CancelMessages(run.visit, "no_outcome"))
    for channel in run.open:
        draft.say(Said.OUTCOME, run.node, channel=channel, outcome=str(Outcome.FAILED), reason="no_outcome")
    draft.set(open=())
    _go_on(situation, node, (*run.outcomes, *(Outcome.FAILED for _ in run.open)))


def _go_on(situation: Situation, node: Message | Webhook, outcomes: Iterable[Outcome]) -> None:
    known = set(outcomes)
    total = next(each for each in (Outcome.SENT, Outcome.FAILED, Outcome.SKIPPED) if each in known)
    to = node.edge(total)
    if to is None:
        situation.draft.end(RunState.EXITED, "not_sent")
    else:
        _leave(situation, to, str(total))


def _answer(situation: Situation, answered: Answered) -> None:
    node = situation.journey.nodes.get(situation.run.node)
    if isinstance(node, Approval):
        _leave(
            situation,
            node.approved if answered.approved else node.rejected,
            "approved" if answered.approved else "rejected",
        )
