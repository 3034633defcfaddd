"""One turn of a worker: every kind of waiting work, found in the tables.

A ring of the doorbell only makes the next turn come sooner; polling alone is enough, so a lost,
doubled or late message does no harm.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Row

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.contracts import CompensatingChannel
from nexus_marketing.core.deliveries import SendStatus
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.db.isolation import isolated
from nexus_marketing.db.queries import journeys
from nexus_marketing.db.queries.campaigns import campaigns_to_tick
from nexus_marketing.db.queries.completion import launches_to_join, sends_to_report
from nexus_marketing.db.queries.partitions import keep_ahead
from nexus_marketing.db.queries.planning import sends_to_plan, set_send_status
from nexus_marketing.db.queries.preflights import fail_preflight, preflights_waiting
from nexus_marketing.db.queries.queues import SINK_DUE, queued_work
from nexus_marketing.db.queries.scoring import scoring_work
from nexus_marketing.db.queries.workers import say_alive
from nexus_marketing.db.retry import DATABASE_ERRORS, cause_of, is_transient
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.delivery.completion import complete_finished, open_retries, settle_cancelled
from nexus_marketing.delivery.forecast import advance_preflight
from nexus_marketing.delivery.planning import SendRef, plan_send
from nexus_marketing.delivery.recovery import recover_dead, recover_expired
from nexus_marketing.delivery.renders import forget_renders
from nexus_marketing.delivery.sending import Sender
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.actions.requests import TYPE as ACTION
from nexus_marketing.services.actions.runs import ACTION_DUE, run_action
from nexus_marketing.services.asides import Asides
from nexus_marketing.services.campaigns.moving import postpone_tick, tick_campaign
from nexus_marketing.services.counters import fold_counters
from nexus_marketing.services.engagements import forget_event_ids
from nexus_marketing.services.hits import judge_hits
from nexus_marketing.services.idempotency import forget_answers
from nexus_marketing.services.imports.work import ImportWork, forget_imports
from nexus_marketing.services.journeys.calls import make_call, tell_call
from nexus_marketing.services.journeys.runs import (
    tell_runs,
)
from nexus_marketing.services.journeys.wanted import unwanted_messages
from nexus_marketing.services.leads.removals import finish_removals
from nexus_marketing.services.plugins.audit_sinks import sink_due, sink_given_up, wake_sinks
from nexus_marketing.services.provider_reports import take_in_reports
from nexus_marketing.services.public_events import take_in_public_events
from nexus_marketing.services.reactions import REACTIONS_DUE, look_due
from nexus_marketing.services.scores.recomputing import advance_recompute, clear_removed
from nexus_marketing.services.scores.scoring import score_marked
from nexus_marketing.services.segments.refresh import recalculate_requested, refresh
from nexus_marketing.services.segments.upkeep import keep_segments
from nexus_marketing.services.send_ends import join_channels, tell_ends
from nexus_marketing.services.timers import Handed, TimerHandlers, fire_due
from nexus_marketing.services.watching import TYPE as REACTIONS
from nexus_marketing.tasks import timers
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PAUSE_AFTER_ERROR_SECONDS = 1.0
#: Of a turn: what is to be sent must not wait long for those who only look.
_LOOK_SECONDS = 0.25
_PARTITIONS_EVERY_SECONDS = 6 * 3600.0


@dataclass(slots=True)
class WorkerLoop:
    """A thread's endless turn over all work; ``stopping`` ends it between windows.

    Args:
        runtime: of the process.
        stopping: whether to end.
        serves: by which channels it sends; by all, where nobody says otherwise.
        only_sends: it does nothing else: others in the process do.
        rest: waits for so many seconds, or until there may be something to do.
    """

    runtime: Runtime
    stopping: Callable[[], bool]
    serves: Callable[[str], bool] = lambda _: True
    only_sends: bool = False
    rest: Callable[[float], object] | None = None
    sender: Sender = field(init=False)
    imports: ImportWork = field(init=False)
    calls: Asides = field(init=False)
    watching: Asides = field(init=False)
    actions: Asides = field(init=False)
    sinks: Asides = field(init=False)
    timers: TimerHandlers = field(init=False)
    _partitions_at: float = field(default=float("-inf"), init=False)
    #: The tenant whose runs were told last of what became of their messages.
    _told: int = field(default=0, init=False)
    #: Timers that could not be given back while the database was away.
    _held: list[TimerFact] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.sender = Sender(self.runtime, self.stopping, unwanted_messages, self.serves)
        self.imports = ImportWork(self.runtime)
        self.calls = Asides(self.runtime, make_call, "journey-call")
        self.watching = Asides(self.runtime, look_due, "reactions", lanes=2)
        self.actions = Asides(self.runtime, run_action, "action")
        self.sinks = Asides(self.runtime, sink_due, "audit-sink", lanes=2)
        handed = {
            SINK_DUE: Handed(self.sinks.take, sink_given_up),
            journeys.CALL_DUE: Handed(self.calls.take, tell_call),
            REACTIONS: Handed(self.watching.take, REACTIONS_DUE.give_up, stays=False),
        }
        plugins = (
            self.runtime.plugin_of(name, Capability.ACTION) for name in self.runtime.plugins.of(Capability.ACTION)
        )
        takes_back = any(isinstance(each, CompensatingChannel) for each in self.runtime.channels.values())
        if takes_back or any(each is not None and each.is_sandboxed for each in plugins):
            # They may take their whole time whenever they are called, and a long send is taken back for hours.
            handed[ACTION] = Handed(self.actions.take, ACTION_DUE.give_up, stays=False)
        self.timers = {**timers.TIMERS, **handed}

    def run(self) -> None:
        """Turn until stopped, sleeping only when there was nothing to do."""
        try:
            while not self.stopping():
                if not self._safe_turn():
                    poll = self.runtime.settings.poll.total_seconds()
                    (self.rest or self.runtime.doorbell.wait)(min(poll, self.sender.pause_seconds))
        finally:
            self.finish()

    def finish(self) -> None:
        """Remove the journal and part from servers; nothing of ours is open any more."""
        self.sender.close()
        self.imports.close()
        self.calls.close()
        self.watching.close()
        self.actions.close()
        self.sinks.close()
        self._close_channels()

    def _tell_runs(self) -> int:
        told, self._told = tell_runs(self.runtime, self._told)
        return told

    def turn(self) -> int:
        """Do whatever waits, once; answers how many pieces of work there were."""
        runtime = self.runtime
        say_alive(runtime.engines.worker, self.sender.worker_id, socket.gethostname(), os.getpid())
        if self.only_sends:
            return isolated(self.sender.work)
        self._keep_partitions_ahead()
        steps: tuple[Callable[[], int], ...] = (
            lambda: recover_dead(runtime, runtime.settings.state_dir / "journal"),
            lambda: recover_expired(runtime),
            self._tell_runs,
            lambda: fire_due(runtime, self.timers, self._held),
            self.calls.look,
            self.watching.look,
            self.actions.look,
            self.sinks.look,
            lambda: keep_segments(runtime),
            lambda: recalculate_requested(runtime),
            lambda: tick_due(runtime),
            lambda: plan_waiting(runtime),
            lambda: forecast_waiting(runtime),
            lambda: open_retries(runtime),
            self.sender.work,
            lambda: settle_cancelled(runtime),
            lambda: complete_finished(runtime),
            lambda: report_ends(runtime),
            lambda: tend_queues(runtime),
            lambda: tend_scores(runtime),
            lambda: finish_removals(runtime),
            self.imports.turn,
            lambda: forget_imports(runtime),
            lambda: forget_answers(runtime),
        )
        return sum(isolated(step) for step in steps if not self.stopping())

    def _keep_partitions_ahead(self) -> None:
        """At the first turn and a few times a day: rows must never wait for an operator to make room."""
        if time.monotonic() - self._partitions_at > _PARTITIONS_EVERY_SECONDS:
            keep_ahead(self.runtime.engines.worker, self.runtime.clock.now().date())
            self._partitions_at = time.monotonic()
            try:
                forget_event_ids(self.runtime)
                forget_renders(self.runtime)
            except DATABASE_ERRORS as error:  # somebody holds a table: in a few hours is early enough
                log.warning("old_rows_kept_longer", error=type(cause_of(error)).__name__)

    def _safe_turn(self) -> int:
        try:
            return self.turn()
        except DATABASE_ERRORS as error:
            # The database restarts or is busy: what was leased is recovered, the loop goes on.
            level = log.warning if is_transient(error) else log.exception
            level("worker_turn_failed", error=type(cause_of(error)).__name__, detail=str(cause_of(error)))
        except Exception:  # isolation boundary: one broken send must not end the worker
            log.exception("worker_turn_failed")
        self.runtime.telemetry.count("worker.turn_failed")
        self.runtime.doorbell.wait(_PAUSE_AFTER_ERROR_SECONDS)
        return 0

    def _close_channels(self) -> None:
        for channel in self.runtime.channels.values():
            close_thread = getattr(channel, "close_thread", None)
            if close_thread is not None:
                close_thread()


def tick_due(runtime: Runtime) -> int:
    """Take the moves of campaigns whose time has come."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        due = campaigns_to_tick(session, runtime.clock.now())
    return sum(isolated(lambda row=row: _tick(runtime, row)) for row in due)  # type: ignore[misc]


def _tick(runtime: Runtime, row: Row[Any]) -> int:
    try:
        with runtime.work(row.tenant_id, SYSTEM) as ctx:
            tick_campaign(ctx, row.id)
    except DATABASE_ERRORS:
        raise
    except Exception as error:
        log.warning("tick_failed", tenant_id=row.tenant_id, campaign_id=row.id, exc_info=True)
        with runtime.work(row.tenant_id, SYSTEM) as ctx:
            postpone_tick(ctx, row.id, f"could not go on by itself: {error}")
    return 1


def plan_waiting(runtime: Runtime) -> int:
    """Freeze the audience of every send that waits for it, from membership that is no older than the launch."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = sends_to_plan(session)
    return sum(isolated(partial(_plan_some, runtime, row)) for row in waiting)


def _plan_some(runtime: Runtime, row: Row[Any]) -> int:
    """One piece of one send, so that a large audience keeps nobody waiting; what cannot be planned is paused."""
    try:
        is_first = row.launch_id is None  # the others take over its audience
        if is_first and row.plan_cursor == 0 and refresh(runtime, row.tenant_id, row.segment_id) is None:
            return 0  # another worker computes it: the next turn plans
        plan_send(runtime, SendRef(row.tenant_id, row.id), pieces=1)
    except DATABASE_ERRORS as error:
        if is_transient(error):
            raise
        _stop_planning(runtime, row, error, type(cause_of(error)).__name__)
    except NexusError as error:
        _stop_planning(runtime, row, error, error.message)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this one, the others must have their turn
        _stop_planning(runtime, row, error, type(error).__name__)
    return 1


def _stop_planning(runtime: Runtime, row: Row[Any], error: Exception, reason: str) -> None:
    log.warning("planning_failed", tenant_id=row.tenant_id, send_id=row.id, reason=reason, exc_info=error)
    with open_session(runtime.engines.worker, tenant_id=row.tenant_id) as session, session.begin():
        set_send_status(session, row.id, SendStatus.PAUSED, f"cannot be planned: {reason}"[:200])


def forecast_waiting(runtime: Runtime) -> int:
    """Look at the audiences of pre-flights for a while, at a piece of each in turn; answers how many pieces."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = preflights_waiting(session)
    until, done = time.monotonic() + _LOOK_SECONDS, 0
    while waiting and time.monotonic() < until:
        waiting = [row for row in waiting if isolated(partial(_look, runtime, row, is_first=not done))]
        done += len(waiting)
    return done


def _look(runtime: Runtime, row: Row[Any], *, is_first: bool) -> int:
    try:
        if is_first and row.cursor == 0 and row.segment_id is not None:
            refresh(runtime, row.tenant_id, row.segment_id)
        return int(advance_preflight(runtime, row.tenant_id, row.id))
    except DATABASE_ERRORS:
        raise
    except Exception as error:  # whatever is wrong with this one, it is not tried for ever
        reason = error.message if isinstance(error, NexusError) else type(error).__name__
        log.warning("preflight_failed", tenant_id=row.tenant_id, preflight_id=row.id, reason=reason, exc_info=True)
        with open_session(runtime.engines.worker, tenant_id=row.tenant_id) as session, session.begin():
            fail_preflight(session, row.id, reason)
        return 0


_TENDING: Mapping[str, Callable[[Runtime, int], int]] = {
    "audit": wake_sinks,
    "hits": judge_hits,
    "public": take_in_public_events,
    "reports": take_in_reports,
    "deltas": fold_counters,
}


def tend_queues(runtime: Runtime) -> int:
    """Judge hits, find out whose public events are, act on reports of providers, fold counters, have sinks told of the audit: a piece of each for every tenant that has some."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = queued_work(session, runtime.settings.settling.total_seconds())
    return sum(isolated(lambda row=row: _TENDING[row.kind](runtime, row.tenant_id)) for row in waiting)  # type: ignore[misc]


_SCORING: Mapping[str, Callable[[Runtime, int], int]] = {
    "marks": score_marked,
    "recompute": advance_recompute,
    "removal": clear_removed,
}


def tend_scores(runtime: Runtime) -> int:
    """Look at leads that were touched, carry new rules to all of them: a piece of each for every tenant that has some."""
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        waiting = scoring_work(session)
    return sum(isolated(lambda row=row: _SCORING[row.kind](runtime, row.tenant_id)) for row in waiting)  # type: ignore[misc]


def report_ends(runtime: Runtime) -> int:
    """Tell campaigns how their sends ended, and of launches of which enough channels are through."""
    told: dict[tuple[int, int], list[int]] = {}
    with open_session(runtime.engines.worker, tenant_id=None, mode="read") as session:
        for row in launches_to_join(session):
            told.setdefault((row.tenant_id, row.campaign_id), []).append(row.id)
        ended = {(row.tenant_id, row.campaign_id) for row in sends_to_report(session)}
    steps = [
        partial(_report, runtime, campaign, told.get(campaign, ()), is_over=campaign in ended)
        for campaign in sorted({*told, *ended})
    ]
    return sum(isolated(step) for step in steps)


def _report(runtime: Runtime, campaign: tuple[int, int], launches: Sequence[int], *, is_over: bool) -> int:
    tenant_id, campaign_id = campaign
    with runtime.work(tenant_id, SYSTEM) as ctx:
        done = sum(join_channels(ctx, campaign_id, launch_id) for launch_id in launches)
        if is_over:
            tell_ends(ctx, campaign_id)
    return done + is_over
