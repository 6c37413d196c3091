"""The content of a report on one study, computed from its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..comparison.result import FailedRun, RunResult
from ..comparison.statistics import Interval, ratio_interval, t_interval
from ..policies import ShortFull
from . import checks
from .answer import answer
from .checks import TOLERANCE
from .row import Row, Spread, scenario_key

SAME_TIME = 0.15
"""Difference in training time, as a share of a scenario's, up to which a shorter full fine-tuning is its control."""


@dataclass(frozen=True)
class SearchDetails:
    """What a report of a search needs besides its rows.

    Args:
        metric: The metric on validation examples that the search optimized.
        replicates: Names of the seeds or folds that every candidate is scored on.
        tolerance: Difference in score that counts as equally good.
        best: The row of k*, the best mean score.
        fast: The row of k_fast, the cheapest within `tolerance` of the best.
        study: Name of the Optuna study.
        storage: URL of the Optuna storage.
        greater_is_better: Whether the search maximized the metric.
    """

    metric: str
    replicates: tuple[str, ...]
    tolerance: float
    best: Row
    fast: Row
    study: str
    storage: str
    greater_is_better: bool = True


@dataclass(frozen=True)
class Summary:
    """Content of one report.

    Args:
        title: Heading of the report.
        subject: Data set and model, the title of the figures.
        answer: The result in one sentence.
        rows: Rows of the table, in order.
        findings: Conclusions, one sentence each.
        warnings: What limits the comparison of the numbers, one sentence each.
        failures: One sentence per failed run or candidate.
        runs: Runs of a comparison, finished ones first. Empty for a search.
        search: Details of the search. None for a comparison.
        name: Name of the study beside others: its folder.
    """

    title: str
    subject: str
    answer: str
    rows: tuple[Row, ...]
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    runs: tuple[RunResult | FailedRun, ...] = ()
    search: SearchDetails | None = None
    name: str = ""

    @property
    def results(self) -> tuple[RunResult, ...]:
        """The finished runs."""
        return tuple(run for run in self.runs if isinstance(run, RunResult))


def summarize_runs(runs: Iterable[RunResult | FailedRun], unfinished: Sequence[str] = ()) -> Summary:
    """Summarize the runs of one task and model, ordered by policy, depth and seed.

    Args:
        runs: The runs.
        unfinished: Sentences about what is missing from the study.

    Raises:
        ValueError: If there are no runs.
    """
    runs = list(runs)
    places = {scenario: scenario_key(scenario) for scenario in {run.scenario for run in runs}}
    ordered = sorted(runs, key=lambda run: (places[run.scenario], run.seed))
    if not ordered:
        raise ValueError("No runs to summarize.")
    results = [run for run in ordered if isinstance(run, RunResult)]
    failures = [run for run in ordered if isinstance(run, FailedRun)]
    task, model = ordered[0].task, ordered[0].model
    by_scenario: dict[str, list[RunResult | FailedRun]] = {}
    for run in ordered:
        by_scenario.setdefault(run.scenario, []).append(run)
    reference = _Reference.of([run for run in results if run.full_fine_tuning])
    rows = tuple(_row(name, found, reference) for name, found in by_scenario.items())
    rows = _with_controls(rows, results)
    timing = checks.timing(rows, results)
    if timing.withheld:
        rows = tuple(replace(row, speedup=None, gain=None, speedup_to_quality=None) for row in rows)
    return Summary(
        title=f"Data set {task.dataset} with {task.train_examples:,} training examples, "
        f"model {model.name} with {model.blocks} blocks",
        subject=f"data set {task.dataset}, model {model.name}",
        answer=answer(rows, results, withheld=timing.withheld),
        rows=rows,
        warnings=(*unfinished, *checks.learning(results), *timing.warnings, *checks.scores(rows, results, failures)),
        failures=tuple(f"{run.scenario}, seed {run.seed}. {run.error}" for run in failures),
        runs=(*results, *failures),
    )


@dataclass(frozen=True)
class _Reference:
    """Full fine-tuning: mean training time and steps; by seed, its time and test scores, and what it reached."""

    train_seconds: float | None
    steps: float | None
    seconds: Mapping[int, float]
    test: Mapping[int, float]
    entity_test: Mapping[int, float]
    quality: _Quality
    entity_quality: _Quality

    @classmethod
    def of(cls, runs: Sequence[RunResult]) -> _Reference:
        return cls(
            fmean(run.train_seconds for run in runs) if runs else None,
            fmean(run.steps for run in runs) if runs else None,
            _mean_by_seed((run.seed, run.train_seconds) for run in runs),
            _mean_by_seed(_test_scores(runs, "macro_f1").items()),
            _mean_by_seed(_test_scores(runs, "entity_f1").items()),
            _Quality.of("macro_f1", runs),
            _Quality.of("entity_f1", runs),
        )


@dataclass(frozen=True)
class _Quality:
    """The final validation score of full fine-tuning by one metric, by seed, and the seconds until it was reached."""

    metric: str
    finals: Mapping[int, float]
    seconds: Mapping[int, float]

    @classmethod
    def of(cls, metric: str, runs: Sequence[RunResult]) -> _Quality:
        """Return what these runs of full fine-tuning reached."""
        last = ((run.seed, getattr(run.validation[-1], metric)) for run in runs if run.validation)
        finals = _mean_by_seed((seed, score) for seed, score in last if score is not None)
        reached = ((run.seed, at) for run in runs if (at := cls(metric, finals, {}).seconds_to(run)) is not None)
        return cls(metric, finals, _mean_by_seed(reached))

    def seconds_to(self, run: RunResult) -> float | None:
        """Training time until the score first came within `TOLERANCE` of the final one of the run's seed."""
        final = self.finals.get(run.seed)
        if final is None:
            return None
        scores = ((point.seconds, getattr(point, self.metric)) for point in run.validation)
        return next((seconds for seconds, score in scores if score is not None and score >= final - TOLERANCE), None)

    def reached(self, runs: Sequence[RunResult]) -> dict[int, float]:
        """Return the seconds until each of `runs` reached it, by seed, without those that did not."""
        return {run.seed: seconds for run in runs if (seconds := self.seconds_to(run)) is not None}

    def speedup(self, reached: Mapping[int, float]) -> Spread | None:
        """Return the speedup of runs that reached it after these seconds, seed by seed."""
        return Spread.of(self.seconds[seed] / seconds for seed, seconds in reached.items() if seconds > 0)


def _row(scenario: str, all_runs: Sequence[RunResult | FailedRun], reference: _Reference) -> Row:
    runs = [run for run in all_runs if isinstance(run, RunResult)]
    failed = tuple(run.seed for run in all_runs if isinstance(run, FailedRun))
    seconds, entity_seconds = reference.quality.reached(runs), reference.entity_quality.reached(runs)
    # The cost model predicts the time of one step; a run with more steps than full fine-tuning gains less in total.
    steps = reference.steps if reference.steps is not None else fmean([run.steps for run in runs] or [0])
    full = reference.train_seconds
    ratios = [] if full is None else [reference.seconds.get(run.seed, full) / run.train_seconds for run in runs]
    validation = {run.seed: run.validation[-1].macro_f1 for run in runs if run.validation}
    caches = [_used_cache(run) for run in runs]
    return Row(
        scenario=scenario,
        notes=(f"failed: seed {', '.join(map(str, failed))}",) if failed else (),
        highlighted=any(run.full_fine_tuning for run in runs),
        seeds=tuple(run.seed for run in runs),
        failed=failed,
        reached=tuple(seconds),
        scores=tuple(validation.values()),
        validation_score=Spread.of(validation.values()),
        loss=_paired(_test_scores(runs, "macro_f1"), reference.test),
        entity_loss=_paired(_test_scores(runs, "entity_f1"), reference.entity_test),
        validation_loss=_paired(validation, reference.quality.finals),
        gain=ratio_interval(ratios) if ratios else None,
        trainable_parameters=Spread.of(run.trainable_parameters for run in runs),
        epochs=Spread.of(run.epochs for run in runs),
        train_seconds=Spread.of(run.train_seconds for run in runs),
        speedup=Spread.of(ratios),
        predicted_speedup=Spread.of(steps / (run.steps * run.predicted_step_ratio) for run in runs),
        accuracy=Spread.of(getattr(run.metrics, "accuracy", None) for run in runs),
        macro_f1=Spread.of(getattr(run.metrics, "macro_f1", None) for run in runs),
        weighted_f1=Spread.of(getattr(run.metrics, "weighted_f1", None) for run in runs),
        entity_f1=Spread.of(getattr(run.metrics, "entity_f1", None) for run in runs),
        seconds_to_quality=Spread.of(seconds.values()),
        speedup_to_quality=reference.quality.speedup(seconds),
        entity_reached=tuple(entity_seconds),
        speedup_to_entity_quality=reference.entity_quality.speedup(entity_seconds),
        peak_memory_bytes=Spread.of(run.peak_memory_bytes for run in runs),
        energy_joules=Spread.of(run.energy_joules for run in runs),
        cache_hit_rate=Spread.of(stats["hit_rate"] if stats else None for stats in caches),
        cache_seconds_saved=Spread.of(
            stats["seconds_saved"] - stats["seconds_spent"] if stats else None for stats in caches
        ),
    )


def _used_cache(run: RunResult) -> Mapping[str, float] | None:
    """The statistics of a cache in which something was looked up."""
    stats = run.cache_stats
    return stats if stats and (stats.get("hits") or stats.get("misses")) else None


def _paired(scores: Mapping[int, float], full: Mapping[int, float]) -> Interval | None:
    """The difference from full fine-tuning over the seeds that both have."""
    differences = [score - full[seed] for seed, score in scores.items() if seed in full]
    return t_interval(differences) if differences else None


def _test_scores(runs: Iterable[RunResult], metric: str) -> dict[int, float]:
    """Scores on the test split by seed, without the runs that have none by this metric."""
    scores = {run.seed: getattr(run.metrics, metric, None) for run in runs}
    return {seed: score for seed, score in scores.items() if score is not None}


def _with_controls(rows: Sequence[Row], results: Sequence[RunResult]) -> tuple[Row, ...]:
    """Compare each row with the shorter full fine-tuning that took most nearly its time, within `SAME_TIME` of it."""
    controls = {row.scenario: row.train_seconds.mean for row in rows if _is_control(row) and row.train_seconds}
    scores: dict[str, dict[int, float]] = {}
    for run in results:
        scores.setdefault(run.scenario, {}).update(_test_scores([run], "macro_f1"))
    found = []
    for row in rows:
        nearest, took = None, row.train_seconds.mean if row.train_seconds else 0.0
        if controls and took and not _is_control(row) and not row.highlighted:
            nearest = min(controls, key=lambda name: abs(controls[name] - took))
        if nearest is None or abs(controls[nearest] / took - 1) > SAME_TIME:
            found.append(row)
        else:
            loss = _paired(scores[row.scenario], scores[nearest])
            found.append(replace(row, control=nearest, control_loss=loss))
    return tuple(found)


def _is_control(row: Row) -> bool:
    return row.scenario.partition(":")[0] == ShortFull.name


def seconds_to_quality(summary: Summary) -> dict[tuple[str, int], float]:
    """Return, per scenario and seed, the training time until the quality of full fine-tuning was reached."""
    quality = _Quality.of("macro_f1", [run for run in summary.results if run.full_fine_tuning])
    found = {(run.scenario, run.seed): quality.seconds_to(run) for run in summary.results}
    return {key: seconds for key, seconds in found.items() if seconds is not None}


def _mean_by_seed(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    grouped: dict[int, list[float]] = {}
    for seed, value in pairs:
        grouped.setdefault(seed, []).append(value)
    return {seed: fmean(values) for seed, values in grouped.items()}
