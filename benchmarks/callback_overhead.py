"""What `FreezeCallback(Nothing())` costs: the time of a Trainer's steps with the callback against without.

    python benchmarks/callback_overhead.py [--rounds 9] [--steps 12] [--output FILE]

A pair trains the same model for some steps with and without the callback, in one process, the order changing from
pair to pair; the figure is the median over pairs of the ratio of median step times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import describe
from transformers import (
    BertConfig,
    BertForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from adaptivefreeze import FreezeCallback, Nothing


class StepTimes(TrainerCallback):
    """Seconds from the beginning of each step to the beginning of the next: all that happens in between counts."""

    def __init__(self) -> None:
        self.begins: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begins.append(time.perf_counter())

    @property
    def median(self) -> float:
        seconds = [b - a for a, b in zip(self.begins, self.begins[1:], strict=False)]
        return statistics.median(seconds[2:])


def run(model: BertForTokenClassification, rows: list[dict], steps: int, callbacks: list[TrainerCallback]) -> float:
    """Median seconds of a step."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=8, max_steps=steps, report_to="none", disable_tqdm=True,
            save_strategy="no", use_cpu=True, logging_steps=5,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[*callbacks, times])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return times.median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = BertConfig(
        num_labels=9, num_hidden_layers=12, hidden_size=384, num_attention_heads=12, intermediate_size=1536
    )
    model = BertForTokenClassification(config)
    ids = torch.randint(1000, 30000, (64, 64))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row % 9} for row in ids]
    run(model, rows, options.steps, [])
    ratios = []
    for pair in range(options.rounds):
        seconds = {}
        for with_callback in (True, False) if pair % 2 else (False, True):
            callbacks = [FreezeCallback(Nothing())] if with_callback else []
            seconds[with_callback] = run(model, rows, options.steps, callbacks)
        ratios.append(seconds[True] / seconds[False])
    text = (
        f"BERT 12×384, batch 8 × 64, {options.rounds} pairs of {options.steps} steps. {describe()}.\n\n"
        f"Step time with `FreezeCallback(Nothing())` / without: median **{statistics.median(ratios):.4f}**, "
        f"from {min(ratios):.3f} to {max(ratios):.3f}.\n"
    )
    print(text)
    if options.output:
        options.output.write_text("# What the callback itself costs\n\n" + text)


if __name__ == "__main__":
    main()
