"""Who comes into a journey, from ``entry`` of its document."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import EVENTS
from nexus_marketing.core.journeys.crossings import UP
from nexus_marketing.core.journeys.forms import is_id
from nexus_marketing.core.journeys.model import (
    ENDS,
    Concurrency,
    ConcurrencyKind,
    Entry,
    Reentry,
    ReentryKind,
    Trigger,
    TriggerKind,
)
from nexus_marketing.core.journeys.node_reading import hundredths
from nexus_marketing.core.journeys.reading import Reading
from nexus_marketing.core.values import join

#: Which key names what a trigger is about.
_NAMED_BY: Final[Mapping[TriggerKind, str]] = {
    TriggerKind.SEGMENT_ENTERED: "segment",
    TriggerKind.SEGMENT_LEFT: "segment",
    TriggerKind.EVENT: "event",
    TriggerKind.DATE: "field",
    TriggerKind.JOURNEY: "journey",
    TriggerKind.SCHEDULE: "segment",
    TriggerKind.SCORE: "score",
    TriggerKind.PLUGIN: "trigger",
}
_OPTIONS: Final[Mapping[str, tuple[TriggerKind, ...]]] = {
    "every": (TriggerKind.DATE,),
    "recurrence": (TriggerKind.SCHEDULE, TriggerKind.PLUGIN),
    "ended": (TriggerKind.JOURNEY,),
    "where": (TriggerKind.EVENT, TriggerKind.SCORE, TriggerKind.PLUGIN),
    "offset": (TriggerKind.DATE,),
    "at": (TriggerKind.DATE,),
    "threshold": (TriggerKind.SCORE,),
    "direction": (TriggerKind.SCORE,),
    "webhook": (TriggerKind.PLUGIN,),
}
#: What a plugin may be asked about: an event, the time, a call.
_ASKED_ABOUT: Final = ("event", "recurrence", "webhook")
_SCORE: Final = "score"


def read_entry(reading: Reading, document: dict[str, Any], start: str) -> Entry:
    """Who enters; triggers that say nothing else lead to ``start``, which is written into them."""
    cap = document.get("cap")
    return Entry(
        tuple(
            _trigger(reading, said, join("entry.triggers", number), start)
            for number, said in enumerate(document["triggers"])
        ),
        reading.rule(document, "filter", "entry"),
        _reentry(reading, document.get("reentry")),
        _key(reading, document.get("key")),
        _concurrency(reading, document.get("concurrency")),
        (cap["count"], reading.length(cap["per"], "entry.cap.per")) if cap else None,
        hundredths(reading, document.get("holdout", 0), "entry.holdout"),
        document.get("backfill") == "all",
        reading.length(document["cooldown"], "entry.cooldown") if "cooldown" in document else timedelta(),
    )


def _key(reading: Reading, name: str | None) -> tuple[str, ...] | None:
    if name is None:
        return None
    field = reading.schema.find(name)
    if field is None:
        reading.fault("entry.key", "unknown_field", reading.schema.unknown(name).capitalize() + ".")
    return () if field is None else field.path


def _trigger(reading: Reading, said: dict[str, Any], path: str, start: str) -> Trigger:
    kind = TriggerKind(said["on"])
    wanted = _NAMED_BY.get(kind)
    if kind is TriggerKind.SCORE:
        said.setdefault("score", _SCORE)
    if wanted is not None and wanted not in said:
        reading.fault(join(path, wanted), "required", f"A trigger on {kind} names its {wanted}.")
    for name in {*_NAMED_BY.values()} - {wanted, "event" if kind is TriggerKind.PLUGIN else wanted}:
        if name in said:
            reading.fault(join(path, name), "not_allowed", f"{name} means nothing to a trigger on {kind}.")
    for name, owners in _OPTIONS.items():
        if name in said and kind not in owners:
            text = f"{name} belongs to triggers on {' or '.join(owners)}: leave it out."
            reading.fault(join(path, name), "not_allowed", text)
    if kind is TriggerKind.SCORE:
        _threshold(reading, said, path)
    if kind is TriggerKind.PLUGIN:
        _asked_about(reading, said, path)
    if kind is TriggerKind.SCHEDULE or (kind is TriggerKind.PLUGIN and "recurrence" in said):
        reading.recurrence(said, path)
    where = reading.rule(said, "where", path, EVENTS)
    begins = reading.edge(said.setdefault("start", start), join(path, "start"))
    return Trigger(
        kind,
        begins,
        str(said.get(wanted or "", "")),
        where,
        reading.offset(said, path),
        said.get("at"),
        _date(reading, said, path) if kind is TriggerKind.DATE else (),
        "every" in said,
        said.get("recurrence"),
        frozenset(said.get("ended", ENDS[:2])) if kind is TriggerKind.JOURNEY else frozenset(),
        said.get("threshold", 0.0),
        said.get("direction", UP),
        str(said.get("event", "")) if kind is TriggerKind.PLUGIN else "",
        "webhook" in said,
    )


def _threshold(reading: Reading, said: Mapping[str, Any], path: str) -> None:
    found, where = said.get("threshold"), join(path, "threshold")
    if found is None:
        text = 'A trigger on score says which threshold: a number, as "threshold": 80, or the key of one of its rules.'
        reading.fault(where, "required", text)
    elif isinstance(found, str) and not is_id(found):
        text = f"{found!a} is no key of a threshold: write a number without quotes, or letters, digits, - and _."
        reading.fault(where, "not_an_id", text)


def _asked_about(reading: Reading, said: Mapping[str, Any], path: str) -> None:
    if sum(name in said for name in _ASKED_ABOUT) != 1:
        text = (
            'A plugin is asked about one thing: an "event", the time ("recurrence"), or calls of programs '
            '("webhook": true).'
        )
        reading.fault(path, "one_of", text)


def _date(reading: Reading, said: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Where a record keeps the date."""
    name = said.get("field")
    field = None if name is None else reading.schema.find(name)
    if name is not None and field is None:
        reading.fault(join(path, "field"), "unknown_field", reading.schema.unknown(name).capitalize() + ".")
    if field is None:
        return ()
    reading.read_names.add(".".join(field.path))
    return field.path


def _reentry(reading: Reading, said: Mapping[str, Any] | None) -> Reentry:
    if said is None:
        return Reentry()
    kind, path = ReentryKind(said["policy"]), "entry.reentry"
    given = [name for name in ("interval", "calendar_days") if name in said]
    if (kind is ReentryKind.AFTER_INTERVAL) != (len(given) == 1):
        text = "after_interval has an interval (exact) or calendar_days, one of the two; other policies have neither."
        reading.fault(path, "one_of", text)
    if "zone" in said and "calendar_days" not in said:
        reading.fault(join(path, "zone"), "not_allowed", "zone belongs to calendar_days: leave it out.")
    interval = reading.length(said["interval"], join(path, "interval")) if "interval" in said else timedelta()
    return Reentry(kind, interval, said.get("calendar_days", 0), reading.zone(said, path))


def _concurrency(reading: Reading, said: Mapping[str, Any] | None) -> Concurrency:
    if said is None:
        return Concurrency()
    kind = ConcurrencyKind(said["policy"])
    if (kind is ConcurrencyKind.PARALLEL) != ("most" in said):
        text = "parallel says how many runs there may be at most (from 2); other policies do not."
        reading.fault("entry.concurrency.most", "one_of", text)
    return Concurrency(kind, said.get("most", 1))
