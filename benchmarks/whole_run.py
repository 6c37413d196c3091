"""Whole runs with the prefix cache against full fine-tuning: training seconds and test metrics, on real data.

    python benchmarks/whole_run.py --dataset PATH [--limit 3000] [--epochs 4] [--learning-rate 2e-4] [--rounds 1]
                                   [--output FILE]

One process; a round trains every row in turn, full fine-tuning first. A figure of speed is the median over rounds
of (full / row of the same round), in training seconds as every RunResult counts them: steps alone, with all that
the cache does in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path

from machine import describe

from adaptivefreeze import find_blocks, parse_policy
from adaptivefreeze.studies.identity import model_record
from adaptivefreeze.studies.run import run_scenario, warm_up
from adaptivefreeze.studies.settings import StudySettings
from adaptivefreeze.tasks import load_task

ROWS = (
    ("nothing", False),
    ("bottom-up:3", False),
    ("bottom-up:3", True),
    ("bottom-up:4", False),
    ("bottom-up:4", True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    # Nothing reads validation here: it is evaluated never, or at the most once.
    settings = StudySettings(epochs=options.epochs, learning_rate=options.learning_rate, eval_steps=10**6)
    first = task.new_model(0)
    model = model_record(task, first, find_blocks(first))
    warm_up(task, settings)
    runs: dict[tuple[str, bool], list] = {row: [] for row in ROWS}
    for round_ in range(options.rounds):
        for row in ROWS:
            policy, cache = parse_policy(row[0]), row[1]
            result = run_scenario(task, policy, round_, dataclasses.replace(settings, cache=cache), model=model)
            runs[row].append(result)
            print(row, f"{result.train_seconds:.1f} s", result.metrics.entity_f1, result.cache_stats, flush=True)
    full = [r.train_seconds for r in runs["nothing", False]]
    lines = [
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, batch "
        f"{settings.batch_size}, learning rate {options.learning_rate:g}, {options.model} model; {options.rounds} "
        f"round(s). {describe()}.",
        "",
        "| policy | cache | train s | × | hit rate | test entity F1 | test macro F1 | test accuracy |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (policy, cache), results in runs.items():
        speed = statistics.median(f / r.train_seconds for f, r in zip(full, results, strict=True))
        seconds = statistics.median(r.train_seconds for r in results)
        hits = f"{results[0].cache_stats['hit_rate']:.2f}" if results[0].cache_stats else "–"
        scores = [
            statistics.mean(getattr(r.metrics, name) for r in results) for name in ("entity_f1", "macro_f1", "accuracy")
        ]
        lines.append(
            f"| `{policy}` | {'yes' if cache else 'no'} | {seconds:.1f} | {speed:.2f} | {hits} | "
            + " | ".join(f"{100 * score:.2f}" for score in scores)
            + " |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Whole runs with the prefix cache\n\n" + text)


if __name__ == "__main__":
    main()
