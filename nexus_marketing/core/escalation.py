"""When a campaign is escalated: one action a level, level after level, until somebody says that they have seen it.

>>> from datetime import UTC
>>> begun = datetime(2026, 3, 2, tzinfo=UTC)
>>> rule = EscalationTerms(0, 1, timedelta(hours=24))
>>> decide([rule], [], {0}, {}, begun, begun + timedelta(hours=23)).acts
()
>>> decide([rule], [], {0}, {}, begun, begun + timedelta(hours=24)).acts
(0,)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: What a condition reads changes by itself: it is looked at again when a campaign is a twentieth older, within these bounds.
_SOONEST: Final = timedelta(minutes=5)
_LATEST: Final = timedelta(hours=6)
#: How long a campaign that has ended is still looked at, once every rule could have acted.
_AFTER_END: Final = timedelta(days=7)
DEFAULT_COOL_DOWN: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class EscalationTerms:
    """When a rule may act: ``after`` the campaign began, once its condition has held ``hold_for`` so long.

    ``minimum`` is how many messages must have been taken by then; ``cool_down`` how long its level keeps quiet after it
    acted and was acknowledged. ``index`` is its place in the document.
    """

    index: int
    level: int
    after: timedelta
    hold_for: timedelta = timedelta(0)
    minimum: int = 0
    cool_down: timedelta = DEFAULT_COOL_DOWN


@dataclass(frozen=True, slots=True)
class Raised:
    """A level that acted, and when somebody said that they have seen it."""

    level: int
    at: datetime
    acknowledged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EscalationDecision:
    """Which rules act now, since when the conditions of all have held, and when to look again; never, where it is over."""

    acts: tuple[int, ...]
    since: Mapping[int, datetime]
    look_at: datetime | None


def decide(
    rules: Sequence[EscalationTerms],
    raised: Sequence[Raised],
    holding: Collection[int],
    since: Mapping[int, datetime],
    begun_at: datetime,
    now: datetime,
    *,
    sample: int = 0,
    ended_at: datetime | None = None,
) -> EscalationDecision:
    """What is to be done for a campaign at a moment.

    At most one rule acts at a time, the lowest level first and of one level the first in the document. A level above the
    lowest acts only while one below it has acted and nobody has acknowledged that.

    Args:
        rules: of its definition.
        raised: everything so far.
        holding: the indexes of rules whose conditions hold.
        since: by index, since when they did at the last look.
        begun_at: when the campaign became active.
        now: the moment.
        sample: how many messages were taken.
        ended_at: when it was completed, if it was.
    """
    held = {
        rule.index: since.get(rule.index, now) for rule in rules if rule.index in holding and rule.minimum <= sample
    }
    lowest = min((rule.level for rule in rules), default=0)
    acting = next(
        (
            rule
            for rule in sorted(rules, key=lambda each: (each.level, each.index))
            if rule.index in held
            and now >= begun_at + rule.after
            and now >= held[rule.index] + rule.hold_for
            and _is_open(rule, lowest, raised, now)
        ),
        None,
    )
    acts = () if acting is None else (acting.index,)
    return EscalationDecision(acts, held, _next_look(rules, held, begun_at, now, ended_at))


def _is_open(rule: EscalationTerms, lowest: int, raised: Sequence[Raised], now: datetime) -> bool:
    """Whether its level may act: once, and again when that was acknowledged and the cool-down is over."""
    own = [each for each in raised if each.level == rule.level]
    if any(each.acknowledged_at is None or now < each.at + rule.cool_down for each in own):
        return False
    return rule.level == lowest or any(each.level < rule.level and each.acknowledged_at is None for each in raised)


def _next_look(
    rules: Sequence[EscalationTerms],
    held: Mapping[int, datetime],
    begun_at: datetime,
    now: datetime,
    ended_at: datetime | None,
) -> datetime | None:
    if not rules:
        return None
    whole = begun_at + max(rule.after + rule.hold_for for rule in rules)
    if ended_at is not None and now >= max(whole, ended_at) + _AFTER_END:
        return None
    begins = [begun_at + rule.after for rule in rules]
    if not any(rule.hold_for for rule in rules) and now < min(begins):
        return min(begins)  # what holds before that means nothing
    usual = now + min(max((now - begun_at) / 20, _SOONEST), _LATEST)
    ripe = [held[rule.index] + rule.hold_for for rule in rules if rule.index in held]
    return min([usual, *(at for at in (*begins, *ripe) if at > now)])
