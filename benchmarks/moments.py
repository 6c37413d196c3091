"""Compare thawed blocks that keep their optimizer state with thawed blocks that start with fresh state.

    python benchmarks/moments.py --dataset PATH [--limit 2000] [--epochs 3] [--learning-rate 2e-4] [--seeds 5]
                                 [--depths 2 4] [--rows FILE] [--output FILE]

All units train for a third of the steps, the embeddings and the first k blocks are frozen for the second third, and all
units train again in the last third. For each seed and depth the two runs start from the same head and see the same
batches. Finished runs are stored in --rows and not repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from machine import describe
from paired import Rows, final_f1, table

from adaptivefreeze import BlockStack, FreezeCallback, FreezeMask
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task
from adaptivefreeze.policies import AdaptivePolicy, Decision, DecisionPoints, Signals

FRESH, KEPT = "fresh", "kept"


@dataclass
class MiddleThird(AdaptivePolicy):
    """Freezes the embeddings and the first `k` blocks in the second third of a run only."""

    name: ClassVar[str] = "middle-third"
    k: int
    kept: bool

    @property
    def keep_optimizer_state(self) -> bool:
        return self.kept

    def initial_mask(self, stack: BlockStack) -> FreezeMask:
        return FreezeMask(stack.depth)

    def decision_points(self, total_steps: int, steps_per_epoch: float) -> DecisionPoints:
        return DecisionPoints(steps={total_steps // 3, 2 * total_steps // 3})

    def update(self, signals: Signals) -> Decision:
        depth = signals.mask.depth
        begins = signals.step == signals.total_steps // 3
        return Decision(FreezeMask.first(depth, self.k) if begins else FreezeMask(depth), "a third has passed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rows", type=Path, default=Path("moments.jsonl"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    settings = StudySettings(epochs=options.epochs, learning_rate=options.learning_rate)
    rows = Rows(options.rows)
    for seed in range(options.seeds):
        for k in options.depths:
            for variant in (FRESH, KEPT):
                if (k, seed, variant) not in rows:
                    callback = FreezeCallback(MiddleThird(k, variant == KEPT), quiet=True)
                    rows.add(k, seed, variant, final_f1(task, seed, settings, callback))
    lines = [
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, "
        f"learning rate {options.learning_rate:g}, validation entity F1 in points, {options.seeds} seeds, "
        f"paired. {describe()}.",
        "",
        *table(rows, options.depths, (FRESH, KEPT), options.seeds),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text("# Optimizer state of thawed blocks: kept or fresh\n\n" + text)


if __name__ == "__main__":
    main()
