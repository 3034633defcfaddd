"""What operators do to runs on their way: to another version, out of a pause (BEHAVIOUR.md 5.1, Editing, Pause)."""

from datetime import datetime, timedelta

from nexus_marketing.core.engine.journey_situations import LeadFacts, Situation
from nexus_marketing.core.engine.journeys import go_on_sending
from nexus_marketing.core.journeys.delays import ends_at
from nexus_marketing.core.journeys.drafts import Draft
from nexus_marketing.core.journeys.model import Journey
from nexus_marketing.core.journeys.nodes import CALL, END, Approval, Delay, Node, WaitUntil
from nexus_marketing.core.journeys.runs import AskApproval, CancelMessages, Run, RunDecision, RunState, Said

_MIGRATED = "migrated"


def destination(old: Journey, new: Journey, node: str, mapped: dict[str, str]) -> str | None:
    """Where a migration takes a run that stands at a node: where it says, else to the node of the same name and type."""
    if node in mapped:
        return mapped[node]
    before, after = old.nodes.get(node), new.nodes.get(node)
    return node if before is not None and after is not None and before.kind is after.kind else None


def migrate(journey: Journey, run: Run, facts: LeadFacts, to: str, now: datetime) -> RunDecision:
    """Take a run to a node of another version; whoever waited waits on as if it had arrived there when it arrived.

    Args:
        journey: the version it comes to.
        run: one that is not sending.
        facts: of the lead.
        to: a node of it, or the end.
        now: the moment (aware UTC).
    """
    situation = Situation(journey, run, facts, now)
    draft = situation.draft
    draft.set(digest=journey.digest)
    draft.say(Said.MOVED, run.node, to=to, digest=journey.digest)
    if to == END:
        draft.end(RunState.EXITED, _MIGRATED)
        return draft.decision()
    node = journey.nodes[to]
    draft.set(node=to)
    if run.arrived_at is None or not _wait_on(situation, node, run.arrived_at):
        draft.rest(RunState.READY, now, node=to)
    return draft.decision()


def leave_or_hold(run: Run, now: datetime, *, hold: bool) -> RunDecision:
    """A migration has no place for a run: it leaves, or stands still until an operator says where it belongs."""
    draft = Draft(run, now)
    if hold:
        draft.say(Said.MOVED, run.node, held=True)
        draft.rest(RunState.MIGRATING, None, arrived_at=run.arrived_at)
    else:
        draft.end(RunState.EXITED, _MIGRATED)
    return draft.decision()


def patch(run: Run, version: int, now: datetime) -> RunDecision:
    """Take a run to a version that says the same in other words: it waits, or sends, as it did."""
    draft = Draft(run, now)
    draft.say(Said.MOVED, run.node, patched=version)
    draft.set(node=run.node)  # as it was: only its history says more
    return draft.decision()


def shift(run: Run, by: timedelta, now: datetime) -> RunDecision:
    """Whatever a run waits for comes later by as long as the pause was; the wait is the same, and so is its token."""
    draft = Draft(run, now)
    moments = {name: getattr(run, name) for name in ("wake_at", "arrived_at", "deadline")}
    later = {name: each + by for name, each in moments.items() if each is not None}
    if later:
        draft.set(**later)
        draft.say(Said.MOVED, run.node, by_seconds=by.total_seconds())
    return draft.decision()


def leave_out_late(run: Run, now: datetime) -> RunDecision:
    """What a run was to send during the pause is left out: what is written is withdrawn, what was due is not written."""
    draft = Draft(run, now)
    if CALL in run.open:
        return draft.decision()  # programs are told, however late
    if run.state is RunState.SENDING:
        draft.set(left=())
        draft.do(CancelMessages(run.visit, "late"))
    elif run.wake_at is not None and run.wake_at <= now:
        draft.set(is_late=True)
    return draft.decision()


def revive(journey: Journey, run: Run, facts: LeadFacts, by: str, why: str, now: datetime) -> RunDecision:
    """Put a run that failed back where it stood: whoever waited waits on, and what was written is not written again.

    Args:
        journey: the version that it is on.
        run: one that failed.
        facts: of the lead.
        by: who does it.
        why: for whoever reads the history.
        now: the moment (aware UTC).
    """
    situation = Situation(journey, run, facts, now)
    draft, node = situation.draft, journey.nodes.get(run.node)
    draft.say(Said.REVIVED, run.node, by=by, why=why, failed=run.reason)
    draft.set(ended_at=None, reason=None)
    if run.open or run.outcomes:
        go_on_sending(situation)
    elif node is None or run.arrived_at is None or not _wait_on(situation, node, run.arrived_at):
        draft.rest(RunState.READY, now)
    elif isinstance(node, WaitUntil):
        draft.set(held=run.held)
    return draft.decision()


def _wait_on(situation: Situation, node: Node, arrived: datetime) -> bool:
    draft, now = situation.draft, situation.now
    if isinstance(node, Delay):
        until = ends_at(node.rule, arrived, situation.zone(node.zone), situation.record)
        draft.rest(RunState.WAITING, max(until or now, now), node=node.id, arrived_at=arrived)
        return True
    if isinstance(node, WaitUntil):
        deadline = arrived + node.timeout
        held = {
            number
            for number, way in enumerate(node.ways)
            if way.after_arrival
            and way.occasion.when is not None
            and way.occasion.when.holds(situation.record, situation.evaluation)
        }
        # At once: a state that is there already ends the wait at its first look.
        look_at = min(now, deadline + node.grace)
        draft.rest(RunState.WAITING, look_at, node=node.id, arrived_at=arrived, deadline=deadline, held=frozenset(held))
        return True
    if isinstance(node, Approval):
        deadline = arrived + node.timeout
        draft.rest(RunState.WAITING, max(deadline, now), node=node.id, arrived_at=arrived, deadline=deadline)
        draft.do(AskApproval(node.id, node.by, draft.get("wait_token"), deadline))
        return True
    return False
