"""Whole runs with the prefix cache against full fine-tuning: training seconds and test metrics, on real data.

    python benchmarks/whole_run.py --dataset PATH [--limit 3000] [--epochs 4] [--batch-size 8] [--learning-rate 2e-4]
                                   [--policies SPEC ...] [--output FILE]

`--policies` runs these with the cache, beside full fine-tuning, in place of the usual rows. All runs advance in one
process in turn, a few steps each, so that whatever else the machine does slows all of them alike. Speed is full / row,
in training seconds as every RunResult counts them: steps alone, with all that the cache does in them. The runs share
one generator of random numbers, so scores differ a little from those of a run alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import describe
from turns import Turns

from adaptivefreeze import find_blocks, parse_policy
from adaptivefreeze.studies.identity import model_record
from adaptivefreeze.studies.result import RunResult
from adaptivefreeze.studies.run import run_scenario, warm_up
from adaptivefreeze.studies.settings import StudySettings
from adaptivefreeze.tasks import load_task

Row = tuple[str, bool]  # a policy, and whether with the cache
ROWS: tuple[Row, ...] = (
    ("nothing", False),
    ("bottom-up:3", False),
    ("bottom-up:3", True),
    ("bottom-up:4", False),
    ("bottom-up:4", True),
)
TURN = 10  # steps
SCORES = ("entity_f1", "macro_f1", "accuracy")


def measure(task: Any, number: int, row: Row, settings: StudySettings, model: Any, turns: Turns) -> RunResult:
    """One run, which goes on only in its own turns."""
    policy, cache = row

    def stepped(done: int, total: int) -> None:
        if done % TURN == 0:
            turns.next()
            turns.wait(number)

    turns.wait(number)
    try:
        chosen = dataclasses.replace(settings, cache=cache)
        return run_scenario(task, parse_policy(policy), 0, chosen, model=model, listener=stepped)
    finally:
        turns.leave(number)


def table(results: list[RunResult]) -> str:
    """The runs in Markdown, each beside full fine-tuning."""
    lines = [
        "| policy | cache | train s | × | hit rate | test entity F1 | test macro F1 | test accuracy |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        hits = f"{result.cache_stats['hit_rate']:.2f}" if result.cache_stats else "–"
        lines.append(
            f"| `{result.scenario}` | {'yes' if result.cache else 'no'} | {result.train_seconds:.1f} | "
            f"{results[0].train_seconds / result.train_seconds:.2f} | {hits} | "
            + " | ".join(_points(getattr(result.metrics, name)) for name in SCORES)
            + " |"
        )
    return "\n".join(lines) + "\n"


def _points(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--policies", nargs="+", metavar="SPEC")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    rows: list[Row] = [ROWS[0], *((spec, True) for spec in options.policies)] if options.policies else list(ROWS)
    task = load_task(options.dataset, model=options.model, limit=options.limit)
    # Validation decides nothing here, and is outside of the clock: a few sentences do.
    task = dataclasses.replace(task, validation=task.validation.select(range(32)))
    first = task.new_model(0)
    model = model_record(task, first, find_blocks(first))
    settings = StudySettings(epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate)
    warm_up(task, settings)
    turns = Turns(len(rows))
    with ThreadPoolExecutor(len(rows)) as pool:
        runs = [pool.submit(measure, task, number, row, settings, model, turns) for number, row in enumerate(rows)]
        results = [run.result() for run in runs]
    text = (
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, batch "
        f"{options.batch_size}, learning rate {options.learning_rate:g}, {options.model} model. {describe()}.\n\n"
        + table(results)
    )
    print(text)
    if options.output:
        options.output.write_text("# Whole runs with the prefix cache\n\n" + text)


if __name__ == "__main__":
    main()
