"""Scores that cross a threshold, as journeys say that they want to hear of it and as whoever changes scores finds out.

A threshold is a number, or the key of one that the rules of the score have, with their hysteresis and cooldown.

>>> hot = crossing_name("score", "up", 80)
>>> hot, was_crossed(hot, ScoreMove(7, "score", 60.0, 80.0)), was_crossed(hot, ScoreMove(7, "score", 80.0, 95.0))
('score:score:up:#80.0', True, False)
>>> was_crossed(crossing_name("fit", "down", "warm"), ScoreMove(7, "fit", 9.0, 2.0, frozenset({("warm", "down")})))
True
"""

from dataclasses import dataclass
from typing import Final

UP: Final = "up"
DOWN: Final = "down"
_MARK: Final = "#"


@dataclass(frozen=True, slots=True)
class ScoreMove:
    """A score of a lead is another number; ``told`` are the thresholds of its rules that tell of it, with the direction."""

    lead_id: int
    score: str
    before: float
    after: float
    told: frozenset[tuple[str, str]] = frozenset()


def names_of(score: str) -> str:
    """How the names of all crossings of a score begin."""
    return f"score:{score}:"


def crossing_name(score: str, direction: str, threshold: float | str) -> str:
    """What a journey listens to; no event can be called so."""
    said = threshold if isinstance(threshold, str) else f"{_MARK}{float(threshold)!r}"
    return f"{names_of(score)}{direction}:{said}"


def was_crossed(name: str, move: ScoreMove) -> bool:
    """Whether a move is what a name means: at the threshold is above it."""
    direction, said = name.removeprefix(names_of(move.score)).split(":", 1)
    if not said.startswith(_MARK):
        return (said, direction) in move.told
    threshold = float(said.removeprefix(_MARK))
    low, high = (move.before, move.after) if direction == UP else (move.after, move.before)
    return low < threshold <= high
