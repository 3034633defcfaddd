"""Who comes into a journey, from ``entry`` of its document."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from nexus_marketing.core.conditions import EVENTS
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
}
_OPTIONS: Final[Mapping[str, TriggerKind]] = {
    "every": TriggerKind.DATE,
    "recurrence": TriggerKind.SCHEDULE,
    "ended": TriggerKind.JOURNEY,
    "where": TriggerKind.EVENT,
    "offset": TriggerKind.DATE,
    "at": TriggerKind.DATE,
}


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
    if wanted is not None and wanted not in said:
        reading.fault(join(path, wanted), "required", f"A trigger on {kind} names its {wanted}.")
    for name in {*_NAMED_BY.values()} - {wanted}:
        if name in said:
            reading.fault(join(path, name), "not_allowed", f"{name} means nothing to a trigger on {kind}.")
    for name, owner in _OPTIONS.items():
        if name in said and kind is not owner:
            reading.fault(join(path, name), "not_allowed", f"{name} belongs to triggers on {owner}: leave it out.")
    if kind is TriggerKind.SCHEDULE:
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
    )


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
