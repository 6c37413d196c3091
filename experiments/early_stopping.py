"""Early stopping by patience, read off the validation curves of full fine-tuning in stored runs.

    python experiments/early_stopping.py experiments/NAME/STUDY.jsonl [--patience 1 2 3] [--metric macro_f1]

Early stopping changes nothing but the end of a run, and shares the learning-rate schedule of the whole one. So a row
shows what full fine-tuning with that patience does: after how many steps it stops, its share of the training time, and
the best validation score until then, beside that of the whole run. Mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from stored_runs import read

from adaptivefreeze.comparison.result import RunResult


def stop(scores: Sequence[float], patience: int) -> int:
    """Return the number of the evaluation after which early stopping ends the run, counted from 1.

    Example:
        >>> stop([0.5, 0.6, 0.6, 0.7, 0.6, 0.5], patience=2)
        6
        >>> stop([0.5, 0.6, 0.6, 0.7, 0.6, 0.5], patience=1)
        3
    """
    best = 0
    for number, score in enumerate(scores):
        if score > scores[best]:
            best = number
        elif number - best >= patience:
            return number + 1
    return len(scores)


def row(runs: Sequence[RunResult], patience: int, metric: str) -> list[str]:
    """Return the row of one patience: steps, share of the time, best score until then, and best of the whole run."""
    found = []
    for run in runs:
        scores = [getattr(point, metric) for point in run.validation]
        last = run.validation[stop(scores, patience) - 1]
        until = scores[: stop(scores, patience)]
        found.append((last.step, last.seconds / run.train_seconds, 100 * max(until), 100 * max(scores)))
    return [str(patience), *(_spread([values[column] for values in found], column) for column in range(4))]


def _spread(values: Sequence[float], column: int) -> str:
    digits = (0, 2, 1, 1)[column]
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--patience", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--metric", choices=("macro_f1", "entity_f1", "accuracy"), default="macro_f1")
    options = parser.parse_args(arguments)
    runs = [run for run in read(options.file) if run.full_fine_tuning and run.validation]
    print(f"| patience | steps | time | best validation {options.metric} until then | best of the whole run |")
    print("|---:|---:|---:|---:|---:|")
    for patience in options.patience:
        print(f"| {' | '.join(row(runs, patience, options.metric))} |")


if __name__ == "__main__":
    main()
