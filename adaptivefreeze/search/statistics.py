"""How sure a search is: bootstrap over seeds or folds, the same draws for every depth, so that depths stay paired."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

import numpy as np

DRAWS = 10_000
CONFIDENCE = 0.95
_SEED = 0
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True)
class Certainty:
    """Of one depth: `mean` and sample standard deviation `sd` over units; `low` and `high` bound the mean with 95 %
    confidence; `best` is the probability that no other depth has a higher mean. All but the mean are None where there
    is one unit alone, and the last three where the depth was not scored on every unit."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    best: float | None = None

    def overlaps(self, other: Certainty) -> bool:
        """Whether the two intervals have a score in common; True where one of them is unknown."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high


def certainty(scores: Mapping[_Name, Sequence[float]], units: int) -> dict[_Name, Certainty]:
    """`scores`: for each candidate one score a unit, in the order of units; a pruned one has fewer than `units`.

    Units are drawn with replacement, `DRAWS` times, from a fixed seed: equal input gives equal numbers. Candidates
    that are equally good in a draw share it.
    """
    plain = {name: Certainty(fmean(s), stdev(s) if len(s) > 1 else None) for name, s in scores.items()}
    whole = [name for name, s in scores.items() if len(s) == units]
    if units < 2 or not whole:
        return plain
    table = np.array([scores[name] for name in whole], dtype=float)
    drawn = np.random.default_rng(_SEED).integers(0, units, size=(DRAWS, units))
    means = table[:, drawn].mean(axis=2)  # (candidates, draws)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail], axis=1)
    # Sums in another order differ in the last bits: equal means must count as equal.
    winners = np.isclose(means, means.max(axis=0), rtol=0, atol=1e-12)
    best = (winners / winners.sum(axis=0)).mean(axis=1)
    for row, name in enumerate(whole):
        known = plain[name]
        plain[name] = Certainty(known.mean, known.sd, float(low[row]), float(high[row]), float(best[row]))
    return plain
