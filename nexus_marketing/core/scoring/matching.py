"""Rules made ready to be held against leads and what they did."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nexus_marketing.core.conditions import (
    EVENTS,
    Dependencies,
    Evaluation,
    Predicate,
    compile_predicate,
    dependencies,
    next_flip,
)
from nexus_marketing.core.conditions.schema import Record
from nexus_marketing.core.errors import ConditionUnavailable
from nexus_marketing.core.scoring.contributions import Cause, ContributionKind, Ledger
from nexus_marketing.core.scoring.rule_sets import Rule, RuleSet

_CUSTOM: Final = "custom"
_HUMAN: Final = "human"


@dataclass(frozen=True, slots=True)
class EventFact:
    """An engagement: ``name`` is a custom event's own; only what people did gives points."""

    id: int
    at: datetime
    type: str
    name: str | None
    verdict: str
    metadata: Mapping[str, Any]
    channel: str | None = None
    campaign_id: int | None = None
    link: int | None = None

    def record(self) -> Record:
        """What ``where`` reads."""
        return {
            "tracked_at": self.at,
            "type": self.type,
            "name": self.name,
            "metadata": self.metadata,
            "channel": self.channel,
            "campaign_id": self.campaign_id,
            "link": self.link,
        }


class Scorer:
    """A rule set with its conditions compiled; may be shared by threads."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._schema = rules.schema
        self._by_event: dict[str, list[tuple[Rule, Predicate | None]]] = {}
        self._attributes: list[tuple[Rule, Predicate]] = []
        for rule in rules.rules:
            if rule.event is not None:
                where = None if rule.where is None else compile_predicate(rule.where, EVENTS)
                self._by_event.setdefault(rule.event, []).append((rule, where))
            elif rule.when is not None:
                self._attributes.append((rule, compile_predicate(rule.when, self._schema)))
        self._clocked = [
            rule
            for rule, _ in self._attributes
            if rule.when is not None and _is_looked_at(dependencies(rule.when, self._schema))
        ]

    @property
    def reads_leads(self) -> bool:
        """Whether any rule asks what a lead's fields say."""
        return bool(self._attributes)

    def events_since(self, version: int) -> frozenset[str]:
        """The events of rules that were changed after a version."""
        return frozenset(rule.event for rule in self.rules.rules if rule.event is not None and rule.since > version)

    def judge_event(self, ledger: Ledger, event: EventFact, now: datetime, *, after: int = 0) -> None:
        """Have an engagement's points stand where a rule meets it and a person did it, else not.

        Args:
            ledger: of the lead.
            event: what it did.
            now: the moment, for what is taken back.
            after: look only at rules that were changed after this version.
        """
        for rule, where in self._rules_for(event):
            if rule.since <= after:
                continue
            key = Cause(rule.key, rule.since, event.id)
            is_met = event.verdict == _HUMAN and (where is None or where(event.record(), Evaluation(event.at)))
            if is_met:
                ledger.give(ContributionKind.EVENT, key, rule.points, event.at)
            else:
                ledger.take_back(key, now)

    def judge_lead(self, ledger: Ledger, lead_id: int, record: Record, now: datetime) -> None:
        """Have the points of what the lead's fields say stand, and no others.

        Where a rule asks a plugin that cannot be asked, its points stay as they are.
        """
        evaluation = Evaluation(now)
        for rule, holds in self._attributes:
            key = Cause(rule.key, rule.since, lead_id)
            try:
                is_met = holds(record, evaluation)
            except ConditionUnavailable:
                continue
            if is_met:
                ledger.give(ContributionKind.ATTRIBUTE, key, rule.points, now)
            else:
                ledger.take_back(key, now)

    def next_flip(self, record: Record, now: datetime) -> datetime | None:
        """When the clock alone changes what the lead's fields say; tomorrow where a plugin could not be asked."""
        evaluation = Evaluation(now)
        flips = (self._flip(rule, record, evaluation) for rule in self._clocked)
        return min((each for each in flips if each is not None), default=None)

    def _flip(self, rule: Rule, record: Record, evaluation: Evaluation) -> datetime | None:
        if rule.when is None:
            return None
        try:
            return next_flip(rule.when, self._schema, record, evaluation)
        except ConditionUnavailable:
            return evaluation.next_day()

    def _rules_for(self, event: EventFact) -> Iterator[tuple[Rule, Predicate | None]]:
        yield from self._by_event.get(event.name or event.type, ())
        if event.name is not None and event.type == _CUSTOM:
            yield from self._by_event.get(_CUSTOM, ())


def _is_looked_at(read: Dependencies) -> bool:
    """Whether the clock may change an answer; one of a plugin that could not be asked is asked again with the day."""
    return read.clock or any(name.endswith("@0") for name in read.conditions)
