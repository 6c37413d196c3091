"""One row of a report: a scenario of a comparison, or a candidate of a search."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from ..comparison.statistics import Interval, t_half_width
from ..policies import registered_policies


@dataclass(frozen=True)
class Spread:
    """Mean over `count` seeds and, for two or more, the sample standard deviation."""

    mean: float
    sd: float | None = None
    count: int = field(default=1, compare=False)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, or None for a single value."""
        if self.sd is None:
            return None
        half = t_half_width(self.sd, self.count)
        return self.mean - half, self.mean + half

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of `values`, or None if there are none or one of them is None."""
        values = list(values)
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scenario of a comparison, or one candidate of a search.

    Times are in seconds, memory in bytes, energy in joules, scores from 0 to 1. A field is None if it was not measured.

    Args:
        scenario: The policy spec.
        role: `scenario` in a comparison; `depth`, `sample` or `baseline` in a search.
        notes: Remarks shown beside the name, such as `k*` or `failed: seed 1`.
        highlighted: Whether the row is full fine-tuning, or chosen by the search.
        seeds: Seeds with a result.
        failed: Seeds whose run failed.
        reached: Seeds that reached the quality of full fine-tuning.
        depth: Number of frozen blocks that the search tried.
        learning_rate: Learning rate that the search tried.
        scores: Validation scores of a search, one per seed or fold.
        validation_score: Validation score: mean of `scores` in a search, final macro F1 in a comparison.
        loss: Macro F1 on the test split minus that of full fine-tuning, over the seeds that both have.
        entity_loss: The same with entity F1 on the test split.
        validation_loss: Macro F1 at the last evaluation on the validation split, likewise.
        control: The shorter full fine-tuning that took most nearly the row's time, if one did.
        control_loss: Macro F1 on the test split minus that of `control`, over the seeds that both have.
        interval_low: Lower end of the 95 % confidence interval of the mean.
        interval_high: Upper end of the 95 % confidence interval of the mean.
        probability_best: Probability that no other candidate has a better mean.
        test_score: Score on the test split, by the metric of the search.
        epochs: Passes over the training examples.
        train_seconds: Time in training steps.
        speedup: `train_seconds` of full fine-tuning divided by that of the row, seed by seed where both have it.
        gain: Geometric mean of these ratios and its interval.
        predicted_speedup: The same according to the cost model.
        seconds_to_quality: Training time until validation macro F1 first came within `TOLERANCE` of the final score
            of full fine-tuning with the same seed. Mean over the seeds in `reached`.
        speedup_to_quality: `seconds_to_quality` of full fine-tuning divided by that of the row, seed by seed.
        entity_reached: Seeds that reached full fine-tuning's final validation entity F1.
        speedup_to_entity_quality: The same ratio for entity F1.
        cache_hit_rate: Share of the lookups in the prefix cache that found a stored output.
        cache_seconds_saved: Estimated time of the forward passes that the cache skipped, less the time that it took.
    """

    scenario: str
    role: str = "scenario"
    notes: tuple[str, ...] = ()
    highlighted: bool = False
    seeds: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    reached: tuple[int, ...] = ()
    depth: int | None = None
    learning_rate: float | None = None
    scores: tuple[float, ...] = ()
    validation_score: Spread | None = None
    interval_low: float | None = None
    interval_high: float | None = None
    probability_best: float | None = None
    test_score: Spread | None = None
    loss: Interval | None = None
    entity_loss: Interval | None = None
    validation_loss: Interval | None = None
    control: str | None = None
    control_loss: Interval | None = None
    gain: Interval | None = None
    trainable_parameters: Spread | None = None
    epochs: Spread | None = None
    train_seconds: Spread | None = None
    speedup: Spread | None = None
    predicted_speedup: Spread | None = None
    accuracy: Spread | None = None
    macro_f1: Spread | None = None
    weighted_f1: Spread | None = None
    entity_f1: Spread | None = None
    seconds_to_quality: Spread | None = None
    speedup_to_quality: Spread | None = None
    entity_reached: tuple[int, ...] = ()
    speedup_to_entity_quality: Spread | None = None
    peak_memory_bytes: Spread | None = None
    cache_hit_rate: Spread | None = None
    cache_seconds_saved: Spread | None = None
    energy_joules: Spread | None = None

    @property
    def name(self) -> str:
        """The scenario, with its learning rate if the search chose that."""
        return self.scenario if self.learning_rate is None else f"{self.scenario} at {self.learning_rate:.2g}"

    @property
    def label(self) -> str:
        """Text of the first column: `bottom-up:3 (failed: seed 1)`, `4 (k*)`."""
        name = self.name if self.depth is None else str(self.depth)
        return f"{name} ({', '.join(self.notes)})" if self.notes else name


def scenario_key(scenario: str) -> tuple[int, tuple[tuple[int, float, str], ...]]:
    """Sort key of a scenario: the order of the policy listing, then numbers by value.

    Example:
        >>> sorted(["bottom-up:12", "bottom-up:9", "nothing"], key=scenario_key)
        ['nothing', 'bottom-up:9', 'bottom-up:12']
    """
    names = [policy.name for policy in registered_policies()]
    name, _, rest = scenario.partition(":")
    words: Sequence[str] = re.findall(r"\d+(?:\.\d+)?|[^\d]+", rest)
    parts = tuple((0, float(word), "") if word[0].isdecimal() else (1, 0.0, word) for word in words)
    return (names.index(name) if name in names else len(names), parts)
