"""What scores and times can tell: intervals over seeds, the resolution of a split, and the scores of guessing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval; `low` and `high` are None for a single value."""

    mean: float
    low: float | None = None
    high: float | None = None

    def contains(self, value: float) -> bool:
        """Return whether the interval contains `value`; True if there is no interval."""
        return self.low is None or self.high is None or self.low <= value <= self.high


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean of `values` and its t interval.

    Differences of two scenarios, seed by seed, give a paired interval.

    Example:
        >>> t_interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, low=-0.48413771175032977, high=4.48413771175033)
    """
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean)
    half = t_half_width(stdev(values), len(values))
    return Interval(mean, mean - half, mean + half)


def t_half_width(sd: float, count: int) -> float:
    """Return half the width of the t interval of the mean of `count` values with standard deviation `sd`."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd / math.sqrt(count)


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean of positive `ratios` and its interval, which is the t interval of their logarithms."""
    found = t_interval([math.log(ratio) for ratio in ratios])
    # A ratio beyond 1e300 has no use, and exp overflows.
    bounds = (None if b is None else math.exp(max(-690.0, min(690.0, b))) for b in (found.low, found.high))
    return Interval(math.exp(found.mean), *bounds)


@dataclass(frozen=True)
class Guessing:
    """Scores of a model that ignores its input: the better of the most frequent label and an even guess."""

    label: str
    accuracy: float
    macro_f1: float
    weighted_f1: float
    entity_f1: float = 0.0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Guessing | None:
        """Return the scores on a split with these label counts, or None for an empty split."""
        counts = {label: count for label, count in counts.items() if count > 0}
        if not counts:
            return None
        label = max(counts, key=lambda label: counts[label])
        share = counts[label] / sum(counts.values())
        f1 = 2 * share / (1 + share)
        return cls(label, share, max(f1, 1.0) / len(counts), share * f1)


def standard_error(score: float, counts: Mapping[str, int], by_class: Mapping[str, float] | None = None) -> float:
    """Return the standard error of a macro-averaged score that is due to the size of the split.

    Each class counts as a share of its examples. Examples that depend on each other, such as the words of a sentence,
    carry less information, so that the true error is larger.

    Args:
        score: The score, from 0 to 1.
        counts: How often each label occurs.
        by_class: The score of each class; `score` for classes without one.
    """
    counts = {label: count for label, count in counts.items() if count > 0}
    if not counts:
        return 0.0
    scores = {label: min(1.0, max(0.0, (by_class or {}).get(label, score))) for label in counts}
    variance = math.fsum(scores[label] * (1 - scores[label]) / count for label, count in counts.items())
    return math.sqrt(variance) / len(counts)


def at_chance(scores: Mapping[str, float], counts: Mapping[str, int]) -> bool:
    """Return whether accuracy and macro F1 are those of guessing, within two standard errors.

    Args:
        scores: `accuracy` and `macro_f1`; what is missing is not compared.
        counts: How often each label occurs in the split.
    """
    guess, total = Guessing.of(counts), sum(counts.values())
    if guess is None:
        return False
    errors = {
        "accuracy": math.sqrt(guess.accuracy * (1 - guess.accuracy) / total),
        "macro_f1": standard_error(guess.macro_f1, counts),
    }
    limits = {name: getattr(guess, name) + 2 * error for name, error in errors.items()}
    return all(scores[name] <= limit for name, limit in limits.items() if name in scores)
