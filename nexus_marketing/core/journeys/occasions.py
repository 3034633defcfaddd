"""Whether what a run waits for, leaves for or aims at is there: states of the lead, and events that count for this run."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.conditions.facts import HUMAN, happened
from nexus_marketing.core.journeys.nodes import Occasion
from nexus_marketing.core.journeys.runs import Run

Event = Mapping[str, Any]


def is_event(
    occasion: Occasion, event: Event, run: Run, evaluation: Evaluation, since: datetime, until: datetime | None = None
) -> bool:
    """Whether an event is the one that is meant, and happened in time (both ends included)."""
    if (event.get("name") or event["type"]) != occasion.event:
        return False
    if not occasion.any_verdict and event.get("verdict", HUMAN) != HUMAN:
        return False
    at = happened(event)
    if at < since or (until is not None and at > until):
        return False
    if occasion.of is not None and not _is_about(event, run, occasion.of):
        return False
    return occasion.where is None or occasion.where.holds(event, evaluation)


def has_happened(
    occasion: Occasion,
    record: Mapping[str, object],
    run: Run,
    evaluation: Evaluation,
    since: datetime,
    until: datetime | None = None,
) -> bool:
    """Whether the lead did it, as far as its record tells."""
    events: Any = record.get("events") or ()
    return any(is_event(occasion, event, run, evaluation, since, until) for event in events)


def is_there(
    occasion: Occasion, record: Mapping[str, object], run: Run, evaluation: Evaluation, since: datetime | None = None
) -> bool:
    """Whether a state holds, or an event happened since the run's entry (or since a later moment)."""
    if occasion.when is not None:
        return occasion.when.holds(record, evaluation)
    return has_happened(occasion, record, run, evaluation, since or run.entered_at)


def _is_about(event: Event, run: Run, node: str) -> bool:
    about = event.get("metadata")
    return isinstance(about, Mapping) and about.get("run") == run.id and about.get("node") == node
