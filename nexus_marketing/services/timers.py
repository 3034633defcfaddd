"""Timers: set in the transaction that needs them, fired by any worker, each in a transaction of its own or with its like.

The claim commits a lease before anything is done. A handler's transaction begins by removing the timer under that
lease; so it fires once, whoever else believed to hold it, and a crash leaves it to the next worker. A handler that
wants another turn sets the timer again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.errors import ConditionUnavailable
from nexus_marketing.core.timers import LONGEST_RETRY, MAX_CRASHES, TimerFact, TimerStatus, retry_after
from nexus_marketing.db.queries import timers as queries
from nexus_marketing.db.retry import is_conflict, is_transient, reason_of
from nexus_marketing.db.tenancy import open_session
from nexus_marketing.db.types import to_text
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.plugins.conditions import TRY_AGAIN
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)


#: What a due timer does in the transaction that removed it.
Fire = Callable[[Context, TimerFact], None]
#: What follows where a timer is put aside for good, in the transaction that does so, with the reason.
GiveUp = Callable[[Context, TimerFact, str], None]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a due timer does where it must not keep a transaction open: it speaks to somebody else meanwhile.

    ``fire`` works in transactions of its own, of which the one that writes the end takes the timer first
    (``db.queries.timers.take_timer``). Where it is given up its own row says what became of it, and is where a person has it
    done again: the timer goes.
    """

    fire: Callable[[Runtime, TimerFact], None]
    give_up: GiveUp


@dataclass(frozen=True, slots=True)
class Handed:
    """Who takes a claimed timer over, and removes it or gives it back under its lease.

    ``take`` is told the moment of the monotonic clock by which to begin. A dead one stays for an operator to find, unless
    something else says what became of it (``stays``).
    """

    take: Callable[[TimerFact, float], None]
    give_up: GiveUp
    stays: bool = True


@dataclass(frozen=True, slots=True)
class Locking:
    """What a due timer does where others lock a row and then set or cancel this very timer.

    ``fire`` locks that row first as well, and then takes the timer itself (``db.queries.timers.take_timer``): whoever
    took the timer before the row would stand in their way as they in his.
    """

    fire: Fire
    give_up: GiveUp | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """What due timers of a tenant do that are done faster many at a time.

    ``many`` runs in one transaction, which looks rows up by indexes alone, takes those timers that it can do so (``db.queries.timers.take_timers``) and answers
    their ids; the others, and all of them where it fails, are fired by ``one``, each as if there was nothing else.
    """

    one: Fire | Locking
    many: Callable[[Context, Sequence[TimerFact]], AbstractSet[int]]
    give_up: GiveUp


Handler = Fire | Locking | Outside | Handed | Together
#: What due timers do, by their type.
TimerHandlers = Mapping[str, Handler]

_MOST_PER_TENANT: Final = 50
_MOST: Final = 1_000
_DOUBTFUL_SECONDS: Final = 1.0
#: Transactions that are in each other's way are tried so often before others have their turn.
_TRIES: Final = 3


def set_timer(
    ctx: Context,
    type_: str,
    key: str,
    at: datetime,
    payload: Mapping[str, Any] | None = None,
    *,
    campaign_id: int | None = None,
    earliest: bool = False,
) -> None:
    """Have something done at a moment: there is one timer of a type and key, and this moves it.

    Args:
        ctx: the unit of work; the timer is there when it commits.
        type_: the name under which a handler is registered, such as ``segment.clock``.
        key: what it is about.
        at: when (aware UTC); a moment that has passed is due at once.
        payload: what the handler needs to know, without personal data.
        campaign_id: where it belongs to a campaign and goes with it.
        earliest: never move it to a later moment; a payload that is there stays.
    """
    values = {
        "type": type_,
        "key": key,
        "at": at,
        "payload": dict(payload or {}),
        "campaign_id": campaign_id,
        "now": ctx.now,
    }
    queries.set_timer(ctx.session, values, earliest=earliest)


def set_timers(ctx: Context, type_: str, timers: Sequence[tuple[str, datetime, Mapping[str, Any]]]) -> None:
    """As :func:`set_timer` for many of one type at once: key, moment and payload of each."""
    if timers:
        rows = [{"key": key, "at": to_text(at), "payload": payload} for key, at, payload in timers]
        queries.set_timers(ctx.session, type_, rows, ctx.now)


def cancel_timer(ctx: Context, type_: str, key: str) -> bool:
    """Take a timer back; whether there was one."""
    return queries.cancel_timer(ctx.session, type_, key)


def cancel_timers(ctx: Context, type_: str, keys: Sequence[str]) -> None:
    """Take timers of one type back, those that are there."""
    queries.cancel_timers(ctx.session, type_, keys)


def fire_due(runtime: Runtime, handlers: TimerHandlers, held: list[TimerFact] | None = None) -> int:
    """Claim what is due, a few of each tenant, and fire it; answers how many it took on.

    Args:
        runtime: of the process.
        handlers: what due timers do, by their type.
        held: kept by the caller from one call to the next: what could not be given back because the database was away.
            Nobody must believe that a worker died over it.
    """
    held = [] if held is None else held
    if held:
        let_go(runtime, held)
        held.clear()
    fired, is_doubtful = _fire_some(runtime, handlers, held)
    if is_doubtful:  # each of those that a dead worker held is fired alone: as many as a moment holds
        until = time.monotonic() + _DOUBTFUL_SECONDS
        while is_doubtful and time.monotonic() < until:
            more, is_doubtful = _fire_some(runtime, handlers, held)
            fired += more
    return fired


def _fire_some(runtime: Runtime, handlers: TimerHandlers, held: list[TimerFact]) -> tuple[int, bool]:
    """Claim and fire once; how many, and whether it was one alone because its worker had ended."""
    token = runtime.rng.getrandbits(62)
    lease_seconds = runtime.settings.lease.total_seconds()
    until = time.monotonic() + lease_seconds / 2
    with open_session(runtime.engines.worker, tenant_id=None, by_index=True) as session, session.begin():
        claimed = queries.claim_timers(
            session,
            runtime.clock.now(),
            token,
            lease_seconds=lease_seconds,
            each=_MOST_PER_TENANT,
            most=_MOST,
        )
    taken = _one_if_doubtful(runtime, claimed)
    alone = _fire_together(runtime, handlers, taken, until)
    for place, timer in enumerate(alone):
        if time.monotonic() > until:
            # Before the lease is over: whoever takes the rest up then must not believe that somebody died over it.
            let_go(runtime, alone[place:])
            break
        try:
            _fire(runtime, handlers, timer, until)
        except DBAPIError as error:
            held += _break_off(runtime, alone[place:], error)
            raise
    return len(taken), taken is not claimed


def _one_if_doubtful(runtime: Runtime, claimed: Sequence[TimerFact]) -> Sequence[TimerFact]:
    """A timer whose worker ended is fired alone: those that were only claimed with it must not be blamed again."""
    doubtful = next((each for each in claimed if each.crashes), None)
    if doubtful is None:
        return claimed
    let_go(runtime, [each for each in claimed if each is not doubtful])
    return [doubtful]


def _fire_together(
    runtime: Runtime, handlers: TimerHandlers, timers: Sequence[TimerFact], until: float
) -> Sequence[TimerFact]:
    """Fire what is done many at a time, a tenant and type in each transaction; answers what is to be fired alone."""
    groups: dict[tuple[int, str], list[TimerFact]] = {}
    for timer in timers:
        if timer.attempts == 1 and not timer.crashes:
            groups.setdefault((timer.tenant_id, timer.type), []).append(timer)
    fired: set[int] = set()
    for (_, type_), group in groups.items():
        handler = handlers.get(type_)
        if isinstance(handler, Together) and len(group) > 1 and time.monotonic() < until:
            fired |= _fire_group(runtime, handler, group)
    return [each for each in timers if each.id not in fired]


def _fire_group(runtime: Runtime, handler: Together, group: Sequence[TimerFact]) -> AbstractSet[int]:
    tenant_id, type_ = group[0].tenant_id, group[0].type
    try:
        with runtime.work(tenant_id, SYSTEM, by_index=True) as ctx:
            fired = handler.many(ctx, group)
    except Exception as error:  # noqa: BLE001 - isolation boundary: whatever it is, the one that it is about shows it alone
        log.info("timers_fired_alone", tenant_id=tenant_id, type=type_, timers=len(group), error=type(error).__name__)
        return frozenset()
    now = runtime.clock.now()
    for timer in group:
        if timer.id in fired:
            runtime.telemetry.observe("timers.late", (now - timer.trigger_at).total_seconds(), type=type_)
    return fired


def let_go(runtime: Runtime, timers: Sequence[TimerFact]) -> None:
    """Give claimed timers back that nobody has tried to fire."""
    by_tenant: dict[int, list[TimerFact]] = {}
    for each in timers:
        by_tenant.setdefault(each.tenant_id, []).append(each)
    for tenant_id, found in by_tenant.items():
        with open_session(runtime.engines.worker, tenant_id=tenant_id) as session, session.begin():
            queries.let_go(session, found)


def _break_off(runtime: Runtime, timers: Sequence[TimerFact], error: DBAPIError) -> Sequence[TimerFact]:
    """The database is away or busy: give back what was claimed, of which the first one failed; answers what could not be."""
    failed, *others = timers
    again = runtime.clock.now() + (retry_after(failed.attempts, runtime.rng) or LONGEST_RETRY)
    try:
        give_back(runtime, failed, TimerStatus.WAITING, again, reason_of(error))
        let_go(runtime, others)
    except DBAPIError:
        return timers
    return ()


def _fire(runtime: Runtime, handlers: TimerHandlers, timer: TimerFact, until: float) -> None:
    handler = handlers.get(timer.type)
    if timer.crashes >= MAX_CRASHES:
        said = f"{timer.crashes} workers ended while they fired it: the last error is in their logs."
        _bury(runtime, handler, timer, said)
        return
    runtime.telemetry.observe("timers.late", (runtime.clock.now() - timer.trigger_at).total_seconds(), type=timer.type)
    if handler is None:
        _bury(runtime, handler, timer, f"Nothing here handles timers of type {timer.type!r}: is a plugin missing?")
        return
    if isinstance(handler, Handed):
        handler.take(timer, until)
        return
    try:
        if isinstance(handler, Outside):
            handler.fire(runtime, timer)
        else:
            _do(runtime, handler.one if isinstance(handler, Together) else handler, timer)
    except DBAPIError as error:
        if is_conflict(error):
            log.info("timer_in_the_way", tenant_id=timer.tenant_id, type=timer.type, key=timer.key)
            let_go(runtime, [timer])  # the others have their turn first
            return
        if is_transient(error):
            raise
        _failed(runtime, handler, timer, error)
    except Exception as error:  # noqa: BLE001 - isolation boundary: the other timers must have their turn
        _failed(runtime, handler, timer, error)


def _do(runtime: Runtime, handler: Fire | Locking, timer: TimerFact) -> None:
    """Fire it, again where another transaction was in the way: nothing of the first try is left then."""
    for left in reversed(range(_TRIES)):
        try:
            with runtime.work(timer.tenant_id, SYSTEM) as ctx:
                if isinstance(handler, Locking):
                    handler.fire(ctx, timer)
                elif queries.take_timer(ctx.session, timer):
                    handler(ctx, timer)
        except DBAPIError as error:
            if not left or not is_conflict(error):
                raise
        else:
            return


def _failed(runtime: Runtime, handler: Handler, timer: TimerFact, error: Exception) -> None:
    if isinstance(error, ConditionUnavailable):
        # Whoever waits goes on when the plugin can be asked again, however long that takes: nothing is given up.
        log.warning("timer_waits_for_plugin", tenant_id=timer.tenant_id, type=timer.type, reason=error.message)
        give_back(runtime, timer, TimerStatus.WAITING, runtime.clock.now() + TRY_AGAIN, error.message)
        return
    log.warning(
        "timer_failed",
        tenant_id=timer.tenant_id,
        type=timer.type,
        key=timer.key,
        attempts=timer.attempts,
        exc_info=error,
    )
    pause = retry_after(timer.attempts, runtime.rng)
    if pause is None:
        _bury(runtime, handler, timer, reason_of(error))
        return
    give_back(runtime, timer, TimerStatus.WAITING, runtime.clock.now() + pause, reason_of(error))


def _bury(runtime: Runtime, handler: Handler | None, timer: TimerFact, reason: str) -> None:
    log.error("timer_dead", tenant_id=timer.tenant_id, type=timer.type, key=timer.key, reason=reason)
    runtime.telemetry.count("timers.dead", type=timer.type)
    try:
        _give_up(runtime, handler, timer, reason)
    except DBAPIError as error:
        if is_transient(error):
            raise
        _put_aside(runtime, timer, reason, error)
    except Exception as error:  # noqa: BLE001 - isolation boundary: the others must have their turn whatever follows from it
        _put_aside(runtime, timer, reason, error)


def _put_aside(runtime: Runtime, timer: TimerFact, reason: str, error: Exception) -> None:
    """Dead, though what follows from that could not be done: an operator finds it."""
    log.error("timer_dead_untold", tenant_id=timer.tenant_id, type=timer.type, key=timer.key, exc_info=error)
    give_back(runtime, timer, TimerStatus.DEAD, timer.trigger_at, reason)


def _give_up(runtime: Runtime, handler: Handler | None, timer: TimerFact, reason: str) -> None:
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if isinstance(handler, Outside) or (isinstance(handler, Handed) and not handler.stays):
            is_ours = queries.take_timer(ctx.session, timer)
        else:
            is_ours = queries.give_back(ctx.session, timer, status=TimerStatus.DEAD, at=timer.trigger_at, error=reason)
        give_up = handler.give_up if isinstance(handler, Locking | Outside | Handed | Together) else None
        if is_ours and give_up is not None:
            give_up(ctx, timer, reason)


def put_off(runtime: Runtime, timer: TimerFact, at: datetime) -> None:
    """Give a claimed timer back that nobody has tried to fire, to be due at ``at``: it has lost no attempt by that."""
    with open_session(runtime.engines.worker, tenant_id=timer.tenant_id) as session, session.begin():
        queries.let_go(session, [timer], at)


def give_back(runtime: Runtime, timer: TimerFact, status: TimerStatus, at: datetime, error: str) -> None:
    """Let go of a claimed timer that failed: to be tried again at ``at``, or dead."""
    with open_session(runtime.engines.worker, tenant_id=timer.tenant_id) as session, session.begin():
        queries.give_back(session, timer, status=status, at=at, error=error)
