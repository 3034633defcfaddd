"""What a score is made of: points that were given, and perhaps taken back, each for one cause.

Contributions are only ever appended. Each pair of rule and cause has turns: an even one gives the points, an odd
one takes them back, so that a cause which is judged again and again has its effect once.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class ContributionKind(StrEnum):
    """Why points were given.

    ``event``: the cause is an engagement. ``attribute``: what the lead's fields say; the cause is the lead.
    ``manual``: somebody set the score. ``carried``: the lead's number came from elsewhere, such as an import.
    """

    EVENT = "event"
    ATTRIBUTE = "attribute"
    MANUAL = "manual"
    CARRIED = "carried"


#: Kinds that belong to rules, and so to a version of them.
RULED = frozenset({ContributionKind.EVENT, ContributionKind.ATTRIBUTE})


class Cause(NamedTuple):
    """What a contribution is for: a rule in the version in which it was last changed, and whatever it met."""

    rule: str
    version: int
    cause: int


class Contribution(NamedTuple):
    """A row of the ledger. ``at`` is the moment from which the points age (UTC); odd turns take back."""

    kind: str
    rule: str
    version: int
    cause: int
    turn: int
    points: float
    at: datetime
    actor: str | None = None
    reason: str | None = None

    @property
    def key(self) -> Cause:
        """The cause that it is for."""
        return Cause(self.rule, self.version, self.cause)


class Ledger:
    """The contributions to one score of one lead, and those that are to be appended."""

    def __init__(self, contributions: Iterable[Contribution] = ()) -> None:
        self._last: dict[Cause, Contribution] = {}
        self.appended: list[Contribution] = []
        for each in contributions:
            key = each.key
            last = self._last.get(key)
            if last is None or each.turn > last.turn:
                self._last[key] = each

    def standing(self) -> list[Contribution]:
        """What counts, in the order of its moments."""
        found = [each for each in self._last.values() if each.turn % 2 == 0]
        return sorted(found, key=lambda each: (each.at, each.kind, each.rule, each.cause))

    def give(self, kind: str, key: Cause, points: float, at: datetime) -> None:
        """Have the points stand; once is enough."""
        last = self._last.get(key)
        if last is None or last.turn % 2:
            turn = 0 if last is None else last.turn + 1
            self.append(Contribution(kind, *key, turn, points, at))

    def take_back(self, key: Cause, at: datetime) -> None:
        """Have them not stand."""
        last = self._last.get(key)
        if last is not None and last.turn % 2 == 0:
            self.append(Contribution(last.kind, *key, last.turn + 1, -last.points, at))

    def append(self, contribution: Contribution) -> None:
        """Write a row."""
        self._last[contribution.key] = contribution
        self.appended.append(contribution)
