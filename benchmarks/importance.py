"""First-order loss decrease of an update (−Σ Δw·g) on its own batch, as policies see it, and on the next batch.

    python benchmarks/importance.py --dataset PATH [--limit 5000] [--epochs 2] [--batch-size 16] [--learning-rate 2e-4]
                                    [--output FILE]

The model is fine-tuned in full, without gradient clipping. After each step the weight change is multiplied by the
gradient from which it was computed and, after the next backward pass, by the next batch's gradient at the new
weights. The products are summed over the steps of an epoch. The table shows each unit's share of the first-order loss
decrease.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from machine import describe
from transformers import Trainer, TrainerCallback

from adaptivefreeze import BlockStack, find_blocks
from adaptivefreeze.comparison.settings import StudySettings
from adaptivefreeze.data import load_task


class Worth(TrainerCallback):
    """Sums −Δw·g by epoch and unit, with the gradient of the same batch and of the next batch."""

    def __init__(self, stack: BlockStack) -> None:
        self.stack = stack
        self.own: list[dict[str, float]] = []
        self.next: list[dict[str, float]] = []
        self._before: dict[str, torch.Tensor] = {}
        self._change: dict[str, torch.Tensor] = {}

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.own.append(defaultdict(float))
        self.next.append(defaultdict(float))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self._add(self.next[-1], self._change, model)
        self._before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self._change = {name: p.detach() - self._before[name] for name, p in model.named_parameters()}
        self._add(self.own[-1], self._change, model)

    def _add(self, sums: dict[str, float], change: dict[str, torch.Tensor], model: Any) -> None:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for unit in self.stack.units:
            for name in (p.name for p in unit.parameters if p.name in change and p.name in gradients):
                sums[unit.name] -= float(torch.dot(change[name].flatten(), gradients[name].flatten()))


def table(worth: Worth) -> str:
    """Return a Markdown table with one row per epoch and batch."""
    units = [unit.name for unit in worth.stack.units]
    lines = [f"| epoch | batch | sum | {' | '.join(units)} |", f"|---:|---|---:|{'---:|' * len(units)}"]
    for epoch, (own, following) in enumerate(zip(worth.own, worth.next, strict=True), 1):
        for label, sums in (("its own", own), ("the next", following)):
            total = sum(sums.values())
            shares = " | ".join(f"{sums[unit] / total:.0%}" for unit in units)
            lines.append(f"| {epoch} | {label} | {total:.3g} | {shares} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    task = load_task(options.dataset, model=options.model, limit=options.limit)
    settings = StudySettings(epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate)
    model = task.new_model(0)
    worth = Worth(find_blocks(model))
    with tempfile.TemporaryDirectory() as folder:
        arguments = settings.arguments(folder, seed=0)
        arguments.max_grad_norm, arguments.eval_strategy = 0.0, "no"
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=task.train,
            data_collator=task.collator(),
            callbacks=[worth],
        )
        trainer.train()
    text = (
        f"{Path(options.dataset).name}, {task.train_examples} training examples, {options.epochs:g} epochs, batch "
        f"{options.batch_size}, learning rate {options.learning_rate:g}, {options.model} model, seed 0. {describe()}."
        "\n\n" + table(worth)
    )
    print(text)
    if options.output:
        options.output.write_text("# First-order effect of an update on its own batch and on the next\n\n" + text)


if __name__ == "__main__":
    main()
