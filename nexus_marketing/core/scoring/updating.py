"""One lead's score moves on: from what is stored and what happened to what is to be stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from nexus_marketing.core.conditions.schema import Record
from nexus_marketing.core.scoring.contributions import Contribution, ContributionKind, Ledger
from nexus_marketing.core.scoring.folding import Fold, fold
from nexus_marketing.core.scoring.matching import EventFact, Scorer
from nexus_marketing.core.scoring.rule_sets import RuleSet
from nexus_marketing.core.scoring.thresholds import Crossing, Mark, cross, settle

#: Time alone is not looked at more often: what is shown lags behind by less.
SHORTEST_WAIT: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a lead's score; ``version`` is that of the rules it was computed by, 0 for none."""

    value: float = 0.0
    version: int = 0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    contributions: Sequence[Contribution] = ()
    next_change_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Touch:
    """What a lead is looked at with.

    ``history`` are engagements from before the rules were in force, ``events`` those that nobody has looked at
    yet. ``shown`` is the number that the lead has, where others than rules may have written it: what it has more
    or less is carried over as points of their own (``carried_cause`` tells them apart). Where ``is_recomputed``, no threshold tells of what the
    rules make of the past.
    """

    lead_id: int
    record: Record
    events: Sequence[EventFact] = ()
    history: Sequence[EventFact] = ()
    shown: float | None = None
    carried_cause: int = 0
    is_recomputed: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be stored. ``before`` is the score that was shown, wherever it came from.

    ``judged_from`` is where crossings begin: another number where new rules made something else of the past.
    """

    before: float
    fold: Fold
    appended: Sequence[Contribution]
    marks: Mapping[str, Mark]
    crossings: Sequence[Crossing]
    next_change_at: datetime | None
    judged_from: float

    @property
    def value(self) -> float:
        """The score that is shown from now on."""
        return self.fold.value


def update(scorer: Scorer, known: Known, touch: Touch, version: int, now: datetime) -> Update:
    """Bring a lead's score to the version in force and to the present.

    Args:
        scorer: of the version in force.
        known: what is stored.
        touch: what happened.
        version: the number of the version in force.
        now: the moment (UTC).
    """
    ledger = Ledger(known.contributions)
    marks = dict(known.marks)
    shown = before = known.value if touch.shown is None else touch.shown
    if shown != known.value:
        points = shown - known.value
        ledger.append(Contribution(ContributionKind.CARRIED, "", 0, touch.carried_cause, 0, points, now))
    if known.version < version:
        for event in touch.history:
            scorer.judge_event(ledger, event, now, after=known.version)
        if touch.is_recomputed:
            scorer.judge_lead(ledger, touch.lead_id, touch.record, now)
            settled = fold(scorer.rules, ledger.standing(), now).value
            marks = {each.key: settle(each, marks.get(each.key, Mark()), settled) for each in scorer.rules.thresholds}
            before = settled
    for event in touch.events:
        scorer.judge_event(ledger, event, now)
    scorer.judge_lead(ledger, touch.lead_id, touch.record, now)
    found = fold(scorer.rules, ledger.standing(), now)
    flip = scorer.next_flip(touch.record, now)
    return _finish(scorer.rules, shown, ledger, found, marks, before, flip, now)


def set_to(
    rules: RuleSet, known: Known, value: float, contribution: Contribution, flip: datetime | None, now: datetime
) -> Update:
    """Have the score be a number that somebody gave: what it lacks is a contribution of its own.

    Args:
        rules: the version in force; one without rules where there is none.
        known: what is stored, up to date.
        value: within the bounds of the rules.
        contribution: how the difference is written down, but for its points.
        flip: when the clock changes what the lead's fields say.
        now: the moment (UTC).
    """
    ledger = Ledger(known.contributions)
    total = fold(rules, ledger.standing(), now).total
    fields = (contribution.rule, contribution.version, contribution.cause, contribution.turn, value - total)
    ledger.append(Contribution(contribution.kind, *fields, now, contribution.actor, contribution.reason))
    found = fold(rules, ledger.standing(), now)
    return _finish(rules, known.value, ledger, found, known.marks, known.value, flip, now)


def _finish(
    rules: RuleSet,
    shown: float,
    ledger: Ledger,
    found: Fold,
    marks: Mapping[str, Mark],
    before: float,
    flip: datetime | None,
    now: datetime,
) -> Update:
    crossings: list[Crossing] = []
    after: dict[str, Mark] = {}
    waits: list[datetime | None] = [flip, found.next_change_at]
    for threshold in rules.thresholds:
        mark, crossing, wait = cross(threshold, marks.get(threshold.key, Mark()), before, found.value, now)
        after[threshold.key] = mark
        waits.append(wait)
        if crossing is not None:
            crossings.append(crossing)
    return Update(shown, found, ledger.appended, after, crossings, _soonest(waits, now), before)


def _soonest(waits: Iterable[datetime | None], now: datetime) -> datetime | None:
    soonest = min((each for each in waits if each is not None), default=None)
    return None if soonest is None else max(soonest, now + SHORTEST_WAIT)
