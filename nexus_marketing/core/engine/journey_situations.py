"""What is known when a run is decided on: the version, the run, the lead, the moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from nexus_marketing.core.conditions import Evaluation
from nexus_marketing.core.journeys.drafts import Draft
from nexus_marketing.core.journeys.model import Journey
from nexus_marketing.core.journeys.runs import Run
from nexus_marketing.core.pacing.zones import UTC_ZONE, zone_named


@dataclass(frozen=True, slots=True)
class LeadFacts:
    """The lead as conditions see it: canonical values by column, and ``events``, ``segments``, ``scores``, ``consents``."""

    record: Mapping[str, object]
    tenant_zone: str = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        """Whose clock counts: the lead's, else the tenant's, else UTC."""
        own = self.record.get("time_zone")
        found = zone_named(own) if isinstance(own, str) else None
        return found or zone_named(self.tenant_zone) or UTC_ZONE


class Situation:
    """One run at one moment, with the decision in the making. ``record`` is the lead, and the event that started the run."""

    __slots__ = ("_evaluation", "draft", "facts", "journey", "now", "record", "run")

    def __init__(self, journey: Journey, run: Run, facts: LeadFacts, now: datetime) -> None:
        self.journey, self.run, self.facts, self.now = journey, run, facts, now
        self.draft = Draft(run, now)
        self.record: Mapping[str, object] = {**facts.record, "event": run.event} if run.event else facts.record
        self._evaluation: Evaluation | None = None

    @property
    def evaluation(self) -> Evaluation:
        """The clock of conditions, read once."""
        if self._evaluation is None:
            self._evaluation = Evaluation(self.now, self.facts.tenant_zone)
        return self._evaluation

    @property
    def proof(self) -> dict[str, Any]:
        """What the history says beside what a node did that can be taken back: which visit it was."""
        draft = self.draft
        return {"visit": draft.get("visit")} if draft.get("node") in self.journey.compensations else {}

    def zone(self, name: str | None = None) -> ZoneInfo:
        """A zone by name, else the lead's."""
        return zone_named(name) or self.facts.zone
