"""Effect of the cache's eval mode on quality: paired runs with and without dropout in the frozen prefix.

    python benchmarks/quality.py --dataset PATH [--limit 2000] [--epochs 4] [--learning-rate 2e-4] [--seeds 5]
                                 [--rows FILE] [--output FILE]

For each seed and depth all variants start from the same head and see the same batches. The uncached run has dropout
in the frozen blocks. The cached runs use eval mode; two of them restore noise, by dropout on the cached rows or by
several stored passes used in turn. Another, only on request by --variants, fills the cache in 8 bits. The difference
is in points of final validation entity F1, with a 95 % interval of the paired differences (Student's t). Finished runs
are stored in --rows and not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from machine import describe
from paired import Rows, final_f1, table

from adaptivefreeze import BottomUp, FreezeCallback, PrefixCache
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task

VARIANTS: dict[str, dict[str, Any] | None] = {
    "uncached": None,
    "cached": {},
    "cached, dropout 0.1 on rows": {"dropout": 0.1},
    "cached, 2 passes in turn": {"passes": 2},
    "cached, filled in 8 bits": {"compute": "int8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)[:4])
    parser.add_argument("--rows", type=Path, default=Path("quality.jsonl"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    settings = StudySettings(epochs=options.epochs, learning_rate=options.learning_rate)
    rows = Rows(options.rows)
    for seed in range(options.seeds):
        for k in options.depths:
            for variant in options.variants:
                if (k, seed, variant) not in rows:
                    kwargs = VARIANTS[variant]
                    callback = FreezeCallback(
                        BottomUp(k), cache=False if kwargs is None else PrefixCache(**kwargs), quiet=True
                    )
                    rows.add(k, seed, variant, final_f1(task, seed, settings, callback))
    lines = [
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, "
        f"learning rate {options.learning_rate:g}, validation entity F1 in points, {options.seeds} seeds, "
        f"paired. {describe()}.",
        "",
        *table(rows, options.depths, options.variants, options.seeds),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Effect of the cache's eval mode on quality\n\n" + text)


if __name__ == "__main__":
    main()
