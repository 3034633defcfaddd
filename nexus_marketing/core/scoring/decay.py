"""How points lose weight with age: by half-lives, or in steps.

>>> Decay(half_life_seconds=10.0).factor(20.0)
0.25
>>> Decay(steps=((30.0, 0.5), (90.0, 0.0))).factor(30.0)
0.5
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decay:
    """Weight by age in seconds; without a half-life and steps points never age.

    ``steps`` are (age from which, part that is kept), ages growing and parts shrinking.
    """

    half_life_seconds: float | None = None
    steps: tuple[tuple[float, float], ...] = ()

    def factor(self, age_seconds: float) -> float:
        """The part of the points that counts at an age; what is still to come counts whole."""
        if age_seconds <= 0:
            return 1.0
        if self.half_life_seconds is not None:
            return float(0.5 ** min(age_seconds / self.half_life_seconds, 1_000.0))
        kept = 1.0
        for after, part in self.steps:
            if age_seconds < after:
                break
            kept = part
        return kept

    def next_step(self, age_seconds: float) -> float | None:
        """The seconds until the weight changes at once, or begins to shrink; none for what changes steadily."""
        if age_seconds < 0:
            return -age_seconds
        return next((after - age_seconds for after, _ in self.steps if after > age_seconds), None)


NEVER = Decay()
