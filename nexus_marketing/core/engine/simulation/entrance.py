"""Who comes into a simulated journey: the engine's own decision, from what was before."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nexus_marketing.core.engine.journey_entry import Arrival, Entered, Past, Refusal, enter
from nexus_marketing.core.engine.simulation.people import Person
from nexus_marketing.core.journeys.model import Journey, Trigger


@dataclass(slots=True)
class Entrance:
    """A journey's entry, and when anybody came in, the earliest first."""

    journey: Journey
    _entered: list[datetime] = field(default_factory=list)

    def decide(self, person: Person, trigger: Trigger, event: Mapping[str, Any], now: datetime) -> Entered | Refusal:
        """Let somebody in, or say why not."""
        runs = tuple(person.runs.values())
        past = Past(
            runs=tuple(run for run in runs if run.is_live),
            entries=len(runs),
            last_entered_at=runs[-1].entered_at if runs else None,
            keys=frozenset(run.key for run in runs if run.key is not None),
            recent=self._recent(now),
        )
        arrival = Arrival(f"{person.id}-{len(runs) + 1}", person.id, trigger, event)
        found = enter(self.journey, arrival, person.facts, past, now)
        if isinstance(found, Entered):
            self._entered.append(now)
        return found

    def _recent(self, now: datetime) -> int:
        """How many came in within the time of the entry cap."""
        cap = self.journey.entry.cap
        return 0 if cap is None else len(self._entered) - bisect_right(self._entered, now - cap[1])
