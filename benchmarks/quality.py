"""What the cache's eval mode costs in quality: paired runs, with dropout in the frozen prefix and without.

    python benchmarks/quality.py --dataset PATH [--limit 2000] [--epochs 4] [--learning-rate 2e-4] [--seeds 5]
                                 [--rows FILE] [--output FILE]

For each seed and depth the uncached run (dropout fires in the frozen blocks) and the cached ones (eval mode; and
what is to win it back: dropout on the rows, stored passes drawn in turn) start from the same head and see the same
batches. The difference is in points of validation entity F1 at the end, with a 95 % interval of the paired
differences (Student's t). Finished runs are kept in --rows and not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from machine import describe
from scipy.stats import t as student
from transformers import PrinterCallback, Trainer

from adaptivefreeze import BottomUp, FreezeCallback, PrefixCache
from adaptivefreeze.studies.run import by_length
from adaptivefreeze.studies.settings import StudySettings
from adaptivefreeze.tasks import load_task

VARIANTS: dict[str, dict[str, Any] | None] = {
    "uncached": None,
    "cached": {},
    "cached, dropout 0.1 on rows": {"dropout": 0.1},
    "cached, 2 passes in turn": {"passes": 2},
}


def final_f1(task: Any, k: int, seed: int, variant: str, settings: StudySettings) -> float:
    """Validation entity F1, in points, of one run."""
    options = VARIANTS[variant]
    with tempfile.TemporaryDirectory() as folder:
        arguments = settings.arguments(folder, seed)
        arguments.eval_strategy = "no"
        callback = FreezeCallback(BottomUp(k), cache=False if options is None else PrefixCache(**options))
        trainer = Trainer(
            model=task.new_model(seed),
            args=arguments,
            train_dataset=task.train,
            eval_dataset=by_length(task.validation),
            data_collator=task.collator(),
            compute_metrics=task.compute_metrics,
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if callback.cache is not None and callback.cache.stats.declined:
            raise SystemExit(f"the cache stood aside: {callback.cache.stats.declined}")
        return 100 * trainer.evaluate()["eval_entity_f1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rows", type=Path, default=Path("quality.jsonl"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    settings = StudySettings(epochs=options.epochs, learning_rate=options.learning_rate)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    found = {(row["k"], row["seed"], row["variant"]): row["f1"] for row in rows}
    for seed in range(options.seeds):
        for k in options.depths:
            for variant in options.variants:
                if (k, seed, variant) not in found:
                    found[k, seed, variant] = final_f1(task, k, seed, variant, settings)
                    row = {"k": k, "seed": seed, "variant": variant, "f1": found[k, seed, variant]}
                    with options.rows.open("a") as stream:
                        stream.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    lines = [
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, "
        f"learning rate {options.learning_rate:g}, validation entity F1 in points, {options.seeds} seeds, "
        f"paired. {describe()}.",
        "",
        "| k | run | mean | sd | difference to uncached | 95 % interval |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for k in options.depths:
        base = [found[k, seed, "uncached"] for seed in range(options.seeds)]
        for variant in options.variants:
            scores = [found[k, seed, variant] for seed in range(options.seeds)]
            differences = [score - other for score, other in zip(scores, base, strict=True)]
            half = student.ppf(0.975, options.seeds - 1) * statistics.stdev(differences) / options.seeds**0.5
            mean = statistics.mean(differences)
            interval = "–" if variant == "uncached" else f"{mean - half:+.2f} … {mean + half:+.2f}"
            lines.append(
                f"| {k} | {variant} | {statistics.mean(scores):.2f} | {statistics.stdev(scores):.2f} | "
                f"{'–' if variant == 'uncached' else f'{mean:+.2f}'} | {interval} |"
            )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# What the cache's eval mode costs in quality\n\n" + text)


if __name__ == "__main__":
    main()
