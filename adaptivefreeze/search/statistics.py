"""Bootstrap estimates over seeds or folds, paired across candidates by using the same draws for all of them."""

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
class ScoreEstimate:
    """The score of one candidate over seeds or folds.

    Args:
        mean: Mean score.
        sd: Sample standard deviation; None with a single score.
        low: Lower bound of the mean's 95 % confidence interval; None with a single seed or fold, or if the
            candidate was not scored on all of them.
        high: Upper bound of that interval, or None.
        best: Probability that no other candidate has a better mean, or None.
    """

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    best: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two bounds")

    def overlaps(self, other: ScoreEstimate) -> bool:
        """Return whether the two confidence intervals overlap; True if one of them is unknown."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high


def estimates(scores: Mapping[_Name, Sequence[float]], replicates: int) -> dict[_Name, ScoreEstimate]:
    """Estimate the score of each candidate.

    Seeds or folds are drawn with replacement, `DRAWS` times, from a fixed seed: equal scores give equal estimates.
    Candidates that are equally good in a draw share it.

    Args:
        scores: The scores of each candidate, in the order of the seeds and folds; a pruned candidate has fewer.
            Higher is better.
        replicates: How many scores a complete candidate has.
    """
    plain = {name: ScoreEstimate(fmean(s), stdev(s) if len(s) > 1 else None) for name, s in scores.items()}
    whole = [name for name, s in scores.items() if len(s) == replicates]
    if replicates < 2 or not whole:
        return plain
    table = np.array([scores[name] for name in whole], dtype=float)
    drawn = np.random.default_rng(_SEED).integers(0, replicates, size=(DRAWS, replicates))
    means = table[:, drawn].mean(axis=2)  # (candidates, draws)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail], axis=1)
    # Sums in another order differ in the last bits: equal means must count as equal.
    winners = np.isclose(means, means.max(axis=0), rtol=0, atol=1e-12)
    best = (winners / winners.sum(axis=0)).mean(axis=1)
    for row, name in enumerate(whole):
        known = plain[name]
        plain[name] = ScoreEstimate(known.mean, known.sd, float(low[row]), float(high[row]), float(best[row]))
    return plain
