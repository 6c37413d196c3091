"""What limits the numbers of a comparison: times that do not agree, nothing learned, scores below the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison.result import FailedRun, RunResult, TaskRecord
from ..comparison.statistics import Guessing, at_chance, standard_error
from .row import Row

TOLERANCE = 0.002
"""A validation score counts as the quality of full fine-tuning from this far below its final score: 0.2 points."""

UNSTEADY, UNUSABLE = 1.1, 1.5
"""Longest by shortest time of runs that did the same work, from which there is a warning, or no speedup."""

UNPREDICTED = 1.5
"""Factor between measured and predicted speedup from which there is a warning."""


ENVIRONMENT = ("device", "device_name", "threads", "dtype", "torch")
"""What times depend on, besides the work."""


@dataclass(frozen=True)
class Timing:
    """Whether the times can be trusted: `withheld` if no speedup can be given, and warnings."""

    withheld: bool
    warnings: tuple[str, ...]


def timing(rows: Sequence[Row], runs: Sequence[RunResult]) -> Timing:
    """Check the times: runs of the same work against each other, against the prediction, and the load."""
    found, withheld = [], False
    uneven: list[tuple[float, RunResult, RunResult]] = []
    for same, one_kind in _same_work(runs):
        slow, fast = max(same, key=lambda run: run.train_seconds), min(same, key=lambda run: run.train_seconds)
        ratio = slow.train_seconds / fast.train_seconds
        if ratio > UNSTEADY:
            withheld |= one_kind and ratio > UNUSABLE
            uneven.append((ratio, slow, fast))
    if uneven:
        _, slow, fast = max(uneven, key=lambda item: item[0])
        more = f" So do those of {len(uneven) - 1} other groups." if len(uneven) > 1 else ""
        found.append(
            f"Runs that did the same steps differ in time: {_run(fast)} took {fast.train_seconds:,.1f} s, "
            f"{_run(slow)} {slow.train_seconds:,.1f} s.{more}"
        )
    if withheld:
        found.append("No speedup is given, because it would be noise: repeat the runs on an idle machine with --force.")
    walls = [run for run in runs if run.settings.get("clock") != "processor"]
    busy = [run for run in walls if (load := run.timing) and load.load_average > _cores(run) + 0.5]
    if busy:
        most = max(run.timing.load_average for run in busy if run.timing)
        found.append(
            f"The machine was busy during {len(busy)} of {len(runs)} runs (load average up to {most:.1f} on "
            f"{_cores(busy[0])} cores): times are too long, and not all by the same factor."
        )
    for row in () if withheld else rows:
        if row.gain and row.predicted_speedup and not row.highlighted:
            factor = row.gain.mean / row.predicted_speedup.mean
            if max(factor, 1 / factor) > UNPREDICTED:
                found.append(
                    f"{row.scenario}: measured {row.gain.mean:.1f}×, predicted {row.predicted_speedup.mean:.1f}×. "
                    "Something else than the frozen blocks determines one of the times."
                )
    environments = {_place(run) for run in runs}
    if len(environments) > 1:
        listed = "; ".join(sorted(", ".join(values) for values in environments))
        found.append(f"Times are not comparable, because the runs were measured in different environments: {listed}.")
    if runs and not any(run.full_fine_tuning for run in runs):
        found.append("Speedups are missing, because no run is full fine-tuning: add the scenario nothing.")
    return Timing(withheld, tuple(found))


def learned_nothing(run: RunResult) -> bool:
    """Return whether the run scores as guessing does, on the test split or else at its last evaluation."""
    if run.metrics is not None:
        scores, split = {"accuracy": run.metrics.accuracy, "macro_f1": run.metrics.macro_f1}, "test"
    elif run.validation and (accuracy := run.validation[-1].accuracy) is not None:
        scores, split = {"accuracy": accuracy, "macro_f1": run.validation[-1].macro_f1}, "validation"
    else:
        return False
    return at_chance(scores, run.task.label_counts.get(split, {}))


def learning(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return a sentence about the runs that learned nothing."""
    idle = [run for run in runs if learned_nothing(run)]
    guess = Guessing.of(idle[0].task.label_counts.get("test", {})) if idle else None
    if guess is None:
        return ()
    names = ", ".join(dict.fromkeys(run.scenario for run in idle))
    return (
        f"{'All' if len(idle) == len(runs) else len(idle)} of {len(runs)} runs learned nothing ({names}): they score "
        f"as guessing does (macro F1 {100 * guess.macro_f1:.1f}, accuracy {100 * guess.accuracy:.1f} for always "
        f"{guess.label}).",
    )


def scores(rows: Sequence[Row], runs: Sequence[RunResult], failures: Sequence[FailedRun]) -> tuple[str, ...]:
    """Return what limits the scores: the tokenizer, the cache, missing tests, and the resolution of the splits."""
    found = dict.fromkeys(warning for task in _tasks(runs, failures) for warning in task.warnings)
    for run in runs:
        if run.cache_stats is not None and run.cache_stats.get("disabled_reason"):
            reason = str(run.cache_stats["disabled_reason"]).rstrip(".")
            found[f"Prefix cache disabled in {run.scenario}: {reason}."] = None
    untested = sum(run.metrics is None for run in runs)
    if untested:
        found[f"{untested} of {len(runs)} runs have no scores on the test split: see their validation scores."] = None
    error = resolution(runs, "validation")
    if error is not None and error > TOLERANCE and any(row.seconds_to_quality for row in rows):
        found[
            f"The validation split resolves macro F1 to ± {100 * error:.1f} points (standard error), more than the "
            f"{100 * TOLERANCE:.1f} points by which time to quality is defined: read that time as a rough value."
        ] = None
    return tuple(found)


def resolution(runs: Sequence[RunResult], split: str) -> float | None:
    """Return the standard error of one macro F1 score of full fine-tuning on `split`, or None if it is unknown."""
    for run in sorted(runs, key=lambda run: not run.full_fine_tuning):
        counts = run.task.label_counts.get(split)
        if counts and split == "test" and run.metrics is not None:
            by_class = {label: float(values.get("f1", 0.0)) for label, values in run.metrics.per_class.items()}
            return standard_error(run.metrics.macro_f1, counts, by_class)
        if counts and split == "validation" and run.validation:
            return standard_error(run.validation[-1].macro_f1, counts)
    return None


def _same_work(runs: Sequence[RunResult]) -> list[tuple[list[RunResult], bool]]:
    """Groups of runs that trained the same units in each step, and whether they are of one scenario.

    Scenarios that freeze nothing are one. Others can differ in the cost of what their policies measure.
    """
    groups: dict[object, list[RunResult]] = {}
    for run in runs:
        # A mask that holds from after the last step changes nothing.
        masks = tuple((change["step"], change["mask"]) for change in run.timeline if change["step"] < run.steps)
        groups.setdefault((masks, run.steps, run.cache, _place(run)), []).append(run)
    found = []
    for group in groups.values():
        kinds: dict[str, list[RunResult]] = {}
        for run in group:
            kinds.setdefault("" if run.full_fine_tuning else run.scenario, []).append(run)
        found += [(kind, True) for kind in kinds.values() if len(kind) > 1]
        found += [(group, False)] if len(kinds) > 1 else []
    return found


def _tasks(runs: Sequence[RunResult], failures: Sequence[FailedRun]) -> list[TaskRecord]:
    return [run.task for run in runs] + [run.task for run in failures]


def _place(run: RunResult) -> tuple[str, ...]:
    return tuple(str(run.environment.get(key)) for key in ENVIRONMENT)


def _cores(run: RunResult) -> int:
    cores = run.environment.get("cores")
    return cores if isinstance(cores, int) else 1


def _run(run: RunResult) -> str:
    return f"{run.scenario} (seed {run.seed})"
