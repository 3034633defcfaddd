"""What a segment's rule reads, which changes touch it, and in which order rules that read each other are computed.

A change is a list of names: a lead's column (``score``), a key of its metadata (``metadata.plan``),
``event:purchase``, ``segment:12``, ``consent:email``, or ``*`` for everything (BEHAVIOUR.md 5.3).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Final

from nexus_marketing.core.conditions import Dependencies, Schema
from nexus_marketing.core.errors import ValidationError

#: Everything about a lead: it is new, or gone.
EVERYTHING: Final = "*"
#: How deep segments may rest on other segments.
MAX_DEPTH: Final = 5
#: Of estimates, and the quantile of the normal distribution that belongs to it.
CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054
_CLOCK: Final = "clock"
_CONDITION: Final = "condition:"
_FOLDED: Final = {"email": "email_norm"}


class SegmentKind(StrEnum):
    """Who decides membership: the rule, the rule over other segments, a person, or the rule once and for all."""

    DYNAMIC = "dynamic"
    COMPOSITE = "composite"
    STATIC = "static"
    SNAPSHOT = "snapshot"


class SegmentMove(StrEnum):
    """What happened to a lead."""

    ENTERED = "entered"
    LEFT = "left"


class SegmentCause(StrEnum):
    """Why: the lead or the clock changed, the rule was edited, a person did it, or a whole computation found it."""

    CHANGE = "change"
    RULE = "rule"
    HAND = "hand"
    REFRESH = "refresh"


def names_read(found: Dependencies, schema: Schema) -> list[str]:
    """The names that a rule depends on, sorted."""
    fields = (".".join(schema.resolve(name).path[:2]) for name in found.fields)
    events = (f"event:{name}" for name in found.events)
    segments = (f"segment:{name}" for name in found.segments)
    consents = (f"consent:{channel}" for channel in found.consents)
    scores = map(score_name, found.scores)
    plugins = (f"{_CONDITION}{name}" for name in found.conditions)
    clock = (_CLOCK,) if found.clock else ()
    return sorted({*fields, *events, *segments, *consents, *scores, *plugins, *clock})


def conditions_read(depends_on: Iterable[str]) -> list[str]:
    """The conditions of plugins that a rule names, with their versions.

    >>> conditions_read(["score", "condition:loyal@2"])
    ['loyal@2']
    """
    return sorted(name.removeprefix(_CONDITION) for name in depends_on if name.startswith(_CONDITION))


def score_name(score: str) -> str:
    """What a rule reads that asks for a named score.

    >>> score_name("fit")
    'score:fit'
    """
    return f"score:{score}"


def reads_clock(depends_on: Collection[str]) -> bool:
    """Whether the clock alone may change the answer of a rule that reads these names."""
    return _CLOCK in depends_on


def segments_read(depends_on: Iterable[str]) -> list[int]:
    """The ids of the segments that a rule reads."""
    return sorted(int(name.removeprefix("segment:")) for name in depends_on if name.startswith("segment:"))


def names_changed(fields: Iterable[str], metadata_keys: Iterable[str] = ()) -> list[str]:
    """The names of a change to a lead's fields; ``updated_at`` always changes with them."""
    found = {"updated_at"}
    for name in fields:
        found.add(name)
        if name in _FOLDED:
            found.add(_FOLDED[name])
    found.update(f"metadata.{key}" for key in metadata_keys)
    return sorted(found)


def is_touched(depends_on: Collection[str], names: Collection[str]) -> bool:
    """Whether a change of these names may change the answer of a rule that reads those.

    >>> is_touched(["metadata.plan"], ["metadata", "metadata.plan"]), is_touched(["score"], ["country"])
    (True, False)
    """
    return EVERYTHING in names or not set(depends_on).isdisjoint(names)


#: What a rule costs by its class: about how much longer a pass over a million leads takes.
PRICES: Final[Mapping[str, int]] = {"indexed": 1, "cheap": 3, "scan": 10}
#: What all rules of a tenant may cost together, unless its settings say otherwise.
DEFAULT_BUDGET: Final = 2_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What a rule costs, what the others do, and what all may together."""

    price: int
    spent: int
    allowed: int

    @property
    def is_exceeded(self) -> bool:
        """Whether the rule does not fit.

        >>> Budget(10, 1_990, 2_000).is_exceeded, Budget(10, 1_991, 2_000).is_exceeded
        (False, True)
        """
        return self.spent + self.price > self.allowed


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many leads a rule has: ``count`` lies between ``low`` and ``high`` with ``confidence``.

    ``sampled`` leads of ``total`` were looked at; where that is all of them the three are the same.
    """

    count: int
    low: int
    high: int
    confidence: float
    sampled: int
    total: int
    cost_class: str


def estimated(hits: int, sampled: int, total: int, cost_class: str) -> Estimate:
    """What a random sample says of all, by Wilson's score interval (E. B. Wilson, JASA 22, 1927).

    >>> found = estimated(20, 2_000, 1_000_000, "cheap")
    >>> found.low, found.count, found.high
    (6481, 10000, 15399)
    """
    if sampled >= total:
        return Estimate(hits, hits, hits, 1.0, sampled, total, cost_class)
    if not sampled:
        return Estimate(0, 0, total, CONFIDENCE, 0, total, cost_class)
    share, z = hits / sampled, _Z
    shrunk = 1 + z * z / sampled
    centre = (share + z * z / (2 * sampled)) / shrunk
    half = z * math.sqrt(share * (1 - share) / sampled + z * z / (4 * sampled * sampled)) / shrunk
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    bounds = math.floor(low * total), math.ceil(high * total)
    return Estimate(round(share * total), *bounds, CONFIDENCE, sampled, total, cost_class)


def levels(reads: Mapping[int, Collection[int]]) -> list[Sequence[int]]:
    """Segments in the order in which they are computed: each level reads only earlier ones.

    Args:
        reads: which segments each one reads; those that are no key are taken as computed.

    Raises:
        ValidationError: some read each other in a circle, or rest on more than ``MAX_DEPTH`` others.
    """
    sorter = TopologicalSorter({key: [each for each in found if each in reads] for key, found in reads.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(str(each) for each in error.args[1])
        message = f"The segments {circle} would read each other in a circle: take one in_segment(…) out."
        raise ValidationError.at("conditions", "circle", message) from None
    found: list[Sequence[int]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    if len(found) > MAX_DEPTH:
        message = f"The segment would rest on {len(found) - 1} layers of others, at most {MAX_DEPTH - 1} are computed."
        raise ValidationError.at("conditions", "too_deep", message)
    return found
