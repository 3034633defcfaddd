"""Rules that read the clock: one timer per segment wakes when the next value passes a boundary (BEHAVIOUR.md 5.3).

``created_at < now() - 30 days`` changes its answer for exactly those leads whose value lies between the boundary of
the last look and that of now: one range scan finds them, and they are marked. The timer's payload keeps the moment
of the last look.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.errors import NexusError
from nexus_marketing.core.segments import conditions_read, reads_clock
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Segment
from nexus_marketing.db.queries.segments import zones_present
from nexus_marketing.db.queries.upkeep import (
    add_mark,
    first_event_after,
    first_expiry_after,
    leads_between,
    leads_of_consents,
    leads_of_events,
    least_above,
)
from nexus_marketing.runtime import Context
from nexus_marketing.services.plugins.conditions import TRY_AGAIN
from nexus_marketing.services.segments.rules import RULED, Rule, rule_of
from nexus_marketing.services.timers import cancel_timer, set_timer

TYPE: Final = "segment.clock"
#: A look that took long is not repeated before so many times its duration: at most 5 % of a worker.
_REST: Final = 20
_CHEAP: Final = timedelta(milliseconds=20)


def arm(ctx: Context, rule: Rule, evaluated_at: datetime) -> None:
    """Set the timer after all leads were evaluated, or take it away when no value will pass a boundary."""
    if not _is_looked_at(rule):
        cancel_timer(ctx, TYPE, str(rule.segment_id))
        return
    begun = time.monotonic()
    at = _next_flip(ctx, rule, evaluated_at, None)
    if at is None:
        cancel_timer(ctx, TYPE, str(rule.segment_id))
        return
    took = timedelta(seconds=time.monotonic() - begun)
    if took > _CHEAP:
        at = max(at, ctx.now + took * _REST)
    _set(ctx, rule, at, evaluated_at, earliest=False)


def arm_for(ctx: Context, rule: Rule, lead_ids: Sequence[int]) -> None:
    """Let the timer come sooner where one of these leads, which were evaluated now, asks for it."""
    if _is_looked_at(rule):
        at = _next_flip(ctx, rule, ctx.now, lead_ids)
        if at is not None:
            _set(ctx, rule, at, ctx.now, earliest=True)


def clock_moved(ctx: Context, timer: TimerFact) -> None:
    """Mark the leads whose values passed a boundary since the last look, and wait for the next one."""
    segment = ctx.session.get(Segment, (ctx.tenant_id, int(timer.key)))
    if segment is not None and segment.kind in RULED and segment.error is not None:
        segment.requested_at = ctx.now  # what a plugin could not be asked then
        ctx.ring("segments")
        return
    if segment is None or segment.kind not in RULED or segment.pending is not None:
        return  # gone, or about to be computed whole
    try:
        rule = rule_of(ctx, segment)
    except NexusError:
        segment.requested_at = ctx.now  # the whole computation tells of it
        return
    if conditions_read(rule.depends_on) != conditions_read(segment.depends_on):
        segment.requested_at = ctx.now  # another version of a plugin's condition: any lead may be another's
        ctx.ring("segments")
        return
    found = _passed(ctx, rule, datetime.fromisoformat(timer.payload["from"]))
    if found is None:
        segment.requested_at = ctx.now  # a plugin's condition reads the clock: only it knows for whom
    elif found:
        add_mark(ctx.session, [f"only:{segment.id}"], sorted(found), ctx.now)
    arm(ctx, rule, ctx.now)
    ctx.ring("segments")


def _passed(ctx: Context, rule: Rule, last: datetime) -> set[int] | None:
    """Leads for whom the clock passed a boundary since the last look; ``None`` where that cannot be known."""
    since, now, zones = Evaluation(last), Evaluation(ctx.now), _zones(ctx, rule)
    moving = rule.moving(ctx.runtime.engines.dialect)
    if rule.asks is not None and rule.asks.reads_clock and since.today != now.today:
        return None
    found: set[int] = set()
    for each in moving:
        low, high = each.least(since, zones), each.most(now, zones)
        found.update(leads_between(ctx.session, each.value, each.bind(low), each.bind(high)))
    for count in rule.windows:
        span = timedelta(seconds=count.within_seconds or 0)
        found.update(leads_of_events(ctx.session, count.event, last - span, ctx.now - span))
    for asked in rule.expiries:
        found.update(leads_of_consents(ctx.session, asked.channel, asked.type, last, ctx.now))
    return found


def _next_flip(ctx: Context, rule: Rule, evaluated_at: datetime, lead_ids: Sequence[int] | None) -> datetime | None:
    now, zones = Evaluation(evaluated_at), _zones(ctx, rule)
    moving = rule.moving(ctx.runtime.engines.dialect)
    found = [now.next_day()] if conditions_read(rule.depends_on) else []
    for each in moving:
        least = least_above(ctx.session, each.value, each.bind(each.least(now, zones)), lead_ids)
        if least is not None:
            found.append(each.passes(least, now, zones))
    for count in rule.windows:
        span = timedelta(seconds=count.within_seconds or 0)
        first = first_event_after(ctx.session, count.event, evaluated_at - span, lead_ids)
        if first is not None:
            found.append(first + span)
    for asked in rule.expiries:
        ends = first_expiry_after(ctx.session, asked.channel, asked.type, evaluated_at, lead_ids)
        if ends is not None:
            found.append(ends)
    return min(found, default=None)


def try_later(ctx: Context, segment_id: int) -> None:
    """Look again at a segment whose rule could not ask a plugin."""
    set_timer(ctx, TYPE, str(segment_id), ctx.now + TRY_AGAIN, {"from": canonical_datetime(ctx.now)})


def _is_looked_at(rule: Rule) -> bool:
    """Whether the clock changes its answer, or a plugin's new version may: that is looked for each day."""
    return reads_clock(rule.depends_on) or bool(conditions_read(rule.depends_on))


def _zones(ctx: Context, rule: Rule) -> Sequence[str]:
    return zones_present(ctx.session) if "time_zone" in rule.depends_on else ()


def _set(ctx: Context, rule: Rule, at: datetime, evaluated_at: datetime, *, earliest: bool) -> None:
    since = {"from": canonical_datetime(evaluated_at)}
    set_timer(ctx, TYPE, str(rule.segment_id), at, since, earliest=earliest)
