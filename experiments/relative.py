"""What each depth keeps of full fine-tuning: its scores and time, seed by seed, and losses, from stored runs.

    python experiments/relative.py experiments/NAME/STUDY.jsonl [FILE ...] [--output FILE]

One table of all studies, a row for each static scenario:

- trainable: share of the parameters that train. The static-freezing study takes the time to be proportional to it.
- time: training time as a share of full fine-tuning's.
- macro F1, entity F1: test score as a share of full fine-tuning's, in %, with its 95 % interval from two seeds on.
- rare, frequent: the same for the mean F1 of the rarer and of the more frequent half of the classes of the test split.
- train loss, validation loss: mean over the steps of the run, and at its end; means over the seeds.
- unknown words: words of the data set with a subword that the tokenizer does not know.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from stored_runs import read

from adaptivefreeze.comparison.result import RunResult, write_text
from adaptivefreeze.comparison.statistics import ratio_interval
from adaptivefreeze.report.row import scenario_key

HEADS = (
    "study",
    "unknown words",
    "scenario",
    "seeds",
    "trainable",
    "time",
    "macro F1",
    "entity F1",
    "rare",
    "frequent",
    "train loss",
    "validation loss",
)


def rows(name: str, runs: Sequence[RunResult]) -> list[list[str]]:
    """Return the rows of one study: full fine-tuning, then its static scenarios from the shallowest on."""
    full = {run.seed: run for run in runs if run.full_fine_tuning and run.metrics}
    scenarios: dict[str, list[RunResult]] = {}
    for run in runs:
        if len(run.timeline) == 1 and run.metrics and run.seed in full:
            scenarios.setdefault(run.scenario, []).append(run)
    unknown = (runs[0].task.coverage or {}).get("unknown_word_share")
    found = []
    for scenario in sorted(scenarios, key=scenario_key):
        same = scenarios[scenario]
        pairs = [(run, full[run.seed]) for run in same]
        found.append(
            [
                name,
                "–" if unknown is None else f"{100 * unknown:.1f} %",
                f"`{scenario}`",
                str(len(same)),
                f"{same[0].trainable_parameters / same[0].model.parameters:.2f}",
                f"{fmean(run.train_seconds / other.train_seconds for run, other in pairs):.2f}",
                *(ratio(pairs, score) for score in (macro_f1, entity_f1, rarer_half, frequent_half)),
                f"{fmean(run.train_loss for run in same):.3f}",
                _mean([run.validation[-1].loss for run in same if run.validation]),
            ]
        )
    return found


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.3f}" if known else "–"


def ratio(pairs: Iterable[tuple[RunResult, RunResult]], score: Callable[[RunResult], float | None]) -> str:
    """Return the scores relative to those of full fine-tuning in %: `98.1 (97.0–99.2)`."""
    scores = [(score(run), score(full)) for run, full in pairs]
    if any(value is None or not other for value, other in scores):
        return "–"
    if any(value == 0 for value, _ in scores):  # the interval is that of logarithms
        return f"{100 * fmean((value or 0) / (other or 1) for value, other in scores):.1f}"
    found = ratio_interval([(value or 0) / (other or 1) for value, other in scores])
    span = "" if found.low is None or found.high is None else f" ({100 * found.low:.1f}–{100 * found.high:.1f})"
    return f"{100 * found.mean:.1f}{span}"


def macro_f1(run: RunResult) -> float | None:
    """Return the macro F1 on the test split."""
    return run.metrics.macro_f1 if run.metrics else None


def entity_f1(run: RunResult) -> float | None:
    """Return the entity F1 on the test split, None for classification."""
    return run.metrics.entity_f1 if run.metrics else None


def rarer_half(run: RunResult) -> float | None:
    """Return the mean F1 of the classes with fewer test examples, None with fewer than four classes."""
    scores = by_support(run)
    return fmean(scores[: len(scores) // 2]) if len(scores) > 3 else None


def frequent_half(run: RunResult) -> float | None:
    """Return the mean F1 of the other classes."""
    scores = by_support(run)
    return fmean(scores[len(scores) // 2 :]) if len(scores) > 3 else None


def by_support(run: RunResult) -> list[float]:
    """Return the F1 of each class that occurs in the test split, the rarest class first."""
    classes = run.metrics.per_class if run.metrics else {}
    known = {name: values for name, values in classes.items() if values["support"] > 0}
    return [float(known[name]["f1"]) for name in sorted(known, key=lambda name: (known[name]["support"], name))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    lines: list[Sequence[str]] = [HEADS, ("---",) + ("---:",) * (len(HEADS) - 1)]
    lines += [row for file in options.files for row in rows(file.stem, read(file))]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if options.output:
        write_text(options.output, text)
    print(text, end="")


if __name__ == "__main__":
    main()
