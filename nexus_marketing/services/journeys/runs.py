"""Runs of journeys on the database: one decision for a run, written where the run is still the same.

A run is woken by its one timer; by what its lead does and becomes, which comes as timers too, set in the transaction that
changed the lead; and by what became of its messages. Whatever wakes it is removed in the transaction that writes the
decision: a crash before the commit means that nothing happened, and one after it that everything did.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, bindparam, select
from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.engine.journey_situations import LeadFacts
from nexus_marketing.core.engine.journeys import decide
from nexus_marketing.core.errors import Conflict
from nexus_marketing.core.journeys import Changed, Happened, Outcome, Reported, RunState, Woken
from nexus_marketing.core.journeys.nodes import Approval
from nexus_marketing.core.journeys.runs import LIVE, Occurrence
from nexus_marketing.core.journeys.statuses import JourneyStatus, Listens
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.ahead import answers
from nexus_marketing.db.models import Journey, JourneyApproval, JourneyListener, JourneyRun, Lead
from nexus_marketing.db.queries import journeys as queries
from nexus_marketing.db.queries.journey_steps import standing_of
from nexus_marketing.db.queries.timers import take_timer
from nexus_marketing.db.retry import is_transient
from nexus_marketing.db.tenancy import find, open_session
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.journeys.approvals import close_answered, close_questions
from nexus_marketing.services.journeys.batches import PIECE as TOLD_TOGETHER
from nexus_marketing.services.journeys.batches import runs_told
from nexus_marketing.services.journeys.compensation import begin_taking_back
from nexus_marketing.services.journeys.effects import take_effect
from nexus_marketing.services.journeys.facts import facts_asked, facts_from, happened_at
from nexus_marketing.services.journeys.hearing import tell_ends
from nexus_marketing.services.journeys.messages import OUTCOMES
from nexus_marketing.services.journeys.rows import Standing, run_of, standing, write_decision
from nexus_marketing.services.timers import Locking, set_timer
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: An event that a paused journey has yet to hear of, by run.
HELD: Final = "journey.held"
#: What became of a message and could not be told to its run at once, by send and number.
TELL: Final = "journey.tell"
_TELL_AGAIN: Final = timedelta(seconds=10)
#: How long a pause puts things off at a time; resuming ends it at once.
LATER: Final = timedelta(hours=1)
_SOON: Final = timedelta(seconds=1)
#: Runs of a journey that is stopped, for each transaction.
PIECE: Final = 500
STOP: Final = "journey.stop"
_LOCKED: Final = (
    select(JourneyRun)
    .where(JourneyRun.id == bindparam("run_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)


class _Seen(NamedTuple):
    """What a decision on a run is made from."""

    standing: Standing
    facts: LeadFacts | None


def _look(ctx: Context, row: JourneyRun) -> _Seen:
    version = (row.journey_id, row.version_number)
    stands, *asked = answers(ctx.session, standing_of(*version), *facts_asked(ctx, [row.lead_id]))
    found = standing(ctx, version, stands)
    return _Seen(found, facts_from(ctx, found.journey, asked).get(row.lead_id))


def step(ctx: Context, row: JourneyRun, occurrence: Occurrence, seen: _Seen | None = None) -> bool:
    """Decide on a locked run and write the whole decision; ``False``: the occurrence means nothing to it."""
    (journey, _status), facts = seen or _look(ctx, row)
    if facts is None:
        return bool(queries.end_runs(ctx.session, "lead", [row.lead_id], "lead_erased", ctx.now, PIECE))
    run = run_of(row, journey)
    decision = decide(journey, run, facts, occurrence, ctx.now)
    if decision.is_ignored:
        return False
    write_decision(ctx, row, decision)
    if isinstance(journey.nodes.get(run.node), Approval) and row.wait_token != run.wait_token:
        close_questions(ctx, row.id, row.wait_token, ctx.now)
    if not decision.run.is_live and run.is_live:
        tell_ends(ctx, {row.journey_id: [row.id]})
    ctx.runtime.telemetry.point("journeys.step.written")
    for effect in decision.effects:
        take_effect(ctx, row, effect)
    if decision.run.state is RunState.FAILED and run.is_live:
        begin_taking_back(ctx, [row])
    return True


def _run_due(ctx: Context, timer: TimerFact) -> None:
    """The timer of a run rang: it goes on, and has another one as long as it lives."""
    row = locked_run(ctx, int(timer.key))
    if not take_timer(ctx.session, timer) or row is None or row.state not in LIVE:
        return
    seen = _look(ctx, row)
    if seen.standing.status == JourneyStatus.PAUSED:
        set_timer(ctx, queries.RUN_DUE, timer.key, ctx.now + LATER, timer.payload)
        return
    token = int(timer.payload["token"])
    if not step(ctx, row, Woken(token), seen) or (row.state in LIVE and row.wait_token == token):
        _wait_on(ctx, row)


#: What the timer of a run does: whoever moves the run on locks it and then sets the timer.
RUN_DUE: Final = Locking(_run_due)


def run_dead(ctx: Context, timer: TimerFact, reason: str) -> None:
    """The timer of a run is put aside for good: so that nobody stands still unseen, the run has failed, and says why."""
    _fail(ctx, int(timer.key), reason)


def _fail(ctx: Context, run_id: int, reason: str) -> None:
    said = f"timer_dead: {reason}"[:300]
    if queries.end_runs(ctx.session, "run", [run_id], said, ctx.now, 1, state=RunState.FAILED):
        row = locked_run(ctx, run_id)
        assert row is not None, "it has just been ended"
        tell_ends(ctx, {row.journey_id: [row.id]})
        begin_taking_back(ctx, [row])


def answer_question(ctx: Context, approval_id: int, *, approved: bool) -> JourneyApproval:
    """Say yes or no to what a run waits with; it goes on in this transaction.

    Raises:
        NotFound: nobody asked such a thing.
        PermissionDenied: somebody else is asked.
        Conflict: it was answered already, the run waits no longer, or the journey is paused.
    """
    run_id = find(ctx.session, JourneyApproval, approval_id).run_id
    row = locked_run(ctx, run_id)  # before the question: whoever moves the run on locks in this order
    question = find(ctx.session, JourneyApproval, approval_id, lock=True)
    answered = close_answered(ctx, question, approved=approved)
    if row is None or not step(ctx, row, answered):
        raise Conflict("The run waits no longer: nothing was answered.", state=None if row is None else row.state)
    ctx.ring("timers")
    return question


def _wait_on(ctx: Context, row: JourneyRun) -> None:
    """It waits for the same thing still: the timer that just rang was the one that it had."""
    if row.state in LIVE and row.wake_at is not None:
        at = row.wake_at if row.wake_at > ctx.now else ctx.now + _SOON
        set_timer(ctx, queries.RUN_DUE, str(row.id), at, {"token": row.wait_token})


def lead_changed(ctx: Context, timer: TimerFact) -> None:
    """Something about a lead changed: its runs are looked at by what it is now."""
    for row in _runs_listening(ctx, _living(ctx, int(timer.key)), Listens.CHANGE, ""):
        if not _is_paused(ctx, row.journey_id):
            step(ctx, row, Changed(ctx.now))


def lead_moved(ctx: Context, lead_id: int, change: Listens, segment_id: int) -> None:
    """A lead entered or left a segment that journeys read: the same."""
    for row in _runs_listening(ctx, _living(ctx, lead_id), change, str(segment_id)):
        if not _is_paused(ctx, row.journey_id):
            step(ctx, row, Changed(ctx.now))


def event_happened(ctx: Context, lead_id: int, at: datetime, name: str) -> None:
    """A lead did something: each of its runs that waits for such events hears of it, one that is paused later."""
    lead_id = _living(ctx, lead_id)
    events = happened_at(ctx, lead_id, at, name)
    for row in _runs_listening(ctx, lead_id, Listens.EVENT, name):
        if len(events) == 1 and not _is_paused(ctx, row.journey_id):
            step(ctx, row, Happened(events[0], at))
            continue
        for event in events:  # several at one moment: a decision and transaction for each
            payload = {"event": event["id"], "at": at.isoformat(), "name": name}
            set_timer(ctx, HELD, f"{row.id}:{event['id']}", ctx.now, payload)


def event_held(ctx: Context, timer: TimerFact) -> None:
    """An event that a run was to hear of later."""
    row = locked_run(ctx, int(timer.key.partition(":")[0]))
    if row is None:
        return
    if _is_paused(ctx, row.journey_id):
        set_timer(ctx, HELD, timer.key, ctx.now + LATER, timer.payload)
        return
    at = datetime.fromisoformat(timer.payload["at"])
    for event in happened_at(ctx, row.lead_id, at, timer.payload["name"]):
        if event["id"] == timer.payload["event"]:
            step(ctx, row, Happened(event, at))


def stop_due(ctx: Context, timer: TimerFact) -> None:
    """End the runs of a stopped journey, a piece at a time."""
    reason = str(timer.payload["reason"])
    ended = queries.end_runs(ctx.session, "journey", [int(timer.key)], reason, ctx.now, PIECE)
    if timer.payload.get("compensate"):
        wanted = select(JourneyRun).where(JourneyRun.id.in_(ended)).order_by(JourneyRun.id)
        begin_taking_back(ctx, ctx.session.scalars(wanted.execution_options(populate_existing=True)).all())
    if len(ended) == PIECE:
        set_timer(ctx, STOP, timer.key, ctx.now, timer.payload)


def tell_runs(runtime: Runtime, after: int = 0) -> tuple[int, int]:
    """Tell runs what became of their messages, those of tenants behind ``after`` first.

    Many of a tenant in one transaction; those that cannot be told so, each in its own. Answers how many were told, and the
    tenant after which to go on.
    """
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = queries.messages_to_tell(session, after)
    told = 0
    for tenant_id, found in groupby(waiting, attrgetter("tenant_id")):
        rows = list(found)
        for first in range(0, len(rows), TOLD_TOGETHER):
            piece = rows[first : first + TOLD_TOGETHER]
            done = _tell_together(runtime, tenant_id, piece)
            alone = [row for row in piece if (row.send_id, row.seq) not in done]
            told += len(done) + sum(_tell(runtime, tenant_id, row.send_id, row.seq) for row in alone)
    return told, waiting[-1].tenant_id if waiting else 0


def _tell_together(runtime: Runtime, tenant_id: int, rows: Sequence[Row[Any]]) -> AbstractSet[tuple[int, int]]:
    if len(rows) == 1:
        return frozenset()
    try:
        with runtime.work(tenant_id, SYSTEM, by_index=True) as ctx:
            done = runs_told(ctx, rows)
            runtime.telemetry.point("journeys.told")
    except Exception as error:  # noqa: BLE001 - isolation boundary: whatever it is, the one that it is about shows it alone
        log.info("journeys_told_alone", tenant_id=tenant_id, messages=len(rows), error=type(error).__name__)
        return frozenset()
    return done


def _tell(runtime: Runtime, tenant_id: int, send_id: int, seq: int) -> int:
    try:
        with runtime.work(tenant_id, SYSTEM) as ctx:
            found = queries.take_outcome(ctx.session, send_id, seq)
            if found is None:
                return 0
            _hear(ctx, found)
            runtime.telemetry.point("journeys.told")
    except DBAPIError as error:
        if is_transient(error):
            raise
        _tell_later(runtime, tenant_id, (send_id, seq), error)
    except Exception as error:  # noqa: BLE001 - isolation boundary: the other runs must have their turn
        _tell_later(runtime, tenant_id, (send_id, seq), error)
    return 1


def _hear(ctx: Context, found: Row[Any]) -> None:
    """A run hears what became of its message."""
    run_id, visit = divmod(found.occurrence, queries.VISITS)
    row = locked_run(ctx, run_id)
    if row is not None:
        outcome = OUTCOMES.get(found.state, Outcome.FAILED)
        step(ctx, row, Reported(visit, found.channel, outcome, found.reason))


def _tell_later(runtime: Runtime, tenant_id: int, message: tuple[int, int], error: Exception) -> None:
    """Leave it to a timer, which tries again as timers do: as one of those that are to be told it would be the first again."""
    send_id, seq = message
    log.warning("journey_not_told", tenant_id=tenant_id, send_id=send_id, seq=seq, exc_info=error)
    with runtime.work(tenant_id, SYSTEM) as ctx:
        if queries.take_outcome(ctx.session, send_id, seq) is not None:
            set_timer(ctx, TELL, f"{send_id}:{seq}", ctx.now + _TELL_AGAIN)


def _tell_due(ctx: Context, timer: TimerFact) -> None:
    """Tell a run what became of its message, which could not be told before."""
    found = _message_of(ctx, timer)
    if take_timer(ctx.session, timer) and found is not None:
        _hear(ctx, found)


def _tell_dead(ctx: Context, timer: TimerFact, reason: str) -> None:
    """The run of a message of which it cannot be told has failed: nobody stands still unseen."""
    found = _message_of(ctx, timer)
    if found is not None:
        _fail(ctx, found.occurrence // queries.VISITS, reason)


#: What the timer of a message that could not be told does.
TELL_DUE: Final = Locking(_tell_due, _tell_dead)


def _message_of(ctx: Context, timer: TimerFact) -> Row[Any] | None:
    send_id, seq = map(int, timer.key.split(":"))
    return queries.outcome_of(ctx.session, send_id, seq)


def locked_run(ctx: Context, run_id: int) -> JourneyRun | None:
    """A run's row as it is now, locked; nothing where there is none."""
    return ctx.session.scalars(_LOCKED, {"run_id": run_id}).first()


def _runs_listening(ctx: Context, lead_id: int, kind: Listens, name: str) -> Iterable[JourneyRun]:
    """The lead's runs in journeys that want to hear of it; those that ended may reach goals still."""
    listening = select(JourneyListener.journey_id).where(JourneyListener.kind == kind, JourneyListener.name == name)
    wanted = [JourneyRun.lead_id == lead_id, JourneyRun.journey_id.in_(listening)]
    if kind is not Listens.EVENT:
        wanted.append(JourneyRun.state.in_([state for state in RunState if state in LIVE]))
    return list(ctx.session.scalars(select(JourneyRun).where(*wanted).order_by(JourneyRun.id).with_for_update()))


def _is_paused(ctx: Context, journey_id: int) -> bool:
    status = ctx.session.scalars(select(Journey.status).where(Journey.id == journey_id)).one()
    return status == JourneyStatus.PAUSED


def _living(ctx: Context, lead_id: int) -> int:
    """Whom a merged lead became."""
    merged = ctx.session.scalars(select(Lead.merged_into).where(Lead.id == lead_id)).first()
    return lead_id if merged is None else merged
