"""Whole runs with the prefix cache against full fine-tuning: training seconds and test metrics, on real data.

    python benchmarks/whole_run.py --dataset PATH [--limit 3000] [--epochs 4] [--learning-rate 2e-4]
                                   [--batch-sizes 8 16] [--rows FILE] [--output FILE]

One process trains every row in turn, full fine-tuning first. A figure of speed is full / row, in training seconds as
every RunResult counts them: steps alone, with all that the cache does in them. Finished runs are kept in --rows and
not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

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
SCORES = ("entity_f1", "macro_f1", "accuracy")


def measure(task: Any, policy: str, settings: StudySettings, model: Any) -> dict[str, Any]:
    """What one run took and gave."""
    result = run_scenario(task, parse_policy(policy), 0, settings, model=model)
    return {
        "batch": settings.batch_size,
        "policy": policy,
        "cache": settings.cache,
        "seconds": result.train_seconds,
        "hit_rate": result.cache_stats["hit_rate"] if result.cache_stats else None,
        **{name: getattr(result.metrics, name) for name in SCORES},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, each beside full fine-tuning with the same batch size."""
    full = {row["batch"]: row["seconds"] for row in rows if row["policy"] == "nothing"}
    lines = [
        "| batch | policy | cache | train s | × | hit rate | test entity F1 | test macro F1 | test accuracy |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        hits = "–" if row["hit_rate"] is None else f"{row['hit_rate']:.2f}"
        lines.append(
            f"| {row['batch']} | `{row['policy']}` | {'yes' if row['cache'] else 'no'} | {row['seconds']:.1f} | "
            f"{full[row['batch']] / row['seconds']:.2f} | {hits} | "
            + " | ".join(f"{100 * row[name]:.2f}" for name in SCORES)
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rows", type=Path, default=Path("whole_run.jsonl"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    # Validation decides nothing here, and is outside of the clock: a few sentences do.
    task = dataclasses.replace(task, validation=task.validation.select(range(32)))
    first = task.new_model(0)
    model = model_record(task, first, find_blocks(first))
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    found = {(row["batch"], row["policy"], row["cache"]): row for row in rows}
    for batch in options.batch_sizes:
        warm = False
        for policy, cache in ROWS:
            if (batch, policy, cache) in found:
                continue
            settings = StudySettings(
                epochs=options.epochs,
                batch_size=batch,
                learning_rate=options.learning_rate,
                cache=cache,
            )
            if not warm:
                warm_up(task, settings)
                warm = True
            row = found[batch, policy, cache] = measure(task, policy, settings, model)
            with options.rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    text = (
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, learning "
        f"rate {options.learning_rate:g}, {options.model} model. {describe()}.\n\n"
        + table([found[batch, *row] for batch in options.batch_sizes for row in ROWS])
    )
    print(text)
    if options.output:
        options.output.write_text("# Whole runs with the prefix cache\n\n" + text)


if __name__ == "__main__":
    main()
