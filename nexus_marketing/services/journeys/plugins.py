"""Journeys that ask plugins who comes: about an event, at each round of a schedule, about what a program calls with.

An occasion is a timer. Whoever leased it reads what there is to ask, asks while no transaction is open, and only then opens
the one that removes the timer and lets people in. A crash in between asks again about the same occasion, and whoever came
by a key comes by it once.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.errors import NexusError, Problem, hint
from nexus_marketing.core.extensions import Firing, Occasion, OccasionKind
from nexus_marketing.core.extensions import Trigger as PluginTrigger
from nexus_marketing.core.journeys import TriggerKind
from nexus_marketing.core.journeys.model import Trigger
from nexus_marketing.core.journeys.statuses import Listens
from nexus_marketing.core.timers import TimerFact
from nexus_marketing.core.values import canonical_datetime
from nexus_marketing.db.models import Journey as JourneyRow
from nexus_marketing.db.queries.journeys import ASK
from nexus_marketing.db.queries.timers import hold_timer, take_timer
from nexus_marketing.db.tenancy import tenant_of
from nexus_marketing.plugin.manifests import Capability
from nexus_marketing.runtime import Context, Runtime
from nexus_marketing.services.actions.names import off_problem
from nexus_marketing.services.audit import record
from nexus_marketing.services.journeys.arrivals import GONE, Answer, arrive
from nexus_marketing.services.journeys.arrivals import Occasion as Coming
from nexus_marketing.services.journeys.facts import happened_at, tenant_zone
from nexus_marketing.services.journeys.rows import listening, newest_version
from nexus_marketing.services.timers import Outside, set_timer
from nexus_marketing.telemetry import get_logger

log = get_logger(__name__)

#: Whom a plugin may let in at once, and how long a key of it may be.
MOST_FIRINGS: Final = 1_000
_LONGEST_KEY: Final = 200
#: How often it is looked whether a plugin that this process does not have is back.
_LOOK_AGAIN: Final = timedelta(minutes=5)


class Asked(NamedTuple):
    """A plugin's trigger, what it is asked about, and the ways in that its answer opens."""

    trigger: PluginTrigger
    occasion: Occasion
    ways: Sequence[tuple[JourneyRow, Trigger]]


def trigger_problem(ctx: Context, said: Mapping[str, Any], path: str) -> Problem | None:
    """Why a plugin cannot be asked as a trigger of a journey says, with the remedy; nothing where it can."""
    name, runtime = str(said.get("trigger", "")), ctx.runtime
    known: Mapping[str, PluginTrigger] = runtime.plugins.of(Capability.TRIGGER)
    if name not in known:
        text = f"There is no trigger {name!a}{hint(name, known)}: a plugin adds one with config.add_marketing_trigger."
        return Problem(f"{path}.trigger", "unknown_trigger", text)
    plugin = runtime.plugin_of(name, Capability.TRIGGER)
    if plugin is not None and runtime.settings_of(ctx.session, plugin) is None:
        return off_problem(ctx, name, plugin, f"{path}.trigger")
    asked = {"event": OccasionKind.EVENT, "recurrence": OccasionKind.SCHEDULED, "webhook": OccasionKind.WEBHOOK}
    kinds = known[name].kinds
    wrong = next((key for key, kind in asked.items() if key in said and kind not in kinds), None)
    if wrong is None:
        return None
    fitting = " or ".join(key for key, kind in asked.items() if kind in kinds)
    text = f"The trigger {name} is not asked about {asked[str(wrong)]}: write {fitting} instead of {wrong}."
    return Problem(f"{path}.{wrong}", "not_asked", text)


def ask_about_event(
    ctx: Context, rows: Iterable[JourneyRow], lead_id: int, event: Mapping[str, Any], name: str
) -> None:
    """Have the plugins asked that journeys which listen name for an event: each once, however many name it."""
    for asked in sorted({way.name for _, way in _ways_of_event(ctx, rows, name)}):
        payload = {"trigger": asked, "lead": lead_id, "name": name, "event": event["id"]}
        payload["at"] = canonical_datetime(event["tracked_at"])
        set_timer(ctx, ASK, f"{asked}:event:{event['id']}", ctx.now, payload)
        ctx.ring("timers")


def ask_in_round(ctx: Context, row: JourneyRow, number: int, trigger: Trigger, planned: datetime) -> None:
    """Have the plugin of a journey's trigger asked at a round of its schedule."""
    key = f"{row.id}:{number}:{canonical_datetime(planned)}"
    payload = {"trigger": trigger.name, "journey": row.id, "number": number, "planned": canonical_datetime(planned)}
    set_timer(ctx, ASK, f"{trigger.name}:round:{key}", ctx.now, payload)
    ctx.ring("timers")


def asked_by_program(
    ctx: Context, row: JourneyRow, trigger: Trigger, id_: str, data: Mapping[str, Any]
) -> Asked | None:
    """What is asked where a program called the address of a journey; nothing where the plugin is gone, or off."""
    occasion = _occasion(ctx, OccasionKind.WEBHOOK, (row.name, f"hook:{row.id}:{id_}"), data)
    return _asked(ctx, trigger.name, occasion, [(row, trigger)])


def ask(runtime: Runtime, asked: Asked) -> list[Firing]:
    """What goes off, of several with one key the first; called while no transaction is open.

    Raises:
        NexusError: the plugin answered something else, or more than may come at once.
    """
    started, name = time.monotonic(), asked.trigger.name
    try:
        found: list[object] = list(asked.trigger.fire(asked.occasion))
    finally:
        runtime.telemetry.observe("triggers.seconds", time.monotonic() - started, trigger=name)
    if len(found) > MOST_FIRINGS:
        raise NexusError(f"The trigger {name} let {len(found)} in at once: at most {MOST_FIRINGS} may come.")
    firings: dict[str, Firing] = {}
    for each in found:
        if not isinstance(each, Firing) or not 0 < len(each.key) <= _LONGEST_KEY:
            raise NexusError(f"The trigger {name} answered {each!a:.60}: a Firing has a key of 1 to {_LONGEST_KEY}.")
        firings.setdefault(each.key, each)
    return list(firings.values())


def let_in(ctx: Context, asked: Asked, firings: Sequence[Firing]) -> list[Answer]:
    """Let the leads in that a plugin named; of those whom it named none there is nobody to let in."""
    zone, answers = tenant_zone(ctx), []
    named = [(each.lead_id, each) for each in firings if isinstance(each.lead_id, int)]
    if len(named) < len(firings):
        log.info("trigger_named_nobody", tenant_id=ctx.tenant_id, trigger=asked.trigger.name)
    for lead_id, firing in sorted(named, key=lambda each: (each[0], each[1].key)):  # locked in one order
        event = {"type": "plugin", "name": asked.trigger.name, "tracked_at": asked.occasion.now}
        event["metadata"] = dict(firing.data)
        for row, way in asked.ways:
            if way.where is None or way.where.holds(event, Evaluation(ctx.now, zone)):
                coming = Coming(way, f"plugin:{asked.trigger.name}:{firing.key}", event)
                answers.append(arrive(ctx, row, lead_id, coming))
    return [each for each in answers if each.outcome != GONE]


def _fire(runtime: Runtime, timer: TimerFact) -> None:
    asked = _begin(runtime, timer)
    if asked is None:
        return
    firings = ask(runtime, asked)
    runtime.telemetry.point("triggers.asked")
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if take_timer(ctx.session, timer):
            asked = _what(ctx, timer) or asked._replace(ways=())
            let_in(ctx, asked, firings)
            ctx.ring("timers")


def _begin(runtime: Runtime, timer: TimerFact) -> Asked | None:
    with runtime.work(timer.tenant_id, SYSTEM) as ctx:
        if not hold_timer(ctx.session, timer, runtime.settings.lease.total_seconds()):
            return None
        asked = _what(ctx, timer)
        if asked is None:
            take_timer(ctx.session, timer)
            if timer.payload["trigger"] not in runtime.plugins.of(Capability.TRIGGER):
                set_timer(ctx, ASK, timer.key, ctx.now + _LOOK_AGAIN, timer.payload)
        return asked


def _what(ctx: Context, timer: TimerFact) -> Asked | None:
    """What a timer asks; nothing where no journey wants to know any more, or the plugin is gone, or off for the tenant."""
    said = timer.payload
    if "event" in said:
        found = happened_at(ctx, said["lead"], datetime.fromisoformat(said["at"]), said["name"])
        event = next((each for each in found if each["id"] == said["event"]), None)
        if event is None:
            return None
        about = {key: event[key] for key in ("type", "channel", "campaign_id") if event[key] is not None}
        data = {**event["metadata"], **about, "at": said["at"], "lead_id": said["lead"]}
        occasion = _occasion(ctx, OccasionKind.EVENT, (said["name"], f"event:{said['event']}"), data)
        rows = listening(ctx, Listens.EVENT, [said["name"]])
        ways = [each for each in _ways_of_event(ctx, rows, said["name"]) if each[1].name == said["trigger"]]
    else:
        row = ctx.session.get(JourneyRow, (ctx.tenant_id, said["journey"]))
        triggers = () if row is None or row.published is None else newest_version(ctx, row).entry.triggers
        way = triggers[said["number"]] if said["number"] < len(triggers) else None
        if row is None or way is None or way.on is not TriggerKind.PLUGIN or way.name != said["trigger"]:
            return None
        key = f"round:{row.id}:{said['number']}:{said['planned']}"
        occasion = _occasion(ctx, OccasionKind.SCHEDULED, (row.name, key), {"planned": said["planned"]})
        ways = [(row, way)]
    return _asked(ctx, said["trigger"], occasion, ways)


def _asked(ctx: Context, name: str, occasion: Occasion, ways: Sequence[tuple[JourneyRow, Trigger]]) -> Asked | None:
    runtime = ctx.runtime
    trigger: PluginTrigger | None = runtime.plugins.of(Capability.TRIGGER).get(name)
    settings = runtime.settings_of(ctx.session, runtime.plugin_of(name, Capability.TRIGGER))
    if trigger is None or settings is None or not ways or occasion.kind not in trigger.kinds:
        return None
    return Asked(trigger, replace(occasion, settings=settings), ways)


def _occasion(ctx: Context, kind: OccasionKind, named: tuple[str, str], data: Mapping[str, Any]) -> Occasion:
    return Occasion(tenant_of(ctx.session), kind, *named, ctx.now, data)


def _ways_of_event(ctx: Context, rows: Iterable[JourneyRow], name: str) -> list[tuple[JourneyRow, Trigger]]:
    """Where a plugin may let somebody in that is asked about an event."""
    return [
        (row, way)
        for row in rows
        for way in newest_version(ctx, row).entry.triggers
        if way.on is TriggerKind.PLUGIN and way.event == name
    ]


def _give_up(ctx: Context, timer: TimerFact, reason: str) -> None:
    """Nobody could ask about this occasion, again and again: the audit says so, and the next one is another."""
    changes = {"occasion": (None, timer.key), "reason": (None, reason[:300])}
    record(ctx, "trigger.given_up", "plugin_trigger", str(timer.payload["trigger"]), changes)


#: What the timer of an occasion does.
ASK_DUE: Final = Outside(_fire, _give_up)
