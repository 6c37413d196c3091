"""Summary: the runs of a study as rows, a scenario each, with what a reader compares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from ..comparison.result import FailedRun, ModelRecord, RunResult, TaskRecord
from ..comparison.scenarios import UNFROZEN
from ..policies import POLICIES

TOLERANCE = 0.002
"""How far below full fine-tuning's final validation score counts as the same quality: 0.2 points."""


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and, from two seeds on, the sample standard deviation."""

    mean: float
    sd: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None when there are no values, or one of them is missing."""
        known = list(values)
        if not known or any(value is None for value in known):
            return None
        numbers = [value for value in known if value is not None]
        return cls(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None)

    def scaled(self, factor: float) -> Spread:
        """Both times `factor`."""
        return Spread(self.mean * factor, None if self.sd is None else self.sd * factor)


@dataclass(frozen=True)
class Row:
    """One scenario. Times in seconds, memory in bytes, scores from 0 to 1; None where nothing can be said.

    `epochs`: passes over the training examples. `speedup`: train seconds of full fine-tuning / its own.
    `predicted_speedup`: what the cost model said.
    `to_quality`: train seconds until validation macro F1 first came within `TOLERANCE` of full fine-tuning's last;
    `speedup_to_quality`: those of full fine-tuning / its own, seed by seed. Both over the seeds in `reached`, which
    came there at all: the seeds that are missing would have been the slowest.
    """

    scenario: str
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    trainable_parameters: Spread | None
    frozen_fraction: Spread | None
    train_seconds: Spread | None
    speedup: Spread | None
    predicted_speedup: Spread | None
    accuracy: Spread | None
    macro_f1: Spread | None
    weighted_f1: Spread | None
    entity_f1: Spread | None
    peak_memory: Spread | None
    energy: Spread | None
    train_loss: Spread | None
    reached: tuple[int, ...]
    to_quality: Spread | None
    speedup_to_quality: Spread | None
    epochs: Spread | None

    @property
    def unfrozen(self) -> bool:
        """Whether this is full fine-tuning."""
        return self.scenario in UNFROZEN


@dataclass(frozen=True)
class Summary:
    """All runs of one task and model, and what can be said about them."""

    results: tuple[RunResult, ...]
    failures: tuple[FailedRun, ...]

    @classmethod
    def of(cls, runs: Iterable[RunResult | FailedRun]) -> Summary:
        """`runs` in the order in which scenarios are shown: policy by policy, depth by depth, seed by seed."""
        ordered = sorted(runs, key=lambda run: (scenario_key(run.scenario), run.seed))
        return cls(
            tuple(run for run in ordered if isinstance(run, RunResult)),
            tuple(run for run in ordered if isinstance(run, FailedRun)),
        )

    @property
    def task(self) -> TaskRecord:
        """What was trained on. Raises `IndexError` without any run."""
        return self.runs[0].task

    @property
    def model(self) -> ModelRecord:
        """What was trained. Raises `IndexError` without any run."""
        return self.runs[0].model

    @property
    def runs(self) -> tuple[RunResult | FailedRun, ...]:
        """All of them, the finished ones first."""
        return (*self.results, *self.failures)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """A row a scenario, in order."""
        names = sorted({run.scenario for run in self.runs}, key=scenario_key)
        return tuple(self._row(name) for name in names)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before comparing numbers, each once."""
        found = dict.fromkeys(w for run in self.runs for w in run.task.warnings)
        for run in self.results:
            if run.cache_stats is not None and run.cache_stats.get("declined"):
                reason = str(run.cache_stats["declined"]).rstrip(".")
                found[f"The cache stood aside in {run.scenario}: {reason}."] = None
        places = {
            tuple(str(run.environment.get(key)) for key in ("device", "device_name", "threads", "dtype", "torch"))
            for run in self.results
        }
        if len(places) > 1:
            listed = "; ".join(sorted(", ".join(place) for place in places))
            found[f"The runs were measured in different environments, so their times do not compare: {listed}."] = None
        if self.results and not any(run.scenario in UNFROZEN for run in self.results):
            found["No unfrozen run is among them, so no speed-up can be given: add the scenario nothing."] = None
        return tuple(found)

    @property
    def same_time(self) -> bool:
        """Whether runs had as many epochs as full fine-tuning's seconds pay for, and not the same number."""
        return any(run.matched is not None for run in self.results)

    @property
    def has_entities(self) -> bool:
        """Whether there are entities to score."""
        return any(run.metrics is not None and run.metrics.entity_f1 is not None for run in self.results)

    def _row(self, scenario: str) -> Row:
        runs = [run for run in self.results if run.scenario == scenario]
        full = [run.train_seconds for run in self.results if run.scenario in UNFROZEN]
        there = {run.seed: seconds for run in runs if (seconds := self._seconds_to_quality(run)) is not None}
        # The predicted share is of a step: runs with more steps than full fine-tuning gain less.
        steps = fmean(
            [run.steps for run in self.results if run.scenario in UNFROZEN] or [run.steps for run in runs] or [0]
        )
        return Row(
            scenario=scenario,
            seeds=tuple(run.seed for run in runs),
            failed=tuple(run.seed for run in self.failures if run.scenario == scenario),
            trainable_parameters=Spread.of(run.trainable_parameters for run in runs),
            frozen_fraction=Spread.of(run.frozen_fraction for run in runs),
            train_seconds=Spread.of(run.train_seconds for run in runs),
            speedup=Spread.of(fmean(full) / run.train_seconds for run in runs) if full else None,
            predicted_speedup=Spread.of(steps / (run.steps * run.predicted_step_ratio) for run in runs),
            accuracy=Spread.of(_score(run, "accuracy") for run in runs),
            macro_f1=Spread.of(_score(run, "macro_f1") for run in runs),
            weighted_f1=Spread.of(_score(run, "weighted_f1") for run in runs),
            entity_f1=Spread.of(_score(run, "entity_f1") for run in runs),
            peak_memory=Spread.of(run.peak_memory_bytes for run in runs),
            energy=Spread.of(run.energy_joules for run in runs),
            train_loss=Spread.of(run.train_loss for run in runs),
            reached=tuple(there),
            to_quality=Spread.of(there.values()),
            speedup_to_quality=Spread.of(self._full_seconds_to_quality[seed] / there[seed] for seed in there),
            epochs=Spread.of(run.epochs for run in runs),
        )

    @cached_property
    def _targets(self) -> Mapping[int, float]:
        """Seed -> the validation macro F1 that counts as full fine-tuning's quality."""
        finals: dict[int, list[float]] = {}
        for run in self.results:
            if run.scenario in UNFROZEN and run.validation:
                finals.setdefault(run.seed, []).append(run.validation[-1].macro_f1)
        return {seed: fmean(scores) - TOLERANCE for seed, scores in finals.items()}

    @cached_property
    def _full_seconds_to_quality(self) -> Mapping[int, float]:
        """Seed -> what full fine-tuning needed itself."""
        seconds: dict[int, list[float]] = {}
        for run in self.results:
            needed = self._seconds_to_quality(run) if run.scenario in UNFROZEN else None
            if needed is not None:
                seconds.setdefault(run.seed, []).append(needed)
        return {seed: fmean(values) for seed, values in seconds.items()}

    def _seconds_to_quality(self, run: RunResult) -> float | None:
        target = self._targets.get(run.seed)
        if target is None:
            return None
        return next((point.seconds for point in run.validation if point.macro_f1 >= target), None)


def _score(run: RunResult, name: str) -> float | None:
    """A score on the test split; None in a trial of a search, which does not look at it."""
    return None if run.metrics is None else getattr(run.metrics, name)


def scenario_key(scenario: str) -> tuple[int, tuple[tuple[int, float, str], ...]]:
    """Sorts scenarios as the policies are listed, and by number within: `bottom-up:9` before `bottom-up:12`."""
    names = [policy.name for policy in POLICIES]
    name, _, rest = scenario.partition(":")
    words: Sequence[str] = re.findall(r"\d+(?:\.\d+)?|[^\d]+", rest)
    parts = tuple((0, float(word), "") if word[0].isdigit() else (1, 0.0, word) for word in words)
    return (names.index(name) if name in names else len(names), parts)
