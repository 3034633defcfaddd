"""What each type of node does when a run comes to it (BEHAVIOUR.md 5.1).

A node waits, or does its work and points on: the next one is executed by the next step.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import next_flip
from nexus_marketing.core.engine.journey_situations import Situation
from nexus_marketing.core.journeys.delays import Fallback, UntilDate, ends_at
from nexus_marketing.core.journeys.draws import bucket, drawn
from nexus_marketing.core.journeys.nodes import (
    CALL,
    END,
    Act,
    Approval,
    Branch,
    ChangeSegment,
    ChannelMode,
    Delay,
    Exit,
    GivePoints,
    Jump,
    Message,
    NodeKind,
    Outcome,
    Split,
    UpdateLead,
    WaitUntil,
    Webhook,
)
from nexus_marketing.core.journeys.occasions import is_there
from nexus_marketing.core.journeys.runs import (
    AddPoints,
    AskApproval,
    CallUrl,
    Effect,
    PutInSegment,
    RunState,
    Said,
    SendMessage,
    SetFields,
    TakeAction,
)

#: A message whose outcome nobody tells in this time has failed: longer than holds, deferrals and retries together.
OUTCOME_TIMEOUT: Final = timedelta(days=14)
#: Whoever has been through so many nodes goes round in a circle of seconds.
MOST_VISITS: Final = 10_000


def execute(situation: Situation, name: str) -> None:
    """Let a run come to a node: exactly one is executed in a step."""
    draft = situation.draft
    if name == END:
        draft.end(RunState.DONE, "end")
        return
    node = situation.journey.nodes.get(name)
    draft.set(node=name, visit=situation.run.visit + 1)
    if node is None or situation.run.visit >= MOST_VISITS:
        draft.end(RunState.FAILED, "node_missing" if node is None else "too_many_steps")
        return
    if name in situation.journey.visits:
        most, to = situation.journey.visits[name]
        count = situation.run.visits.get(name, 0) + 1
        if count > most:
            _advance(situation, to, "visits", most=most)
            return
        draft.set(visits={**situation.run.visits, name: count})
    _EXECUTORS[node.kind](situation, node)


def wait_wakes_at(situation: Situation, node: WaitUntil, deadline: datetime) -> datetime:
    """When a wait is looked at again though nothing happened: its end, or the clock makes a condition true."""
    moments = [deadline + node.grace]
    for way in node.ways:
        rule = way.occasion.when
        if rule is not None and rule.reads.clock:
            flip = next_flip(rule.condition, rule.schema, situation.record, situation.evaluation)
            moments += [flip] if flip is not None and flip <= deadline else []
    return min(moments)


def message_to(node: Message, situation: Situation, channel: str) -> SendMessage:
    """What is to be written into the ledger."""
    return SendMessage(
        node.id,
        situation.draft.get("visit"),
        channel,
        node.channels[channel],
        node.message_class,
        node.priority,
        node.obeys_caps,
        node.counts_toward_caps,
        node.obeys_quiet_hours,
        (*situation.journey.quiet_hours, *node.quiet_hours),
    )


def _advance(situation: Situation, to: str, edge: str = "", **detail: Any) -> None:
    """The node's work is done."""
    draft = situation.draft
    draft.say(Said.EXECUTED, draft.get("node"), edge=edge, to=to, **detail)
    if to == END:
        draft.end(RunState.DONE, "end")
    else:
        draft.rest(RunState.READY, situation.now, node=to)


def _wait(situation: Situation, wake_at: datetime, deadline: datetime | None = None, **detail: Any) -> None:
    draft = situation.draft
    draft.say(Said.EXECUTED, draft.get("node"), until=wake_at, **detail)
    draft.rest(RunState.WAITING, wake_at, arrived_at=situation.now, deadline=deadline, is_late=False)


def _delay(situation: Situation, node: Delay) -> None:
    zone = situation.zone(node.zone)
    until = ends_at(node.rule, situation.now, zone, situation.record)
    if until is not None and until > situation.now:
        _wait(situation, until, zone=zone.key)
    elif isinstance(node.rule, UntilDate):
        rule, label = node.rule, "missing" if until is None else "past"
        _fall_back(situation, node, rule.if_missing if until is None else rule.if_past, label)
    else:
        _advance(situation, node.next)


def _fall_back(situation: Situation, node: Delay, fallback: Fallback, label: str) -> None:
    if fallback.word == "exit":
        situation.draft.say(Said.EXECUTED, node.id, edge=label, to=END)
        situation.draft.end(RunState.EXITED, f"date_{label}")
    elif fallback.to is not None:
        _advance(situation, fallback.to, label)
    else:
        _advance(situation, node.next, "", date=label)


def _wait_until(situation: Situation, node: WaitUntil) -> None:
    held = set()
    for number, way in enumerate(node.ways):
        if way.after_arrival:
            if way.occasion.when is not None and way.occasion.when.holds(situation.record, situation.evaluation):
                held.add(number)
        elif is_there(way.occasion, situation.record, situation.run, situation.evaluation):
            _advance(situation, way.to, way.occasion.label)
            return
    deadline = situation.now + node.timeout
    _wait(situation, wait_wakes_at(situation, node, deadline), deadline)
    situation.draft.set(held=frozenset(held))


def _branch(situation: Situation, node: Branch) -> None:
    trace = []
    for way in node.ways:
        is_open = is_there(way.occasion, situation.record, situation.run, situation.evaluation)
        trace.append(is_open)
        if is_open:
            _advance(situation, way.to, way.occasion.label, trace=trace)
            return
    _advance(situation, node.otherwise, "else", trace=trace)


def _split(situation: Situation, node: Split) -> None:
    journey, run = situation.journey, situation.run
    number = bucket(node.salt or journey.salt, journey.code, node.id, run.lead_id)
    share = drawn(node.shares, number)
    _advance(situation, share.to, f"{share.name} {share.hundredths / 100:g} %", bucket=number)


def _message(situation: Situation, node: Message) -> None:
    draft, channels = situation.draft, tuple(node.channels)
    if situation.run.is_late:
        to = node.edge(Outcome.SKIPPED)
        if to is None:
            draft.say(Said.EXECUTED, node.id, edge="late", to=END)
            draft.end(RunState.EXITED, "not_sent")
        else:
            _advance(situation, to, str(Outcome.SKIPPED), reason="late")
        return
    count = 1 if node.mode is ChannelMode.FIRST else len(channels)
    draft.say(Said.EXECUTED, node.id, channels=channels[:count], **situation.proof)
    draft.rest(
        RunState.SENDING,
        situation.now + OUTCOME_TIMEOUT,
        arrived_at=situation.now,
        open=channels[:count],
        left=channels[count:],
    )
    for channel in channels[:count]:
        draft.do(message_to(node, situation, channel))


def _effect(make: Callable[[Any], Effect]) -> Callable[[Situation, Any], None]:
    """A node that tells somebody something and goes on."""

    def executor(situation: Situation, node: Any) -> None:
        situation.draft.do(make(node))
        _advance(situation, node.next, **situation.proof)

    return executor


def _segment_effect(node: ChangeSegment) -> Effect:
    return PutInSegment(node.segment, node.kind is NodeKind.ADD_TO_SEGMENT)


def _update_effect(node: UpdateLead) -> Effect:
    return SetFields(node.values)


def _score_effect(node: GivePoints) -> Effect:
    return AddPoints(node.score, node.points)


def _act(situation: Situation, node: Act) -> None:
    compensate = situation.journey.compensations.get(node.id)
    situation.draft.do(TakeAction(node.action, node.arguments, compensate))
    _advance(situation, node.next, **situation.proof)


def _approval(situation: Situation, node: Approval) -> None:
    deadline = situation.now + node.timeout
    _wait(situation, deadline, deadline, by=node.by)
    situation.draft.do(AskApproval(node.id, node.by, situation.draft.get("wait_token"), deadline))


def _webhook(situation: Situation, node: Webhook) -> None:
    draft = situation.draft
    draft.say(Said.EXECUTED, node.id, url=node.url, **situation.proof)
    wake_at = situation.now + OUTCOME_TIMEOUT
    draft.rest(RunState.SENDING, wake_at, arrived_at=situation.now, open=(CALL,))
    draft.do(CallUrl(node.id, draft.get("visit"), node.url, node.method, node.body))


def _jump(situation: Situation, node: Jump) -> None:
    _advance(situation, node.to)


def _exit(situation: Situation, node: Exit) -> None:
    situation.draft.say(Said.EXECUTED, node.id)
    situation.draft.end(RunState.EXITED, node.reason)


_EXECUTORS: Final[Mapping[NodeKind, Callable[[Situation, Any], None]]] = {
    NodeKind.DELAY: _delay,
    NodeKind.WAIT_UNTIL: _wait_until,
    NodeKind.BRANCH: _branch,
    NodeKind.SPLIT: _split,
    NodeKind.MESSAGE: _message,
    NodeKind.UPDATE_LEAD: _effect(_update_effect),
    NodeKind.ADD_TO_SEGMENT: _effect(_segment_effect),
    NodeKind.REMOVE_FROM_SEGMENT: _effect(_segment_effect),
    NodeKind.SCORE: _effect(_score_effect),
    NodeKind.WEBHOOK: _webhook,
    NodeKind.APPROVAL: _approval,
    NodeKind.ACTION: _act,
    NodeKind.JUMP: _jump,
    NodeKind.EXIT: _exit,
}
