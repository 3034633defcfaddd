"""Plugins that take a copy of the audit elsewhere: each is told of what was written while the tenant had it on, until it
has taken it.

An audit row and what says that a sink is to be told of it are written in one transaction; a timer of each tenant and sink
tells, so that one worker at a time does, outside of any transaction and beside its other work. What a sink refuses holds
back what is behind it: nothing is left out.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Row

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.extensions import AuditBatch, AuditRecord
from nexus_marketing.core.timers import MAX_ATTEMPTS, TimerFact, TimerStatus, retry_after
from nexus_marketing.db.queries import audit_sinks as queries
from nexus_marketing.db.queries.queues import SINK_DUE
from nexus_marketing.db.queries.timers import hold_timer, take_timer
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.plugin.registry import Plugin
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.plugins.asking import ask_plugin
from nexus_marketing.services.timers import give_back, put_off, set_timer, set_timers
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

_PIECE: Final = 500
#: Of a batch's bodies as JSON.
_CHARACTERS: Final = 1_000_000
#: After so many failures records are told one by one, so that those before the one that is refused get through.
_PATIENCE: Final = 3
_TURN_SECONDS: Final = 20.0
_LEASE_SECONDS: Final = 900.0
_LONGEST_PAUSE: Final = timedelta(minutes=10)
#: What waits for a plugin that is gone is kept so long.
_KEPT: Final = timedelta(days=30)


def wake_sinks(runtime: Runtime, tenant_id: int) -> int:
    """Set the timers of sinks that a tenant's audit rows wait for; answers how many."""
    with runtime.work(tenant_id, SYSTEM) as ctx:
        waiting = queries.sinks_to_wake(ctx.session)
        set_timers(ctx, SINK_DUE, [(sink, ctx.now, {}) for sink in waiting])
    return len(waiting)


def sink_due(runtime: Runtime, timer: TimerFact) -> None:
    """Tell a sink what waits for it, for a while; what fails is told later."""
    plugin = runtime.plugins.owner_of(Capability.AUDIT_SINK, timer.key)
    if plugin is None:
        _wait_for_plugin(runtime, timer)
        return
    try:
        is_over = _tell(runtime, timer, plugin)
    except NexusError as error:  # the plugin failed, or its secrets cannot be read
        log.warning("audit_sink_failed", tenant_id=timer.tenant_id, sink=timer.key, reason=error.message)
        runtime.telemetry.count("audit.sink_failed", sink=timer.key)
        pause = retry_after(min(timer.attempts, MAX_ATTEMPTS - 1), runtime.rng) or _LONGEST_PAUSE
        again = runtime.clock.now() + min(pause, _LONGEST_PAUSE)
        give_back(runtime, timer, TimerStatus.WAITING, again, error.message)
        return
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if take_timer(ctx.session, timer) and not is_over:
            set_timer(ctx, SINK_DUE, timer.key, ctx.now)


def sink_given_up(ctx: Context, timer: TimerFact, reason: str) -> None:
    """Workers ended over it: its timer stays for an operator, and what waits for it as well."""
    log.error("audit_sink_given_up", tenant_id=ctx.tenant_id, sink=timer.key, reason=reason)


def _tell(runtime: Runtime, timer: TimerFact, plugin: Plugin) -> bool:
    """Whether nothing waits any more.

    Raises:
        PluginFailed: the sink took nothing of the last piece.
        SecretsUnreadable: of the plugin's settings.
    """
    sink, size = runtime.plugins.audit_sinks[timer.key], _PIECE if timer.attempts <= _PATIENCE else 1
    until = time.monotonic() + _TURN_SECONDS
    while time.monotonic() < until:
        with runtime.work(timer.tenant_id, SYSTEM) as ctx:
            if not hold_timer(ctx.session, timer, _LEASE_SECONDS):
                return False
            settings = runtime.settings_of(ctx.session, None if plugin.is_builtin else plugin)
            rows = [] if settings is None else queries.first_untold(ctx.session, timer.key, size, _CHARACTERS)
            if settings is None:
                _note_dropped(ctx, timer.key, queries.forget_sink(ctx.session, timer.key))
        if settings is None or not rows:
            return True
        there = [row for row in rows if row.audit_id is not None]
        if there:
            batch = _batch(timer.tenant_id, settings, there)
            ask_plugin(runtime, plugin, timer.key, partial(sink.write, batch))
        with runtime.work(timer.tenant_id, SYSTEM) as ctx:
            queries.forget_untold(ctx.session, [row.id for row in rows])
            _note_dropped(ctx, timer.key, len(rows) - len(there))
        runtime.telemetry.count("audit.told", len(there), sink=timer.key)
    return False


def _batch(tenant_id: int, settings: Mapping[str, Any], rows: Sequence[Row[Any]]) -> AuditBatch:
    return AuditBatch(
        tenant_id,
        settings,
        tuple(
            AuditRecord(
                str(row.audit_id),
                row.at,
                row.actor,
                row.action,
                row.subject_type,
                row.subject_id,
                row.request_id,
                row.body,
                row.body_hash.hex(),
            )
            for row in rows
        ),
    )


def _wait_for_plugin(runtime: Runtime, timer: TimerFact) -> None:
    """Nobody here has the sink: another process may, or the operator brings it back within a month."""
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        _note_dropped(ctx, timer.key, queries.forget_sink(ctx.session, timer.key, ctx.now - _KEPT))
        if not queries.waits_for(ctx.session, timer.key):
            take_timer(ctx.session, timer)
            return
        again = ctx.now + _LONGEST_PAUSE
    put_off(runtime, timer, again)


def _note_dropped(ctx: Context, sink: str, dropped: int) -> None:
    if dropped:
        log.warning("audit_not_told", tenant_id=ctx.tenant_id, sink=sink, rows=dropped)
        ctx.runtime.telemetry.count("audit.not_told", dropped, sink=sink)
